"""The algebra of usage: measures of events, their exact merging, and the number each aggregation bills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from lake.packing import Packing
from schemas.meter import Meter
from schemas.tables import INSTANT, MEASURES, QUANTITY

SECONDS_PER_DAY = 86_400
_FIRST, _LAST = "#first", "#last"
_HIGH = 2**64


class _End(NamedTuple):
    """The columns that say when the first or last event was, in the order that settles ties, and its quantity."""

    at: str
    received_at: str
    quantity: str


class _Ends(NamedTuple):
    first: _End
    last: _End


_OF_EVENTS = _Ends(*[_End("timestamp", "received_at", "quantity")] * 2)
_OF_ROWS = _Ends(
    _End("first_at", "first_received_at", "quantity_first"),
    _End("last_at", "last_received_at", "quantity_last"),
)


def measure(events: pl.LazyFrame, keys: Sequence[str], packing: Packing | None = None) -> pl.LazyFrame:
    """Measures of events by `keys`: the keys, then every measure but `quantity`. Row order is not defined.

    With the `packing` of events that include these it takes less time, and gives the same. Sums are exact decimals;
    polars raises ComputeError when one leaves 38 digits.
    """
    quantity = pl.col("quantity")
    measures = [
        pl.len().cast(pl.Int64).alias("events"),
        quantity.sum().alias("quantity_sum"),
        quantity.min().alias("quantity_min"),
        quantity.max().alias("quantity_max"),
    ]
    return _group(events, keys, measures, _OF_EVENTS, packing)


def merge(
    rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr, packing: Packing | None = None
) -> pl.LazyFrame:
    """Merge aggregate rows of any dates into one row by `keys`, exactly as if measured from their events.

    Gives the keys, the columns of `more` (further aggregations over the merged rows), then every measure but
    `quantity`. Row order is not defined. `packing` is as for `measure`.
    """
    measures = [
        *more,
        pl.col("events").sum(),
        pl.col("quantity_sum").sum(),
        pl.col("quantity_min").min(),
        pl.col("quantity_max").max(),
    ]
    return _group(rows, keys, measures, _OF_ROWS, packing)


def billed(meter: Meter, seconds: float | pl.Expr = SECONDS_PER_DAY) -> pl.Expr:
    """The meter's own aggregation of the measures as `quantity`: a decimal, or a double for avg and rate.

    avg is double(quantity_sum) / events; rate is events / `seconds`, the length of the bucket, or of each row's.
    """
    # A column of equal numbers: Polars divides by a single one as a product with its reciprocal, which is wrong
    # in the last digit at times.
    bucket = pl.col("events") * 0 + seconds
    numbers = {
        "sum": pl.col("quantity_sum"),
        "count": pl.col("events").cast(QUANTITY),
        "avg": pl.col("quantity_sum").cast(pl.Float64) / pl.col("events"),
        "min": pl.col("quantity_min"),
        "max": pl.col("quantity_max"),
        "first": pl.col("quantity_first"),
        "last": pl.col("quantity_last"),
        "rate": pl.col("events") / bucket,
    }
    return numbers[meter.aggregation].alias("quantity")


def with_quantity(rows: pl.LazyFrame, meter: Meter, seconds: int = SECONDS_PER_DAY) -> pl.LazyFrame:
    """Put `quantity` before the other measures."""
    names = rows.collect_schema().names()
    others = [name for name in MEASURES if name != "quantity"]
    keys = [name for name in names if name not in MEASURES]
    return rows.select(*keys, billed(meter, seconds), *others)


def dimension_text(meter: Meter, name: str) -> pl.Expr:
    """A dimension's value as the text of `usage_by_dimension`: 1 not 1.0, true not True; null stays null."""
    text = pl.col(name).cast(pl.String)
    number = meter.dimension_dtypes[name] == pl.Float64()
    return text.str.strip_suffix(".0") if number else text


def _group(
    rows: pl.LazyFrame, keys: Sequence[str], measures: list[pl.Expr], ends: _Ends, packing: Packing | None
) -> pl.LazyFrame:
    if packing:
        packed = rows.with_columns(
            packing.packed(*ends.first).alias(_FIRST), packing.packed(*ends.last).alias(_LAST)
        )
        grouped = _grouped(packed, keys, [*measures, pl.col(_FIRST).min(), pl.col(_LAST).max()])
        said = [*packing.unpacked(_FIRST, *_OF_ROWS.first), *packing.unpacked(_LAST, *_OF_ROWS.last)]
    else:
        moments = rows.with_columns(
            _moment(*ends.first[:2]).alias(_FIRST), _moment(*ends.last[:2]).alias(_LAST)
        )
        # A struct as a key compares its fields in order, so a tied moment is settled by the quantity.
        first = pl.col(ends.first.quantity).min_by(pl.struct(_FIRST, ends.first.quantity))
        last = pl.col(ends.last.quantity).max_by(pl.struct(_LAST, ends.last.quantity))
        least = [pl.col(_FIRST).min(), pl.col(_LAST).max()]
        numbers = [first.alias("quantity_first"), last.alias("quantity_last")]
        grouped = _grouped(moments, keys, [*measures, *least, *numbers])
        said = [*_times(_FIRST, *_OF_ROWS.first[:2]), *_times(_LAST, *_OF_ROWS.last[:2])]
    named = grouped.with_columns(said).drop(_FIRST, _LAST)
    others = [name for name in named.collect_schema().names() if name not in MEASURES]
    return named.select(*others, *(name for name in MEASURES if name != "quantity"))


def _grouped(rows: pl.LazyFrame, keys: Sequence[str], measures: list[pl.Expr]) -> pl.LazyFrame:
    if keys:
        return rows.group_by(keys).agg(measures)
    # One row for all; none, rather than a row of nulls, where there is nothing to measure.
    return rows.select(measures).filter(pl.col("events") > 0)


def _moment(at: str, received_at: str) -> pl.Expr:
    """Timestamp and received_at as one number that orders as they do: several times faster than a struct of both."""
    high, low = (pl.col(name).cast(pl.Int64).cast(pl.Int128) for name in (at, received_at))
    return high * _HIGH + low


def _times(moment: str, at: str, received_at: str) -> list[pl.Expr]:
    # Half is added, so that a received_at before 1970, which is negative, does not borrow from the timestamp.
    high = (pl.col(moment) + _HIGH // 2) // _HIGH
    low = pl.col(moment) - high * _HIGH
    return [part.cast(pl.Int64).cast(INSTANT).alias(name) for part, name in ((high, at), (low, received_at))]
