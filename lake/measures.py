"""The algebra of usage: measures of events, their exact merging, and the number each aggregation bills."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from schemas.meter import Meter
from schemas.tables import MEASURES, QUANTITY

SECONDS_PER_DAY = 86_400
# A moment orders events for `first` and `last`: by timestamp, ties by received_at, then by quantity.
_EVENT_MOMENT = {"at": "timestamp", "received_at": "received_at", "quantity": "quantity"}
_FIRST = {"at": "first_at", "received_at": "first_received_at", "quantity": "quantity_first"}
_LAST = {"at": "last_at", "received_at": "last_received_at", "quantity": "quantity_last"}


def measure(events: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Measures of events by `keys`: the keys, then every measure but `quantity`. Row order is not defined.

    Sums are exact decimals; polars raises ComputeError when one leaves 38 digits.
    """
    quantity = pl.col("quantity")
    return _group(
        events,
        keys,
        [
            pl.len().cast(pl.Int64).alias("events"),
            quantity.sum().alias("quantity_sum"),
            quantity.min().alias("quantity_min"),
            quantity.max().alias("quantity_max"),
            *_ends(_EVENT_MOMENT, _EVENT_MOMENT),
        ],
    )


def merge(rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
    """Merge aggregate rows of any dates into one row by `keys`, exactly as if measured from their events.

    Gives the keys, the columns of `more` (further aggregations over the merged rows), then every measure but
    `quantity`. Row order is not defined.
    """
    return _group(
        rows,
        keys,
        [
            *more,
            pl.col("events").sum(),
            pl.col("quantity_sum").sum(),
            pl.col("quantity_min").min(),
            pl.col("quantity_max").max(),
            *_ends(_FIRST, _LAST),
        ],
    )


def billed(meter: Meter, seconds: int = SECONDS_PER_DAY) -> pl.Expr:
    """The meter's own aggregation of the measures as `quantity`: a decimal, or a double for avg and rate.

    avg is double(quantity_sum) / events; rate is events / `seconds`, the length of the bucket.
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


def _group(rows: pl.LazyFrame, keys: Sequence[str], measures: list[pl.Expr]) -> pl.LazyFrame:
    if keys:
        grouped = rows.group_by(keys).agg(measures)
    else:
        # One row for all; none, rather than a row of nulls, where there is nothing to measure.
        grouped = rows.select(measures).filter(pl.col("events") > 0)
    names = [name for name in grouped.collect_schema().names() if name not in MEASURES]
    return grouped.select(*names, *(name for name in MEASURES if name != "quantity"))


def _ends(first: dict[str, str], last: dict[str, str]) -> list[pl.Expr]:
    """Each part of the smallest `first` moment and of the greatest `last` moment.

    A struct as the key of min_by compares its fields in order; min of a struct itself is not supported.
    """
    begin, end = pl.struct(first.values()), pl.struct(last.values())
    return [pl.col(first[part]).min_by(begin).alias(name) for part, name in _FIRST.items()] + [
        pl.col(last[part]).max_by(end).alias(name) for part, name in _LAST.items()
    ]
