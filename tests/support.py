"""What tests of jobs share: a lake in a folder, events written as a producer would, and a job's report."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.aggregate.job import aggregate
from jobs.land import write as write_module
from jobs.retain import retain
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.meters import save_meter
from schemas.columns import event_columns
from schemas.meter import Meter, parse_meter

# Of the project, from where tests start programs.
ROOT = Path(__file__).parents[1]
METER: dict[str, Any] = {
    "name": "active_users",
    "unit": "user",
    "aggregation": "sum",
    "event_retention_days": 30,
    "dimensions": [{"name": "plan", "type": "string", "required": False}],
}
DAY = dt.date(2026, 6, 19)


def a_lake(folder: Path, **changes: Any) -> tuple[Lake, Meter]:
    """An empty lake with one meter."""
    lake = Lake.init(str(folder))
    return lake, define(lake, **changes)


def define(lake: Lake, **changes: Any) -> Meter:
    """Add or change the meter of these tests."""
    meter = parse_meter(json.dumps(METER | changes).encode(), "test")
    save_meter(lake.storage, meter)
    return meter


def set_flush_bounds(patch: pytest.MonkeyPatch, **bounds: int) -> None:
    """Let landing write rows at other bounds."""
    newest = write_module.VERSIONS[-1]._replace(**bounds)
    patch.setattr(write_module, "VERSIONS", (*write_module.VERSIONS[:-1], newest))


def event(
    key: str | None, subject: str = "org_1", quantity: str = "1", day: dt.date = DAY, **more: Any
) -> dict[str, Any]:
    """One event at noon of a day, received at once."""
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    fields = {"idempotency_key": key, "subject": subject, "quantity": Decimal(quantity)}
    return fields | {"timestamp": noon, "received_at": noon, "plan": "pro"} | more


def put(lake: Lake, meter: Meter, name: str, *events: dict[str, Any], day: dt.date = DAY) -> Path:
    """Write events into a partition as a producer does; gives the file."""
    columns = event_columns(meter)
    rows = [{column: said.get(column) for column in columns} for said in events]
    file = Path(lake.url) / paths.events(meter.name, day) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=columns).write_parquet(file)
    return file


def aggregated(lake: Lake, **options: Any) -> RunReport:
    """Run the aggregation; gives its report."""
    with reported(lake, "aggregate") as report:
        aggregate(lake, report, **options)
    return report


def retained(lake: Lake, as_of: dt.date, *, dry_run: bool = False) -> RunReport:
    """Run retention; gives its report."""
    with reported(lake, "retain", dry_run=dry_run) as report:
        retain(lake, report, as_of=as_of, dry_run=dry_run)
    return report


def recomputed(report: RunReport) -> dict[dt.date, str]:
    """Why each partition was recomputed."""
    return {partition.date: partition.reason for partition in report.partitions}


def usage(lake: Lake, meter: Meter) -> list[tuple[dt.date, str, Decimal]]:
    """Date, subject and quantity of every row of `usage_by_subject`."""
    return lake.usage_by_subject(meter.name).select("date", "subject", "quantity").collect().rows()


def content(folder: Path, *prefixes: str) -> dict[str, bytes]:
    """Every file below some folders of a lake, with its content."""
    files = (file for prefix in prefixes for file in (folder / prefix).rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
