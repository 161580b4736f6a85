"""How long a month takes to read from the aggregates: `python -m benchmarks.reading`.

BENCH_DATES (90), BENCH_SUBJECTS (100,000), BENCH_EVENTS_A_DATE (220,000) and BENCH_RUNS (5) choose the lake and how often.
"""

from __future__ import annotations

import datetime as dt
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.generate import FIRST, METER, Shape, generate
from benchmarks.timing import way
from lake import Lake

DATES, SUBJECTS, EVENTS_A_DATE, RUNS = (
    int(os.environ.get(f"BENCH_{name}", default))
    for name, default in (("DATES", 90), ("SUBJECTS", 100_000), ("EVENTS_A_DATE", 220_000), ("RUNS", 5))
)
SINCE, UNTIL = FIRST, FIRST + dt.timedelta(days=30)


def main() -> None:
    """Aggregate a lake, then ask the same again and again, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        generate(root, Shape(events=DATES * EVENTS_A_DATE, dates=DATES, subjects=SUBJECTS))
        way("meterlake", root, root)
        lake, files = Lake(str(root)), f"{root}/aggregates/usage_by_subject/**/*.parquet"
        print(f"{DATES} dates, {SUBJECTS:,} subjects; medians of {RUNS}")
        _time("30 dates by subject: query", lambda: _query(lake, ["subject"]))
        _time("30 dates by subject: totals, all measures", lambda: _totals(lake, ["subject"]))
        _time("30 dates by plan: query", lambda: _query(lake, ["plan"]))
        _time("30 dates by subject: Polars alone", lambda: _polars(files, SINCE, UNTIL))
        _time(f"{DATES} dates by subject: Polars alone", lambda: _polars(files, dt.date.min, dt.date.max))
        _time("30 dates by subject: DuckDB alone", lambda: _duckdb(files, SINCE, UNTIL))
        _time(f"{DATES} dates by subject: DuckDB alone", lambda: _duckdb(files, dt.date.min, dt.date.max))


def _query(lake: Lake, by: list[str]) -> pl.DataFrame:
    return lake.query(METER, SINCE, UNTIL, bucket="none", by=by).collect()


def _totals(lake: Lake, by: list[str]) -> pl.DataFrame:
    return lake.totals(METER, by, SINCE, UNTIL).collect()


def _polars(files: str, since: dt.date, until: dt.date) -> pl.DataFrame:
    """The snippet of docs/read.md."""
    schema = {"meter": pl.String(), "date": pl.Date()}
    usage = pl.scan_parquet(files, hive_partitioning=True, hive_schema=schema)
    chosen = usage.filter(pl.col("meter") == METER, pl.col("date") >= since, pl.col("date") < until)
    return chosen.group_by("subject").agg(pl.col("quantity_sum").sum()).collect()


def _duckdb(files: str, since: dt.date, until: dt.date) -> pl.DataFrame:
    """The snippet of docs/read.md."""
    return duckdb.sql(f"""
        select subject, sum(quantity_sum) as quantity
        from read_parquet('{files}', hive_partitioning = true, hive_types = {{'meter': varchar, 'date': date}})
        where meter = '{METER}' and date >= '{since}' and date < '{until}' group by subject""").pl()


def _time(name: str, ask: Callable[[], pl.DataFrame]) -> None:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        rows = ask().height
        seconds.append(time.perf_counter() - start)
    print(f"{name + ',':55} {rows:7,} rows: {statistics.median(seconds):.2f} s", flush=True)


if __name__ == "__main__":
    main()
