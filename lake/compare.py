"""Each group's usage beside that of the bucket before: pure functions of answers."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import polars as pl

from lake.buckets import UTC, buckets, zone_of
from lake.query import instant, make_plan
from lake.question import Question, adds_levels
from lake.ratios import fraction
from schemas.errors import BadInputError
from schemas.meter import Meter

BEFORE, CHANGE, STATE = COMPARED = ("usage_before", "usage_change", "usage_state")
# A level of these in a longer bucket says nothing about the level in a shorter one.
_ENDS = frozenset({"min", "first", "last"})
_GROUP, _FIRST, _SEEN = "#group", "#first", "#seen"
_BUCKET = ["bucket_start", "bucket_end"]


def before_question(question: Question) -> Question:
    """Return the question of the bucket before the range.

    Raises BadInputError where the range does not consist of whole buckets, of which one can come before another.
    """
    if question.bucket == "none":
        raise BadInputError(
            "there is no bucket before this one",
            expected="--compare with buckets of a length: hour, day, week, month, quarter, year",
            found="none, which is the range as one",
        )
    grid = buckets(question.bucket, question.since, question.until, question.zone)
    first, last = grid["bucket_start"].to_list()[0], grid["bucket_end"].to_list()[-1]
    if (first, last) != (question.since, question.until):
        zone = zone_of(question.zone)
        raise BadInputError(
            f"the range does not begin and end with a {question.bucket}, which --compare needs",
            expected=f"whole {question.bucket}s of {question.zone}, such as {_text(first, zone)} to {_text(last, zone)}",
            found=f"{_text(question.since, zone)} to {_text(question.until, zone)}",
        )
    earlier = buckets(
        question.bucket, question.since - dt.timedelta.resolution, question.since, question.zone
    )
    return replace(question.alone(), since=earlier["bucket_start"].item(), until=question.since, fill=False)


def history_questions(meter: Meter, before: Question, first: dt.date) -> list[Question]:
    """Return the questions that tell which groups there were before a bucket, from the date `first` on.

    Whole dates of UTC are asked by themselves, so that the aggregates answer, also of dates without events.
    """
    midnight = before.since.replace(hour=0, minute=0, second=0, microsecond=0)
    begin = min(instant(first), midnight)
    # Whoever was in a window was in a day.
    whole = replace(before, rolling=None)
    is_end = before.distinct is None and meter.aggregation in _ENDS
    if not (is_end or adds_levels(meter, before)):
        whole = replace(whole, bucket="none")
    parts = [
        replace(whole, since=since, until=until)
        for since, until in ((begin, midnight), (midnight, before.since))
        if since < until
    ]
    return [_of_aggregates(meter, part) for part in parts]


def _of_aggregates(meter: Meter, question: Question) -> Question:
    """Return the question by days of UTC, if the aggregates can answer only that."""
    if make_plan(meter, question).source == "aggregates":
        return question
    days = replace(question, bucket="day", zone=UTC)
    return days if make_plan(meter, days).source == "aggregates" else question


def with_before(
    rows: pl.LazyFrame, before: pl.LazyFrame, history: list[pl.LazyFrame], question: Question
) -> pl.LazyFrame:
    """Return the rows with `usage_before`, `usage_change` and `usage_state`, and one for each group that is lost.

    A group is in a bucket if its exact quantity is above 0. Its state is `new` where it was in no bucket before,
    `active` where it was in the one before, `returned` where it was in others only, and `lost` where it is not there
    any more; null where it is in neither. What is missing counts as 0.
    """
    by, value = list(question.by), question.value
    # A group of its own for all, since rows can't be joined by nothing.
    frames = [frame.with_columns(pl.lit(0, pl.Int8).alias(_GROUP)) for frame in (rows, before, *history)]
    group = [_GROUP, *by]
    present = [frame.filter(fraction("row").numerator > 0) for frame in frames]
    now = pl.concat(frame.select(*_BUCKET, *group, value) for frame in present[:2])
    first = now.group_by(group).agg(pl.col("bucket_start").min().alias(_FIRST))
    seen = (
        pl.concat(frame.select(group) for frame in present[2:]) if history else first.select(group).limit(0)
    )
    joined = (
        frames[0]
        .join(
            _in_next(now, group, question), on=[*_BUCKET, *group], how="full", coalesce=True, nulls_equal=True
        )
        .join(first, on=group, how="left", nulls_equal=True)
        .join(
            seen.unique().with_columns(pl.lit(value=True).alias(_SEEN)),
            on=group,
            how="left",
            nulls_equal=True,
        )
    )
    usage, earlier, (numerator, denominator) = pl.col(value), pl.col(BEFORE), fraction("row")
    is_lost = earlier.is_not_null() & (numerator > 0).not_().fill_null(value=True)
    return joined.with_columns(
        _state().alias(STATE),
        *(
            pl.when(is_lost).then(0).otherwise(each).alias(each.meta.output_name())
            for each in (usage, numerator)
        ),
        denominator.fill_null(1),
        pl.col("events").fill_null(0),
        earlier.fill_null(0),
        (usage.fill_null(0) - earlier.fill_null(0)).alias(CHANGE),
    )


def _text(moment: dt.datetime, zone: dt.tzinfo) -> str:
    """Return a moment as it is asked for: a date of the zone where it begins one."""
    local = moment.astimezone(zone)
    return f"{local:%Y-%m-%d}" if local.time() == dt.time() else local.isoformat()


def _in_next(rows: pl.LazyFrame, group: list[str], question: Question) -> pl.LazyFrame:
    """Return `usage_before` of each group by the bucket that follows, if it is one of the range."""
    grid = buckets(question.bucket, question.since, question.until, question.zone).lazy()
    following = grid.select(pl.col("bucket_start").alias("#start"), pl.col("bucket_end").alias("#end"))
    return rows.join(following, left_on="bucket_end", right_on="#start").select(
        pl.col("bucket_end").alias("bucket_start"),
        pl.col("#end").alias("bucket_end"),
        *group,
        pl.col(question.value).alias(BEFORE),
    )


def _state() -> pl.Expr:
    is_there = fraction("row").numerator > 0
    was_there = pl.col(BEFORE).is_not_null()
    is_new = pl.col(_SEEN).is_null() & (pl.col(_FIRST) == pl.col("bucket_start"))
    return (
        pl.when(is_there & was_there)
        .then(pl.lit("active"))
        .when(is_there & is_new)
        .then(pl.lit("new"))
        .when(is_there)
        .then(pl.lit("returned"))
        .when(was_there)
        .then(pl.lit("lost"))
    )
