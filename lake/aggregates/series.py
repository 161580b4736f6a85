"""The levels of series: one row for each series, and their sums by any fields. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.aggregates.first_last import LAST
from lake.aggregates.measures import billed, merge
from lake.aggregates.sums import exact_sum
from schemas.columns import MEASURES, SERIES_COUNT
from schemas.meter import Meter

# No dimension's name has such a sign.
_ATTRIBUTES, _ALL = "#attributes", "#all"


def series_names(meter: Meter) -> list[str]:
    """Return the columns that name a series, in declared order: the subject, and the dimensions of `series`."""
    return ["subject", *(name for name in meter.dimension_names if name in (meter.series or ()))]


def series_rows(usage: pl.LazyFrame, meter: Meter, bucket: Sequence[str] = ()) -> pl.LazyFrame:
    """Return one row by bucket and series, merged from rows of `usage` of any dates. Row order is not defined.

    Columns: those of `bucket`, subject and every dimension, then the measures; `quantity` is the aggregation of the
    series, for avg rounded half-even to 9 places. Dimensions that name no series are those of the last event; of
    equally late events the greatest values count, in declared order, null being the smallest.
    """
    names = series_names(meter)
    attributes = [name for name in meter.dimension_names if name not in names]
    keys = [*bucket, *names]
    if not attributes:
        rows = merge(usage, keys)
    else:
        last = pl.struct(LAST, "quantity_last", *attributes)
        last_attributes = pl.struct(attributes).max_by(last).alias(_ATTRIBUTES)
        rows = merge(usage, keys, last_attributes).unnest(_ATTRIBUTES)
    fields = ["subject", *meter.dimension_names]
    return rows.with_columns(billed(meter)).select(*bucket, *fields, *MEASURES)


def added(series: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Return one row by `keys` from rows of `series_rows`; none without series. Row order is not defined.

    Columns: the keys; `quantity`, the sum over the series, null if it is too large; `series_count`, how many series;
    then the other measures, of the series that have events, null where none has.
    """
    by = [*keys] or [_ALL]
    rows = series if keys else series.with_columns(pl.lit(value=True).alias(_ALL))
    levels = rows.group_by(by).agg(exact_sum("quantity"), pl.len().cast(pl.Int64).alias(SERIES_COUNT))
    measured = merge(rows.filter(pl.col("events") != 0), by)
    joined = levels.join(measured, on=by, how="left", nulls_equal=True)
    silent = pl.col("quantity_min").is_null()
    events = pl.when(silent).then(0).otherwise("events").alias("events")
    others = [name for name in MEASURES if name != "quantity"]
    return joined.with_columns(events).select(*keys, "quantity", SERIES_COUNT, *others)
