"""`make bench`: generate events, time each way in turn, check that those that deduplicate agree, print the tables.

BENCH_EVENTS (millions, default `1 5 20 50`), BENCH_DATES (30) and BENCH_RUNS (3) choose the sizes; the pictures and
figures of a run are `benchmarks/results.png` and `benchmarks/results.json`.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec
import polars as pl

from benchmarks.agree import same_rows
from benchmarks.generate import Shape, generate
from benchmarks.plot import plot
from benchmarks.timing import Timing, apart, forget, median, way

# By name: what the table calls it, and whether it deduplicates and so must agree with the others.
WAYS = {
    "meterlake": ("Meterlake", True),
    "polars_read": ("Polars: read and hash only", False),
    "polars_group_by": ("Polars: group only, duplicates counted", False),
    "polars_tables": ("Polars: fewer columns, duplicates counted", False),
    "polars_same_tables": ("Polars: same columns, duplicates counted", False),
    "duckdb_row_number": ("DuckDB: row_number() = 1", True),
    "duckdb_repeated_keys": ("DuckDB: window over repeated keys", True),
    "duckdb_hashed_keys": ("DuckDB: window over repeated hashes", True),
    "clickhouse": ("ClickHouse engine: limit 1 by", True),
}
HERE = Path(__file__).parent
HOPELESS_SECONDS = 600


class Results(msgspec.Struct, kw_only=True):
    """The medians of a run, by size in millions of events, then by way."""

    machine: str
    versions: str
    date: str
    runs: int
    timings: dict[str, dict[str, Timing]]


def main() -> None:
    """Time every size; a way that would take ten minutes or all of the memory for the next is left out of it."""
    sizes = os.environ.get("BENCH_EVENTS", "1 5 20 50").split()
    dates, runs = (
        int(os.environ.get(f"BENCH_{name}", default)) for name, default in (("DATES", 30), ("RUNS", 3))
    )
    ways = [name for name in WAYS if name != "clickhouse" or importlib.util.find_spec("chdb")]
    if "clickhouse" not in ways:
        print("chdb is not installed, so the ClickHouse engine is left out")
    results = Results(machine=_machine(), versions=_versions(), date=_today(), runs=runs, timings={})
    print(f"{results.date}; {results.machine}; {results.versions}; {dates} dates; medians of {runs}")
    for number, size in enumerate(sizes):
        if number:
            ways = _hopeful(results.timings[sizes[number - 1]], float(size) / float(sizes[number - 1]))
        shape = Shape(events=int(float(size) * 1_000_000), dates=dates)
        results.timings[size] = _of_size(shape, ways, runs)
        _print(size, results.timings[size])
    (HERE / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    plot(results.timings, WAYS, HERE / "results.png")


def _of_size(shape: Shape, ways: Sequence[str], runs: int) -> dict[str, Timing]:
    with tempfile.TemporaryDirectory() as folder:
        lake, out = Path(folder) / "lake", Path(folder) / "out"
        apart(generate, lake, shape)
        timings: dict[str, list[Timing]] = {name: [] for name in ways}
        # In turn, so that a machine that changes its speed changes it for all.
        for number in range(runs):
            for name in ways:
                shutil.rmtree(out / name, ignore_errors=True)
                if name == "meterlake":
                    forget(lake)
                timings[name].append(way(name, lake, out / name))
            if not number:
                agreeing = [name for name in ways if WAYS[name][1] and name != "meterlake"]
                apart(same_rows, lake, {name: out / name for name in agreeing})
        return {name: median(of_way) for name, of_way in timings.items()}


def _hopeful(timings: dict[str, Timing], growth: float) -> list[str]:
    """The ways that need neither too much time nor too much memory for so many times as many events."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    found = []
    for name, timing in timings.items():
        if timing.wall_seconds * growth < HOPELESS_SECONDS and timing.peak_mb * growth < memory_mb:
            found.append(name)
        else:
            print(f"{WAYS[name][0]} is left out of what follows: it would take too much time or memory")
    return found


def _print(size: str, timings: dict[str, Timing]) -> None:
    ours = timings["meterlake"]
    print(f"\n{size + ' million events':38}{'seconds':>9}{'ratio':>7}{'cpu s':>8}{'peak MB':>9}{'ratio':>7}")
    for name, timing in timings.items():
        seconds, memory = timing.wall_seconds / ours.wall_seconds, timing.peak_mb / ours.peak_mb
        print(
            f"{WAYS[name][0]:38}{timing.wall_seconds:9.2f}{seconds:7.2f}"
            f"{timing.cpu_seconds:8.1f}{timing.peak_mb:9.0f}{memory:7.2f}",
            flush=True,
        )


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _versions() -> str:
    return f"Python {platform.python_version()}, Polars {pl.__version__}, DuckDB {duckdb.__version__}"


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


if __name__ == "__main__":
    sys.exit(main())
