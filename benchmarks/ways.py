"""The ways that are timed, each from raw events to daily usage; a way prints the events and the sum it counted."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from benchmarks.generate import DIMENSIONS, METER
from jobs.aggregate import aggregate
from jobs.report import reported
from lake import Lake, paths

KEYS = ["date", "subject", *DIMENSIONS]
MEASURES = "count(*) events, sum(quantity) quantity_sum, min(quantity) lo, max(quantity) hi"


def meterlake(folder: Path) -> tuple[int, str]:
    """Deduplicated over all dates, three tables, as the nightly job writes them."""
    lake = Lake(str(folder))
    with reported(lake, "aggregate") as report:
        aggregate(lake, report, rebuild=True)
    return _counted(lake.usage(METER).collect())


def polars_without_deduplication(folder: Path) -> tuple[int, str]:
    """A plain group_by, one table, one file: the floor, and a wrong number."""
    lf = pl.scan_parquet(_events(folder), hive_partitioning=True)
    quantity = pl.col("quantity")
    measures = {"quantity_sum": quantity.sum(), "lo": quantity.min(), "hi": quantity.max()}
    df = lf.group_by(KEYS).agg(pl.len().alias("events"), **measures).sort(KEYS).collect(engine="streaming")
    df.write_parquet(folder / "polars.parquet")
    return _counted(df)


def duckdb_row_number(folder: Path) -> tuple[int, str]:
    """The usual SQL: the first row of each key by received_at, then a group by, one table, one file."""
    columns = ", ".join(f'"{key}"' for key in KEYS)
    winners = f"""select * from read_parquet('{_events(folder)}', hive_partitioning = true)
        qualify row_number() over (
            partition by idempotency_key order by received_at, timestamp, quantity, subject, {columns}) = 1"""
    duckdb.execute(
        f"copy (select {columns}, {MEASURES} from ({winners}) group by all order by all) "
        f"to '{folder / 'duckdb.parquet'}' (format parquet)"
    )
    return _counted(pl.read_parquet(folder / "duckdb.parquet"))


WAYS = {way.__name__: way for way in (meterlake, polars_without_deduplication, duckdb_row_number)}
# Those that must agree; the floor counts copies too.
DEDUPLICATING = ("meterlake", "duckdb_row_number")


def _events(folder: Path) -> str:
    return str(folder / paths.events(METER) / "*" / "*.parquet")


def _counted(df: pl.DataFrame) -> tuple[int, str]:
    events, total = df.select(pl.col("events").sum(), pl.col("quantity_sum").sum()).row(0)
    return int(events), str(total)
