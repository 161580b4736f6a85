"""Rolling windows of days, pure: the distinct values of the days that end with each day, in time linear in the rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from lake.aggregates.distinct import COUNT, VALUE
from lake.aggregates.silence import BUCKET
from lake.calendar import DAY

# The first day on which something no longer counts.
_END = "#end"
# Stands for an unknown count of events: more than a bigint holds, and so is every sum with it.
_TOO_MANY = 2**64


def count_rolling(
    values: pl.LazyFrame, by: Sequence[str], days: int, dates: tuple[dt.date, dt.date]
) -> pl.LazyFrame:
    """Return how many distinct values and events the `days` days have that end with each day, within `dates`.

    `values` has one row by `VALUE`, the day as `BUCKET`, and `by`, with its `events`; `dates` are half-open. One row
    for each day and group whose window has events: `BUCKET`, the fields of `by`, `COUNT`, and `events`, null where
    they are more than a bigint holds. Row order is not defined.
    """
    since, until = map(pl.lit, dates)
    begin, end = pl.max_horizontal(BUCKET, since), pl.min_horizontal(_END, until)
    # A row becomes one for each day only here, where all of them are rows of the answer.
    return (
        _levels(_changes(values, by, days * DAY), by)
        .filter(pl.col("events") > 0, begin < end)
        .with_columns(pl.date_ranges(begin, end, closed="left").alias(BUCKET))
        .explode(BUCKET)
        .select(BUCKET, *by, COUNT, pl.col("events").cast(pl.Int64, strict=False))
    )


def _changes(values: pl.LazyFrame, by: Sequence[str], length: dt.timedelta) -> pl.LazyFrame:
    """Return the changes of the counts of windows from the day before, for the days that have one.

    From each of its days on, a value counts until its next day or the end of the window, so it counts once in a window
    however many of its days are in it.
    """
    is_value = pl.col(VALUE).is_not_null().cast(pl.Int64)
    following = pl.col(BUCKET).shift(-1).over([VALUE, *by], order_by=BUCKET)
    counted = values.select(
        BUCKET,
        *by,
        pl.min_horizontal(pl.col(BUCKET) + length, following).alias(_END),
        is_value.alias(COUNT),
        pl.col("events").cast(pl.Int128).fill_null(pl.lit(_TOO_MANY, pl.Int128)),
    )
    begun = counted.group_by(BUCKET, *by).agg(pl.col(COUNT, "events").sum())
    ended = counted.group_by(pl.col(_END).alias(BUCKET), *by).agg(-pl.col(COUNT).sum())
    expired = begun.select(pl.col(BUCKET) + length, *by, (0 - pl.col("events")).alias("events"))
    changes = pl.concat([begun, ended, expired], how="diagonal")
    return changes.group_by(BUCKET, *by).agg(pl.col(COUNT, "events").sum())


def _levels(changes: pl.LazyFrame, by: Sequence[str]) -> pl.LazyFrame:
    """Return the counts from each change, on the day `BUCKET`, until the next one, on the day `_END`."""
    levels = [pl.col(COUNT, "events").cum_sum(), pl.col(BUCKET).shift(-1).alias(_END)]
    ordered = changes.sort(BUCKET)
    return ordered.with_columns(each.over(by) for each in levels) if by else ordered.with_columns(levels)
