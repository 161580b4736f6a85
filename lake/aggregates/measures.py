"""The algebra of usage: measures of events, their exact merging, and the number each aggregation bills."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl

from lake.aggregates.first_last import ANY, OF_EVENTS, OF_ROWS, FirstLast, pack
from lake.aggregates.rounding import quotient
from lake.aggregates.sums import EXACT, Sums, small_count, sums_of
from lake.calendar import DAY
from schemas.columns import MEASURES, QUANTITY
from schemas.meter import Meter

# Billionths of an event a second, of events a microsecond.
_PER_SECOND = 10**15


class Partials(NamedTuple):
    """How events are grouped into partial rows, which merge: suited to the events, or to any."""

    first_last: FirstLast = ANY
    sums: Sums = EXACT

    def group(self, events: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
        """Return events grouped by `keys`, in no order: the keys, then partial columns."""
        quantity = pl.col("quantity")
        measures = [
            pl.len().cast(pl.Int64).alias("events"),
            self.sums.quantities("quantity").alias("quantity_sum"),
            quantity.min().alias("quantity_min"),
            quantity.max().alias("quantity_max"),
        ]
        rows = events.with_columns(self.first_last.partial_columns(*OF_EVENTS))
        return _grouped(rows, keys, [*measures, *self.first_last.merge_exprs()])

    def merge(self, rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
        """Return partial rows merged into one by `keys`, in no order: the keys, `more`, then partial columns."""
        measures = [
            self.sums.counts("events"),
            self.sums.quantities("quantity_sum"),
            pl.col("quantity_min").min(),
            pl.col("quantity_max").max(),
        ]
        return _grouped(rows, keys, [*more, *measures, *self.first_last.merge_exprs()])

    def finalize(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return partial rows with what else they have, then every measure but `quantity`."""
        final = rows.with_columns(self.first_last.finalize())
        partial = [
            *MEASURES,
            *(expression.meta.output_name() for expression in self.first_last.merge_exprs()),
        ]
        others = [name for name in rows.collect_schema().names() if name not in partial]
        return final.select(*others, *(name for name in MEASURES if name != "quantity"))


ANY_PARTIALS = Partials()


def partials_for(events: pl.LazyFrame, count: int) -> Partials:
    """Return the partial rows that take the least time for so many events, which are read once."""
    packed = pack(events)
    return Partials(packed or ANY, sums_of(count, packed.largest_quantity if packed else None))


def measure(events: pl.LazyFrame, keys: Sequence[str], partials: Partials = ANY_PARTIALS) -> pl.LazyFrame:
    """Return measures of events by `keys`: the keys, then every measure but `quantity`. Row order is not defined.

    With `partials` that suit the events it takes less time, with the same result. A sum is an exact decimal, or null
    where it has more than 38 digits.
    """
    return partials.finalize(partials.group(events, keys))


def merge(rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
    """Merge aggregate rows of any dates into one row by `keys`, exactly as if measured from their events.

    Returns the keys, the columns of `more` (further aggregations over the merged rows), then every measure but
    `quantity`. Row order is not defined.
    """
    partial = rows.with_columns(ANY.partial_columns(*OF_ROWS))
    return ANY_PARTIALS.finalize(ANY_PARTIALS.merge(partial, keys, *more))


def merge_events(rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
    """Return what `merge` does with `events` as the only measure, which takes less time."""
    return _grouped(rows, keys, [*more, small_count("events")])


def billed(meter: Meter, length: dt.timedelta | pl.Expr = DAY) -> pl.Expr:
    """Return the meter's own aggregation of the measures as `quantity`, a decimal(38, 9); see `aggregated`."""
    return aggregated(meter.aggregation, length).alias("quantity")


def aggregated(aggregation: str, length: dt.timedelta | pl.Expr = DAY) -> pl.Expr:
    """Return an aggregation of the measures as a decimal(38, 9), null where it takes a sum that is.

    avg is quantity_sum / events; rate is events by second of `length`, that of the bucket, or of each row's. Both are
    rounded half-even. unique_count is null, since no measure has it: see lake.aggregates.quantities.
    """
    # Only the one that is asked for is made, which takes time for each table of each date.
    numbers: dict[str, Callable[[], pl.Expr]] = {
        "sum": lambda: pl.col("quantity_sum"),
        "count": lambda: pl.col("events").cast(QUANTITY),
        "avg": lambda: quotient(*avg_parts()),
        "min": lambda: pl.col("quantity_min"),
        "max": lambda: pl.col("quantity_max"),
        "first": lambda: pl.col("quantity_first"),
        "last": lambda: pl.col("quantity_last"),
        "rate": lambda: quotient(*rate_parts(length)),
        "unique_count": lambda: pl.lit(None, QUANTITY),
    }
    return numbers[aggregation]()


def avg_parts() -> tuple[pl.Expr, pl.Expr]:
    """Return the integers whose quotient `avg` is, in billionths, before it is rounded."""
    return pl.col("quantity_sum").to_physical(), pl.col("events").cast(pl.Int128)


def rate_parts(length: dt.timedelta | pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return the integers whose quotient `rate` is, in billionths, before it is rounded."""
    bucket = length if isinstance(length, pl.Expr) else pl.lit(length)
    events = pl.col("events").cast(pl.Int128) * pl.lit(_PER_SECOND, pl.Int128)
    return events, bucket.dt.total_microseconds().cast(pl.Int128)


def with_quantity(rows: pl.LazyFrame, meter: Meter, length: dt.timedelta = DAY) -> pl.LazyFrame:
    """Return the rows with `quantity` before the other measures."""
    names = rows.collect_schema().names()
    others = [name for name in MEASURES if name != "quantity"]
    keys = [name for name in names if name not in MEASURES]
    return rows.select(*keys, billed(meter, length), *others)


def dimension_text(meter: Meter, name: str) -> pl.Expr:
    """Return a dimension's value as the text of `usage_by_dimension`: 1 not 1.0, true not True; null stays null."""
    text = pl.col(name).cast(pl.String)
    number = meter.dimension_dtypes[name] == pl.Float64()
    return text.str.strip_suffix(".0") if number else text


def _grouped(rows: pl.LazyFrame, keys: Sequence[str], measures: list[pl.Expr]) -> pl.LazyFrame:
    if keys:
        return rows.group_by(keys).agg(measures)
    # One row for all; none, rather than a row of nulls, where there is nothing to measure.
    return rows.select(measures).filter(pl.col("events").ne_missing(0))
