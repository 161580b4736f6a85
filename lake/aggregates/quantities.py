"""Computes a meter's `quantity` from rows of `usage`: the one place that chooses how."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from lake.aggregates.distinct import COUNT, Merge, by_value, count_distinct
from lake.aggregates.measures import billed, merge, merge_events, with_quantity
from lake.aggregates.series import added, series_names, series_rows
from lake.aggregates.silence import BEFORE, BUCKET, Silence, mark_before, of_one_bucket, with_silent
from lake.calendar import DAY, days_before
from lake.dedupe.winners import DATE
from schemas.columns import MEASURES, QUANTITY
from schemas.meter import Meter


def quantities(
    usage: pl.LazyFrame, meter: Meter, keys: Sequence[str], length: dt.timedelta | pl.Expr = DAY
) -> pl.LazyFrame:
    """Return one row by `keys` with its `quantity`, from rows of `usage` of any dates. Row order is not defined.

    `keys` are fields of `usage`, and the bucket's key where the rows have one. `length` is the length of the bucket.
    """
    if meter.unique is not None:
        return _unique(usage, meter.unique, keys, merge_events).select(*keys, "quantity")
    if meter.needs_usage:
        return measured_usage(usage, meter, keys).select(*keys, "quantity")
    return merge(usage, keys).select(*keys, billed(meter, length))


def _unique(usage: pl.LazyFrame, field: str, keys: Sequence[str], group: Merge) -> pl.LazyFrame:
    """Return the keys, the measures that `group` merges, and the number of distinct values as `quantity`."""
    counted = count_distinct(by_value(usage, field, keys, group), keys, group)
    return counted.with_columns(pl.col(COUNT).cast(QUANTITY).alias("quantity"))


def measured_usage(
    usage: pl.LazyFrame,
    meter: Meter,
    keys: Sequence[str],
    *,
    series_condition: pl.Expr | None = None,
    silent: Silence | None = None,
) -> pl.LazyFrame:
    """Return one row by `keys` of a meter that `needs_usage`: the keys, `quantity`, then the other measures.

    With `series` also `series_count`. `series_condition` is a condition on subject and dimensions. With `silent` the
    rows must have `BUCKET` and `BEFORE`, and the levels of silent series are added too. Row order is not defined.
    """
    if meter.unique is not None:
        rows = usage if series_condition is None else usage.filter(series_condition)
        return _unique(rows, meter.unique, keys, merge).select(*keys, *MEASURES)
    bucket = [BUCKET, BEFORE] if silent else [name for name in keys if name == BUCKET]
    rows = series_rows(usage, meter, bucket)
    if silent:
        rows = with_silent(rows, series_names(meter), silent)
    return added(rows if series_condition is None else rows.filter(series_condition), keys)


def looked_back(meter: Meter, since: dt.date) -> dt.date:
    """Return the first date whose rows count in a range from `since` on: earlier with `carry_days`."""
    return days_before(since, meter.carry_days or 0)


def range_totals(
    rows: pl.LazyFrame,
    meter: Meter,
    keys: Sequence[str],
    since: dt.date | None,
    length: dt.timedelta = DAY,
) -> pl.LazyFrame:
    """Return one row by `keys` over all dates together. Row order is not defined.

    Columns: the keys, `quantity`, with `series` also `series_count`, then the other measures. `rows` are those of an
    aggregate table with `date`, of `usage` for a meter that needs it; those before `since` are only carried.
    """
    if not meter.needs_usage:
        return with_quantity(merge(rows, keys), meter, length)
    if meter.carry_days is None or since is None:
        return measured_usage(rows, meter, keys)
    marked = mark_before(rows.with_columns(pl.lit(None, pl.Date).alias(BUCKET)), pl.col(DATE) < since)
    return measured_usage(marked, meter, keys, silent=of_one_bucket(since, meter.carry_days))
