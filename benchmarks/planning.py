"""What a night with nothing new costs on a large lake: `python -m benchmarks.planning`, 100 meters of 365 dates.

BENCH_METERS (100), BENCH_DATES (365) and BENCH_RUNS (3) choose the size.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.generate import METER, Shape, generate
from benchmarks.timing import apart, median, timed
from jobs.aggregate.job import aggregate
from jobs.run_report import reported
from lake import Lake, paths
from lake.meters import save_meter
from lake.state.state_file import load_state, save_state
from schemas.meter import parse_meter


def main() -> None:
    """Make one meter, give its files and its state to many, time `aggregate` on all of them."""
    meters, dates, runs = (
        int(os.environ.get(f"BENCH_{name}", default))
        for name, default in (("METERS", 100), ("DATES", 365), ("RUNS", 3))
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        apart(_make, root, meters, dates)
        command = [sys.executable, "-m", "benchmarks.ways.again", str(root)]
        timed(command)
        timing = median([timed(command) for _ in range(runs)])
    print(
        f"nothing new on {meters} meters x {dates} dates: {timing.wall_seconds:.2f} s, {timing.peak_mb:.0f} MB"
    )


def _make(root: Path, meters: int, dates: int) -> None:
    generate(root, Shape(events=dates * 20, dates=dates, files_per_date=1))
    lake = Lake(str(root))
    with reported(lake, "aggregate") as report:
        aggregate(lake, report)
    for number in range(1, meters):
        _copy(lake, root, f"{METER}_{number}")


def _copy(lake: Lake, root: Path, name: str) -> None:
    """The same events and state for another meter; links, so that the files are those that the state knows."""
    body = json.loads((root / paths.meter_definition(METER)).read_bytes()) | {"name": name}
    meter = parse_meter(json.dumps(body).encode(), "benchmark")
    save_meter(lake.storage, meter)
    for folder in (paths.events(METER), *(paths.aggregates(table, METER) for table in paths.TABLES)):
        for file in sorted((root / folder).rglob("*.parquet")):
            target = Path(str(file).replace(f"meter={METER}/", f"meter={name}/"))
            target.parent.mkdir(parents=True)
            target.hardlink_to(file)
    state = load_state(lake.storage, METER)
    state.definition = None
    state.partitions = {
        date: msgspec.structs.replace(record, meter_version=meter.version)
        for date, record in state.partitions.items()
    }
    save_state(lake.storage, name, state)


if __name__ == "__main__":
    main()
