"""Polars as one would write it down: no deduplication, the three tables, a file a date. A wrong number, and a floor.

Of two events of one microsecond first and last take any, and there is no `received_at` in the tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from benchmarks.generate import DIMENSIONS, EVENTS

KEYS = ["subject", *DIMENSIONS]
QUANTITY, TIMESTAMP = pl.col("quantity"), pl.col("timestamp")
SUMS = [
    pl.len().alias("events"),
    QUANTITY.sum().alias("quantity_sum"),
    QUANTITY.min().alias("quantity_min"),
    QUANTITY.max().alias("quantity_max"),
]
MERGED = [
    pl.col("events").sum(),
    pl.col("quantity_sum").sum(),
    pl.col("quantity_min").min(),
    pl.col("quantity_max").max(),
]
# The columns that find the first and the last event of a group, and how they are merged.
MOMENT_COLUMNS = [
    QUANTITY.alias("quantity_first"),
    TIMESTAMP.alias("first_at"),
    QUANTITY.alias("quantity_last"),
    TIMESTAMP.alias("last_at"),
]
ENDS = [
    pl.col("quantity_first").min_by("first_at"),
    pl.col("first_at").min(),
    pl.col("quantity_last").max_by("last_at"),
    pl.col("last_at").max(),
]


def grouped(
    lake: str, columns: Sequence[pl.Expr] = MOMENT_COLUMNS, ends: Sequence[pl.Expr] = ENDS
) -> pl.DataFrame:
    """Every event by date and all keys."""
    lf = pl.scan_parquet(Path(lake) / EVENTS, hive_partitioning=False).with_columns(columns)
    by_date = lf.group_by(TIMESTAMP.dt.date().alias("date"), *KEYS)
    return by_date.agg(*SUMS, *ends).collect(engine="streaming")


def write_tables(
    lake: str,
    out: str,
    columns: Sequence[pl.Expr] = MOMENT_COLUMNS,
    ends: Sequence[pl.Expr] = ENDS,
    finalize: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda rows: rows,
) -> None:
    """Group once, merge the smaller tables from it, write all after `finalize`."""
    usage = grouped(lake, columns, ends).lazy()
    by_subject = usage.group_by("date", "subject").agg(*MERGED, *ends)
    subjects = pl.col("subject").n_unique().alias("subjects")
    by_dimension = pl.concat(
        usage.group_by("date", pl.col(name).alias("value"))
        .agg(subjects, *MERGED, *ends)
        .select("date", pl.lit(name).alias("dimension"), pl.exclude("date"))
        for name in DIMENSIONS
    )
    _write(finalize(usage).sort("date", *KEYS), out, "usage")
    _write(finalize(by_subject).sort("date", "subject"), out, "usage_by_subject")
    _write(finalize(by_dimension).sort("date", "dimension", "value"), out, "usage_by_dimension")


def _write(rows: pl.LazyFrame, out: str, table: str) -> None:
    target = pl.PartitionBy(Path(out) / table, key="date", include_key=True)
    rows.sink_parquet(target, mkdir=True, compression="zstd", compression_level=1)


if __name__ == "__main__":
    write_tables(*sys.argv[1:3])
