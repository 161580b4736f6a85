"""`make bench`: generate events, time each way as a process of its own, check that they agree, print the table.

BENCH_EVENTS (default 2,000,000), BENCH_DATES (10) and BENCH_RUNS (3) choose the size.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.generate import generate
from benchmarks.ways import DEDUPLICATING, WAYS


def main() -> None:
    """Run as `python -m benchmarks`; or, for one process of it, `python -m benchmarks WAY FOLDER`."""
    if len(sys.argv) > 1:
        events, total = WAYS[sys.argv[1]](Path(sys.argv[2]))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(events, total, peak_mb)
        return
    events, dates, runs = (int(os.environ.get(f"BENCH_{n}", d)) for n, d in _SIZES.items())
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), events, dates)
        said = {way: [_timed(way, folder) for _ in range(runs)] for way in WAYS}
    _check(said)
    print(f"{events:,} events, {dates} dates; {platform.machine()}, {os.cpu_count()} cores, Python")
    print(
        f"{platform.python_version()}, Polars {pl.__version__}, DuckDB {duckdb.__version__}; median of {runs}\n"
    )
    print(f"{'way':32}{'seconds':>9}{'ratio':>8}{'peak MB':>9}")
    floor = statistics.median(run[0] for run in said["meterlake"])
    for way, of_way in said.items():
        seconds = statistics.median(run[0] for run in of_way)
        peak_mb = statistics.median(run[3] for run in of_way)
        print(f"{way:32}{seconds:9.2f}{seconds / floor:8.2f}{peak_mb:9.0f}")


_SIZES = {"EVENTS": 2_000_000, "DATES": 10, "RUNS": 3}


def _timed(way: str, folder: str) -> tuple[float, int, str, int]:
    """Seconds of the wall clock, events, sum and peak memory of one process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks", way, folder]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    events, total, peak_mb = out.split()
    return time.perf_counter() - start, int(events), total, int(peak_mb)


def _check(said: dict[str, list[tuple[float, int, str, int]]]) -> None:
    answers = {run[1:3] for way in DEDUPLICATING for run in said[way]}
    if len(answers) != 1:
        sys.exit(f"the ways that deduplicate do not agree: {answers}")


if __name__ == "__main__":
    main()
