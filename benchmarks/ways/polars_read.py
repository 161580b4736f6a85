"""The floor: read the columns that are needed, and hash the keys."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from benchmarks.generate import DIMENSIONS, EVENTS

if __name__ == "__main__":
    lf = pl.scan_parquet(Path(sys.argv[1]) / EVENTS, hive_partitioning=False)
    names = ["subject", *DIMENSIONS, "quantity", "timestamp", "received_at"]
    lf.select(pl.col("idempotency_key").hash().max(), *(pl.col(name).max() for name in names)).collect(
        engine="streaming"
    )
