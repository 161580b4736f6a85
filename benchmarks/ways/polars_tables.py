"""Polars as one would write it down: no deduplication, the three tables, a file a date. A wrong number, and a floor."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from benchmarks.generate import DIMENSIONS, EVENTS

KEYS = ["subject", *DIMENSIONS]
QUANTITY, TIMESTAMP = pl.col("quantity"), pl.col("timestamp")
MEASURES = [
    pl.len().alias("events"),
    QUANTITY.sum().alias("quantity_sum"),
    QUANTITY.min().alias("quantity_min"),
    QUANTITY.max().alias("quantity_max"),
    QUANTITY.min_by("timestamp").alias("quantity_first"),
    TIMESTAMP.min().alias("first_at"),
    QUANTITY.max_by("timestamp").alias("quantity_last"),
    TIMESTAMP.max().alias("last_at"),
]
MERGED = [
    pl.col("events").sum(),
    pl.col("quantity_sum").sum(),
    pl.col("quantity_min").min(),
    pl.col("quantity_max").max(),
    pl.col("quantity_first").min_by("first_at"),
    pl.col("first_at").min(),
    pl.col("quantity_last").max_by("last_at"),
    pl.col("last_at").max(),
]


def grouped(lake: str) -> pl.DataFrame:
    """Every event by date and all keys."""
    lf = pl.scan_parquet(Path(lake) / EVENTS, hive_partitioning=False)
    return lf.group_by(TIMESTAMP.dt.date().alias("date"), *KEYS).agg(MEASURES).collect(engine="streaming")


def main(lake: str, out: str) -> None:
    """Group once, merge the smaller tables from it, write all."""
    usage = grouped(lake)
    by_subject = usage.lazy().group_by("date", "subject").agg(MERGED)
    subjects = pl.col("subject").n_unique().alias("subjects")
    by_dimension = pl.concat(
        usage.lazy()
        .group_by("date", pl.col(name).alias("value"))
        .agg(subjects, *MERGED)
        .select("date", pl.lit(name).alias("dimension"), pl.exclude("date"))
        for name in DIMENSIONS
    )
    _write(usage.lazy().sort("date", *KEYS), out, "usage")
    _write(by_subject.sort("date", "subject"), out, "usage_by_subject")
    _write(by_dimension.sort("date", "dimension", "value"), out, "usage_by_dimension")


def _write(rows: pl.LazyFrame, out: str, table: str) -> None:
    target = pl.PartitionBy(Path(out) / table, key="date", include_key=True)
    rows.sink_parquet(target, mkdir=True, compression="zstd", compression_level=1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
