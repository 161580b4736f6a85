"""How long it takes to count who was active, beside DuckDB on the same files: `python -m benchmarks.active_users`.

BENCH_DATES (90), BENCH_ROWS (3,000,000 of `usage`) and BENCH_RUNS (7) choose the lake and how often.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl

from benchmarks.generate import FIRST
from benchmarks.timing import way
from lake import Lake, paths
from lake.meters import save_meter
from schemas.meter import parse_meter

METER = "active_users"
DIMENSIONS = ("plan", "workspace", "role", "source", "user")
DATES, ROWS, RUNS = (
    int(os.environ.get(f"BENCH_{name}", default))
    for name, default in (("DATES", 90), ("ROWS", 3_000_000), ("RUNS", 7))
)
USERS, USERS_OF_A_SUBJECT = 100_000, 20
MONTH, SEASON = FIRST + dt.timedelta(days=31), FIRST + dt.timedelta(days=DATES)


class Seconds(NamedTuple):
    """What one answer took."""

    cpu: float
    wall: float


def main() -> None:
    """Aggregate a lake, then ask both in turn, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        lake = generate(root)
        way("meterlake", root, root)
        rows = lake.usage(METER).select(pl.len()).collect().item()
        print(f"{DATES} dates, {rows:,} rows of usage; medians of {RUNS}, Meterlake and DuckDB in turn")
        for name, until, bucket in (
            ("one month by plan", MONTH, "none"),
            ("three months by plan", SEASON, "none"),
            ("three months by month and plan", SEASON, "month"),
        ):
            _compare(name, lambda: _meterlake(lake, until, bucket), lambda: _duckdb(root, until, bucket))  # noqa: B023 - called at once


def generate(root: Path) -> Lake:
    """Make a lake of a user's activity, one event each; those of low numbers come most often."""
    lake = Lake.init(str(root))
    dimensions = [{"name": name, "type": "string"} for name in DIMENSIONS]
    body = {"name": METER, "unit": "user", "dimensions": dimensions}
    save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "benchmark"))
    for number in range(DATES):
        folder = root / paths.events(METER, FIRST + dt.timedelta(days=number))
        folder.mkdir(parents=True)
        # A seventh more than rows, since some differ in nothing but the time.
        events(number, ROWS * 8 // 7 // DATES).write_parquet(folder / "part.parquet")
    return lake


def events(number: int, count: int) -> pl.DataFrame:
    """The events of one date; every random number is a hash of its row."""
    row = pl.col("row")
    midnight = pl.lit(dt.datetime.combine(FIRST + dt.timedelta(days=number), dt.time(), dt.UTC))
    at = midnight.dt.cast_time_unit("us") + pl.duration(seconds=row.hash(2) % 86_400)
    user = ((row.hash(1) / 2.0**64).pow(2) * USERS).cast(pl.Int64)
    subject = user // USERS_OF_A_SUBJECT
    rows = pl.int_range(number * count, (number + 1) * count, dtype=pl.UInt64, eager=True)
    return pl.DataFrame({"row": rows}).select(
        idempotency_key=pl.format("evt_{}", row),
        subject=pl.format("org_{}", subject),
        quantity=pl.lit(1).cast(pl.Decimal(38, 9)),
        timestamp=at,
        received_at=at,
        plan=pl.format("plan_{}", subject % 4),
        workspace=pl.format("workspace_{}", user // 5),
        role=pl.format("role_{}", user % 3),
        source=pl.format("source_{}", row % 2),
        user=pl.format("user_{}", user),
    )


def _meterlake(lake: Lake, until: dt.date, bucket: str) -> list[tuple[object, ...]]:
    found = lake.query(METER, FIRST, until, bucket=bucket, by=["plan"], distinct="user")  # type: ignore[arg-type]
    return found.drop("bucket_end").collect().rows()


def _duckdb(root: Path, until: dt.date, bucket: str) -> list[tuple[object, ...]]:
    start = f"date '{FIRST}'" if bucket == "none" else f"date_trunc('{bucket}', date)"
    return (
        duckdb.sql(f"""
        select cast({start} as timestamp) at time zone 'UTC' as bucket_start, plan, count(distinct "user") as n,
            cast(sum(events) as bigint) as events
        from read_parquet('{root}/aggregates/usage/**/*.parquet', hive_partitioning = true,
            hive_types = {{'meter': varchar, 'date': date}})
        where meter = '{METER}' and date >= '{FIRST}' and date < '{until}'
        group by all order by all""")
        .pl()
        .rows()
    )


def _compare(name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Print the medians of both, after one answer of each, which must be the same."""
    assert ours() == theirs()  # noqa: S101 - or there is nothing to compare
    taken: dict[str, list[Seconds]] = {"ours": [], "theirs": []}
    for _ in range(RUNS):
        taken["ours"].append(_time(ours))
        taken["theirs"].append(_time(theirs))
    mine, its = (
        Seconds(*(statistics.median(column) for column in zip(*taken[each], strict=True))) for each in taken
    )
    print(
        f"{name + ':':33} cpu {mine.cpu:.3f} s, DuckDB {its.cpu:.3f} s, ratio {mine.cpu / its.cpu:.2f}; "
        f"wall {mine.wall:.3f} s, DuckDB {its.wall:.3f} s, ratio {mine.wall / its.wall:.2f}",
        flush=True,
    )


def _time(ask: Callable[[], object]) -> Seconds:
    cpu, wall = time.process_time(), time.perf_counter()
    ask()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


if __name__ == "__main__":
    main()
