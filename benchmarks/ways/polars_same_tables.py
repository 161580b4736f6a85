"""Polars with every column that Meterlake writes: no deduplication, the three tables, a file a date.

Ties of first and last are resolved by timestamp, received_at and quantity. Both times as one number take less time than as a
struct of them, in which they would be compared field by field.
"""

from __future__ import annotations

import sys

import polars as pl

from benchmarks.ways.polars_tables import QUANTITY, write_tables

HIGH = 2**64
ENDS = [
    pl.col("first").min(),
    pl.col("quantity_first").min_by(pl.struct("first", "quantity_first")),
    pl.col("last").max(),
    pl.col("quantity_last").max_by(pl.struct("last", "quantity_last")),
]


def main(lake: str, out: str) -> None:
    """Group by moments, and tell their parts in the end."""
    at, received_at = (pl.col(name).cast(pl.Int64).cast(pl.Int128) for name in ("timestamp", "received_at"))
    moment = at * HIGH + received_at
    moments = [moment.alias("first"), moment.alias("last")]
    quantities = [QUANTITY.alias(name) for name in ("quantity_first", "quantity_last")]
    write_tables(lake, out, [*moments, *quantities], ENDS, _finalize)


def _finalize(rows: pl.LazyFrame) -> pl.LazyFrame:
    instant = pl.Datetime("us", "UTC")
    parts = [
        part.cast(pl.Int64).cast(instant).alias(f"{end}_{name}")
        for end in ("first", "last")
        for name, part in (("at", pl.col(end) // HIGH), ("received_at", pl.col(end) % HIGH))
    ]
    return rows.with_columns(pl.col("quantity_sum").alias("quantity"), *parts).drop("first", "last")


if __name__ == "__main__":
    main(*sys.argv[1:3])
