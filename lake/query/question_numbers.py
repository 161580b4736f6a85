"""The numbers of an answer, pure: by bucket and group, and for each group over the whole range."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import polars as pl

from lake.aggregates.distinct import COUNT, VALUE, Group, by_value, count_distinct, count_values, plain
from lake.aggregates.measures import billed, merge, merge_events
from lake.aggregates.quantities import measured_usage
from lake.aggregates.silence import BEFORE, BUCKET, Silence, silence
from lake.calendar import DAY
from lake.query.question import Question, adds_levels, counted_field
from lake.query.rolling import count_rolling
from lake.query.time_buckets import bucket_of_date, buckets
from schemas.columns import QUANTITY
from schemas.meter import Meter

# The length of a bucket.
_LENGTH = "#length"
# Up to this many buckets are counted one by one, which takes two thirds of the time; planning each takes a millisecond.
MAX_PARTS = 16


class Numbers(NamedTuple):
    """The number asked for, in the column `Question.value`, and the measures.

    `rows` has one row by `BUCKET` and the fields of `Question.by`, `totals` one by those fields; row order is not defined.
    """

    rows: pl.LazyFrame
    totals: pl.LazyFrame


def numbers(  # noqa: PLR0913, PLR0917 - the parts of one question
    rows: pl.LazyFrame,
    meter: Meter,
    question: Question,
    grid: pl.DataFrame,
    series_condition: pl.Expr | None,
    group: Group,
    parts: Mapping[dt.date, pl.LazyFrame],
) -> Numbers:
    """Return the numbers of rows that have a `BUCKET`, which `group` groups: events, or rows of aggregates.

    `parts` are the same rows by bucket, if the caller has them so. Where levels are added, the rows are those of `usage`
    with `BEFORE`, and `series_condition` is a condition on whole series.
    """
    if adds_levels(meter, question):
        return _levels(rows, meter, question, grid, series_condition)
    field = counted_field(meter, question)
    if field is None:
        return _amounts(group(rows, _keys(question)), meter, question, grid)
    counts = _counts(rows, field, question, grid, group, parts)
    count = pl.col(COUNT) if question.distinct else pl.col(COUNT).cast(QUANTITY)
    return Numbers(*(each.with_columns(count.alias(question.value)) for each in counts))


def _amounts(measured: pl.LazyFrame, meter: Meter, question: Question, grid: pl.DataFrame) -> Numbers:
    """Return the quantities that the meter's aggregation computes from the measures."""
    lengths = grid.lazy().select(BUCKET, (pl.col("bucket_end") - pl.col("bucket_start")).alias(_LENGTH))
    rows = _with_bucket(measured, question).join(lengths, on=BUCKET, nulls_equal=True)
    totals = merge(measured, question.by)
    return Numbers(
        rows.with_columns(billed(meter, pl.col(_LENGTH))),
        totals.with_columns(billed(meter, question.until - question.since)),
    )


def _counts(  # noqa: PLR0913, PLR0917 - the parts of one question
    rows: pl.LazyFrame,
    field: str,
    question: Question,
    grid: pl.DataFrame,
    group: Group,
    parts: Mapping[dt.date, pl.LazyFrame],
) -> Numbers:
    """Return the numbers of distinct values of a field, as `COUNT`."""
    again = merge if question.measures else merge_events
    first = again if group is merge else group
    keys, totals = _keys(question), count_values(rows.with_columns(pl.col(field).alias(VALUE)), question.by)

    def counted(part: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
        return count_distinct(by_value(part, field, keys, first), keys, again)

    if question.rolling is not None:
        return _windows(by_value(rows, field, keys, first), question, question.rolling, grid)
    if not 1 < len(parts) <= MAX_PARTS:
        return Numbers(_with_bucket(counted(rows, keys), question), totals)
    of_parts = [
        counted(part, question.by).with_columns(pl.lit(key).alias(BUCKET)) for key, part in parts.items()
    ]
    return Numbers(pl.concat(of_parts), totals)


def _windows(values: pl.LazyFrame, question: Question, days: int, grid: pl.DataFrame) -> Numbers:
    """Return the numbers of distinct values, as `COUNT`, in rolling windows, from rows by value, day and group."""
    # Collected once, since rows and totals are both computed from it.
    values = plain(values).select(VALUE, *_keys(question), "events").collect(engine="streaming").lazy()
    first, last = grid[BUCKET][0], grid[BUCKET][-1]
    rows = count_rolling(values, question.by, days, (first, last + DAY))
    # Days before the range don't count for the rank, but their groups are in the answer.
    in_range = pl.when(pl.col(BUCKET) >= first).then(VALUE).alias(VALUE)
    return Numbers(rows, count_values(values.with_columns(in_range), question.by))


def _levels(
    rows: pl.LazyFrame, meter: Meter, question: Question, grid: pl.DataFrame, series_condition: pl.Expr | None
) -> Numbers:
    """Return the sums of the levels of series."""
    whole = replace(question, bucket="none", fill=False)
    range_ = buckets("none", question.since, question.until, question.zone)
    undivided = rows.with_columns(bucket_of_date("none", pl.lit(None)))
    return Numbers(
        _of_usage(rows, meter, question, grid, series_condition),
        _of_usage(undivided, meter, whole, range_, series_condition),
    )


def _of_usage(
    rows: pl.LazyFrame, meter: Meter, question: Question, grid: pl.DataFrame, series_condition: pl.Expr | None
) -> pl.LazyFrame:
    """Return the measures by bucket and group of rows of `usage`, including silent series where they count."""
    silent = _silence(meter, question, grid)
    used = rows if silent else rows.filter(~pl.col(BEFORE))
    return measured_usage(
        used, meter, [BUCKET, *question.by], series_condition=series_condition, silent=silent
    )


def _silence(meter: Meter, question: Question, grid: pl.DataFrame) -> Silence | None:
    if meter.carry_days is None and not question.fill:
        return None
    return silence(grid, question.since, meter.carry_days)


def _keys(question: Question) -> list[str]:
    """Return the group keys; a single bucket is none of them, which saves time."""
    return [*question.by] if question.bucket == "none" else [BUCKET, *question.by]


def _with_bucket(rows: pl.LazyFrame, question: Question) -> pl.LazyFrame:
    """Return rows grouped by `_keys` with the key of their bucket."""
    if question.bucket != "none":
        return rows
    return rows.with_columns(bucket_of_date("none", pl.lit(None)))
