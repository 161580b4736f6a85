"""What a date costs in a thousand landed files, beside the same events in one: `python -m benchmarks.small_files`.

BENCH_SMALL_FILES (1,000), BENCH_EVENTS_A_FILE (1,000) and BENCH_RUNS (3) choose the date.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.generate import Shape, generate
from benchmarks.timing import Timing, apart, forget, median, way

FILES, EVENTS_A_FILE, RUNS = (
    int(os.environ.get(f"BENCH_{name}", default))
    for name, default in (("SMALL_FILES", 1_000), ("EVENTS_A_FILE", 1_000), ("RUNS", 3))
)


def main() -> None:
    """Aggregate both lakes from their events alone, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        lakes = {files: Path(folder) / str(files) for files in (1, FILES)}
        for files, lake in lakes.items():
            apart(generate, lake, Shape(events=FILES * EVENTS_A_FILE, dates=1, files_per_date=files))
        timings: dict[int, list[Timing]] = {files: [] for files in lakes}
        for _ in range(RUNS):
            for files, lake in lakes.items():
                forget(lake)
                timings[files].append(way("meterlake", lake, lake))
    one, many = (median(timings[files]) for files in lakes)
    for name, timing in (("one file", one), (f"{FILES:,} files", many)):
        print(
            f"{FILES * EVENTS_A_FILE:,} events of one date in {name}: "
            f"{timing.wall_seconds:.2f} s, {timing.cpu_seconds:.2f} processor seconds, {timing.peak_mb:.0f} MB"
        )
    print(f"ratio {many.wall_seconds / one.wall_seconds:.2f}")


if __name__ == "__main__":
    main()
