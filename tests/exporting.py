"""What tests of exports share: an export of the only meter, and what its revision holds."""

from __future__ import annotations

import csv
import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl

from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.run_report import ExportReport, RunReport, reported
from lake import Lake, paths
from support import DAY

JUNE = parse_period("2026-06")
NEXT = DAY + dt.timedelta(days=1)
MEASURES = [
    *("quantity", "events", "quantity_sum", "quantity_min", "quantity_max"),
    *("quantity_first", "first_at", "first_received_at", "quantity_last", "last_at", "last_received_at"),
]
ABOUT = ["period_start", "period_end", "meter", "unit", "aggregation"]


def run(lake: Lake, period: str = "2026-06", **options: Any) -> RunReport:
    """Run the export, and return its report."""
    chosen = {name: options.pop(name) for name in ("by", "columns", "csv_safe") if name in options}
    with reported(lake, "export") as report:
        export(lake, report, parse_period(period), options=Options(**chosen), **options)
    return report


def exported(lake: Lake, **options: Any) -> ExportReport:
    """Export the only meter, which has to go well, and return what was done."""
    report = run(lake, **options)
    assert report.errors == []
    assert len(report.exports) == 1
    return report.exports[0]


def revision(lake: Lake, done: ExportReport) -> Path:
    return Path(lake.url) / paths.revision(done.folder, done.revision)


def cells(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV as another program than ours reads them, RFC 4180 taken at its word."""
    text = file.read_bytes().decode()
    assert text.endswith("\r\n")
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def quantities(folder: Path) -> dict[Any, Any]:
    return dict(pl.read_parquet(folder / "usage.parquet").select("subject", "quantity").iter_rows())
