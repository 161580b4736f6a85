"""Landing of JSON Lines against Polars' own `read_ndjson` and `write_parquet` of the same file, run in turns.

BENCH_LANDED (default 1,000,000 events) and BENCH_RUNS (3) choose the size.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks.generate import DIMENSIONS, METER
from jobs.land.job import land
from jobs.run_report import reported
from lake import Lake
from lake.meters import save_meter
from schemas.meter import parse_meter

# A third of the speed, in less than this much memory.
GOAL_RATIO, GOAL_MB = 3.0, 1_024
BATCH_EVENTS = 100_000
SUBJECTS = 5_000
DATES = 30
KINDS = ("declared", "undeclared")
_SIZES = {"LANDED": 1_000_000, "RUNS": 3}


class Run(NamedTuple):
    """One process: seconds of the wall clock, seconds of all processors, and peak memory."""

    seconds: float
    cpu_seconds: float
    peak_mb: int


def main() -> None:
    """Run as `python -m benchmarks.landing`; or, for one process of it, with WAY FILE FOLDER behind."""
    if len(sys.argv) > 1:
        _WAYS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)
        return
    events, runs = (int(os.environ.get(f"BENCH_{name}", default)) for name, default in _SIZES.items())
    print(f"{events:,} JSON Lines events; {platform.machine()}, {os.cpu_count()} cores, Python")
    print(
        f"{platform.python_version()}, Polars {pl.__version__}; median of {runs}; the goal is a ratio of at"
    )
    print(f"most {GOAL_RATIO:g} and {GOAL_MB:,} MB\n")
    print(f"{'metadata':12}{'way':16}{'seconds':>9}{'ratio':>7}{'CPU s':>8}{'ratio':>7}{'peak MB':>9}")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events.jsonl"
            write_events(path, events, undeclared=kind == "undeclared")
            # In turns, so that what else the machine does meets both.
            turns = [{way: _timed(way, path) for way in _WAYS} for _ in range(runs)]
        _print(kind, turns)


def write_events(path: Path, events: int, *, undeclared: bool, seed: int = 7) -> None:
    """Write so many events as JSON Lines; the same bytes for the same numbers, with Python's usual spaces."""
    with path.open("wb") as file:
        for first in range(0, events, BATCH_EVENTS):
            rows = _lines(first, min(BATCH_EVENTS, events - first), events, seed, undeclared=undeclared)
            file.write("\n".join(rows).encode() + b"\n")


def _lines(first: int, count: int, events: int, seed: int, *, undeclared: bool) -> pl.Series:
    row = pl.int_range(first, first + count, dtype=pl.UInt64)

    def draw(salt: int, values: int) -> pl.Expr:
        return (row * 2_654_435_761 + (row // 7) * (seed + salt)) % 1_000_003 % values

    second = row * (DATES * 86_400) // events
    at = pl.lit(0, pl.Int64).cast(pl.Datetime("us")).dt.offset_by("56y") + pl.duration(seconds=second)
    more = ', "trace": "t{}", "version": 1.10' if undeclared else "{}"
    dimensions = ", ".join(f'"{name}": "{name}_{{}}"' for name in DIMENSIONS)
    line = (
        '{"idempotency_key": "evt_{}_2026_user", "subject": "org_{}", "meter": "'
        + METER
        + '", "quantity": {}, '
        '"timestamp": "{}", "received_at": "2026-03-01T00:00:00Z", "metadata": {' + dimensions + more + "}}"
    )
    values = [row, draw(1, SUBJECTS), draw(2, 1_000) + 1, at.dt.strftime("%Y-%m-%dT%H:%M:%SZ")]
    values += [draw(3, 4), draw(4, 997), draw(5, 3), draw(6, 2), row if undeclared else pl.lit("")]
    # `pl.format` would take the braces of JSON for places of values.
    texts = [pl.lit(text) for text in line.split("{}")]
    parts = [part for pair in zip(texts, [*values, pl.lit("")], strict=True) for part in pair]
    return pl.select(line=pl.concat_str(parts)).to_series()


def _meterlake(path: Path, folder: Path) -> None:
    """Land the file in a new lake, through all rules."""
    lake = Lake.init(str(folder))
    body = {"name": METER, "unit": "user", "dimensions": [{"name": d, "type": "string"} for d in DIMENSIONS]}
    save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "benchmark"))
    with reported(lake, "land") as report:
        land(lake, [str(path)], report)
    if report.quarantined or not report.events_landed:
        sys.exit(f"landed {report.events_landed} events, and rejected {report.quarantined}")


def _polars(path: Path, folder: Path) -> None:
    """Read and write the file as it is, with no rule."""
    pl.read_ndjson(path).write_parquet(folder / "polars.parquet")


_WAYS: dict[str, Callable[[Path, Path], None]] = {"polars": _polars, "meterlake": _meterlake}


def _timed(way: str, path: Path) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.landing", way, str(path), folder]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = time.perf_counter() - start
    cpu_seconds, peak_mb = out.split()
    return Run(seconds, float(cpu_seconds), int(peak_mb))


def _print(kind: str, turns: list[dict[str, Run]]) -> None:
    for way in _WAYS:
        seconds, cpu_seconds, peak_mb = (
            statistics.median(turn[way][column] for turn in turns) for column in range(3)
        )
        ratio, cpu_ratio = (
            statistics.median(turn[way][column] / turn["polars"][column] for turn in turns)
            for column in range(2)
        )
        print(f"{kind:12}{way:16}{seconds:9.2f}{ratio:7.2f}{cpu_seconds:8.2f}{cpu_ratio:7.2f}{peak_mb:9.0f}")


if __name__ == "__main__":
    main()
