"""Compares each group's usage with that of the bucket before: pure functions of answers."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import polars as pl

from lake.query.plan import make_plan
from lake.query.question import Question, adds_levels
from lake.query.ratios import fraction
from lake.query.time_buckets import UTC, buckets, instant, zone_of
from schemas.errors import BadInputError
from schemas.meter import Meter

BEFORE, CHANGE, STATE = COMPARED = ("usage_before", "usage_change", "usage_state")
# Aggregations whose level in a longer bucket says nothing about the level in a shorter one.
_ENDS = frozenset({"min", "first", "last"})
_GROUP, _FIRST = "#group", "#first"
_BUCKET = ["bucket_start", "bucket_end"]


def before_question(question: Question) -> Question:
    """Return the question for the bucket before the range.

    Raises BadInputError where the range does not consist of whole buckets.
    """
    if question.bucket == "none":
        raise BadInputError(
            "there is no bucket before this one",
            expected="--compare with buckets of a length: hour, day, week, month, quarter, year",
            found="none: the whole range is one bucket",
        )
    grid = buckets(question.bucket, question.since, question.until, question.zone)
    first, last = grid["bucket_start"].to_list()[0], grid["bucket_end"].to_list()[-1]
    if (first, last) != (question.since, question.until):
        # Hours are those of UTC.
        name = UTC if question.bucket == "hour" else question.zone
        zone = zone_of(name)
        raise BadInputError(
            f"the range does not consist of whole {question.bucket}s, which --compare needs",
            expected=f"whole {question.bucket}s of {name}, such as {_text(first, zone)} to {_text(last, zone)}",
            found=f"{_text(question.since, zone)} to {_text(question.until, zone)}",
        )
    earlier = buckets(
        question.bucket, question.since - dt.timedelta.resolution, question.since, question.zone
    )
    return replace(
        question.without_extras(), since=earlier["bucket_start"].item(), until=question.since, fill=False
    )


def history_questions(meter: Meter, before: Question, first: dt.date) -> list[Question]:
    """Return the questions that find the groups of all buckets before a bucket, from the date `first` on.

    Whole UTC dates are a question of their own, so that aggregates can answer it, also for dates without events.
    """
    midnight = before.since.replace(hour=0, minute=0, second=0, microsecond=0)
    begin = min(instant(first), midnight)
    # A group in a rolling window was also in one of its days.
    undivided = replace(before, rolling=None)
    is_end = before.distinct is None and meter.aggregation in _ENDS
    if not (is_end or adds_levels(meter, before)):
        undivided = replace(undivided, bucket="none")
    parts = [
        replace(undivided, since=since, until=until)
        for since, until in ((begin, midnight), (midnight, before.since))
        if since < until
    ]
    return [_of_aggregates(meter, part) for part in parts]


def _of_aggregates(meter: Meter, question: Question) -> Question:
    """Return the question by days of UTC if aggregates can answer only that; else the question."""
    if make_plan(meter, question).source == "aggregates":
        return question
    days = replace(question, bucket="day", zone=UTC)
    return days if make_plan(meter, days).source == "aggregates" else question


def with_before(
    rows: pl.LazyFrame, before: pl.LazyFrame, history: list[pl.LazyFrame], question: Question
) -> pl.LazyFrame:
    """Return the rows with `usage_before`, `usage_change` and `usage_state`, and a row for each lost group.

    A group is in a bucket if its exact quantity is above 0. Its state is `new` if it was in no bucket before, `active`
    if it was in the bucket before, `returned` if it was in earlier ones only, and `lost` if it was in the bucket before
    and is not in this one; null if it is in neither. A missing quantity counts as 0.
    """
    # A constant key, since rows can't be joined without one.
    group, one = [_GROUP, *question.by], pl.lit(0, pl.Int8).alias(_GROUP)
    answers = [frame.with_columns(one) for frame in (rows, before, *history)]
    in_bucket = [frame.filter(fraction("row").numerator > 0) for frame in answers]
    in_any_bucket = pl.concat(frame.select("bucket_start", *group) for frame in in_bucket)
    first = in_any_bucket.group_by(group).agg(pl.col("bucket_start").min().alias(_FIRST))
    earlier = _in_next(
        pl.concat(frame.select(*_BUCKET, *group, question.value) for frame in in_bucket[:2]), question
    )
    joined = answers[0].join(earlier, on=[*_BUCKET, *group], how="full", coalesce=True, nulls_equal=True)
    compared = joined.join(first, on=group, how="left", nulls_equal=True).with_columns(_state().alias(STATE))
    return _with_zeros(compared, question.value)


def _text(moment: dt.datetime, zone: dt.tzinfo) -> str:
    """Return a moment as users write it: a date of the zone if it is its midnight, else a time."""
    local = moment.astimezone(zone)
    return f"{local:%Y-%m-%d}" if local.time() == dt.time() else local.isoformat()


def _in_next(rows: pl.LazyFrame, question: Question) -> pl.LazyFrame:
    """Return each group's quantity as `usage_before` of the following bucket, where that is in the range."""
    grid = buckets(question.bucket, question.since, question.until, question.zone).lazy()
    following = grid.select(pl.col("bucket_start").alias("#start"), pl.col("bucket_end").alias("#end"))
    return rows.join(following, left_on="bucket_end", right_on="#start").select(
        pl.col("bucket_end").alias("bucket_start"),
        pl.col("#end").alias("bucket_end"),
        _GROUP,
        *question.by,
        pl.col(question.value).alias(BEFORE),
    )


def _state() -> pl.Expr:
    is_present = fraction("row").numerator > 0
    was_present = pl.col(BEFORE).is_not_null()
    return (
        pl.when(is_present & was_present)
        .then(pl.lit("active"))
        .when(is_present & (pl.col(_FIRST) == pl.col("bucket_start")))
        .then(pl.lit("new"))
        .when(is_present)
        .then(pl.lit("returned"))
        .when(was_present)
        .then(pl.lit("lost"))
    )


def _with_zeros(rows: pl.LazyFrame, value: str) -> pl.LazyFrame:
    """Return the rows with 0 for missing quantities of lost and new groups, and `usage_change`."""
    usage, before, (numerator, denominator) = pl.col(value), pl.col(BEFORE), fraction("row")
    is_lost = (pl.col(STATE) == "lost").fill_null(value=False)
    return rows.with_columns(
        pl.when(is_lost).then(0).otherwise(usage).alias(value),
        pl.when(is_lost).then(0).otherwise(numerator).alias(numerator.meta.output_name()),
        denominator.fill_null(1),
        pl.col("events").fill_null(0),
        before.fill_null(0),
        (usage.fill_null(0) - before.fill_null(0)).alias(CHANGE),
    )
