"""What one new date costs on a lake of many, beside the same date alone: `python -m benchmarks.night`.

BENCH_DATES (90), BENCH_EVENTS_A_DATE (220,000) and BENCH_ACROSS_DAYS (2, how far back a copy's first may lie) choose
the lake.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.generate import METER, Shape, add_date, begin
from benchmarks.timing import apart, timed
from lake import paths

DATES, EVENTS_A_DATE, ACROSS_DAYS = (
    int(os.environ.get(f"BENCH_{name}", default))
    for name, default in (("DATES", 90), ("EVENTS_A_DATE", 220_000), ("ACROSS_DAYS", 2))
)


def main() -> None:
    """Aggregate the old dates, then the new one; and the new one in a lake of its own."""
    shape = Shape(events=(DATES + 1) * EVENTS_A_DATE, dates=DATES + 1, across_days=ACROSS_DAYS)
    with tempfile.TemporaryDirectory() as folder:
        old, alone = Path(folder) / "old", Path(folder) / "alone"
        apart(_make, old, shape, range(DATES))
        timed(_aggregate(old))
        apart(_make, alone, shape, range(DATES, DATES + 1))
        shutil.copytree(alone / paths.events(METER), old / paths.events(METER), dirs_exist_ok=True)
        night, first = timed(_aggregate(old)), timed(_aggregate(alone))
    read = (night.read_bytes - first.read_bytes) / (DATES * EVENTS_A_DATE)
    print(
        f"one new date of {EVENTS_A_DATE:,} events on {DATES}: {night.wall_seconds:.2f} s, {night.peak_mb:.0f} MB"
    )
    print(
        f"the same date alone: {first.wall_seconds:.2f} s, ratio {night.wall_seconds / first.wall_seconds:.2f}"
    )
    print(f"bytes read beyond that, for each old event: {read:.1f}")


def _make(lake: Path, shape: Shape, numbers: range) -> None:
    begin(lake)
    for number in numbers:
        add_date(lake, shape, number)


def _aggregate(lake: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.ways.again", str(lake)]


if __name__ == "__main__":
    main()
