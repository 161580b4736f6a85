"""What tests of landing share: bodies of usage, files of them, and what became of their rows."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from lake import Lake, paths

BODY: dict[str, Any] = {
    "idempotency_key": "active_org_123_user_456_2026_06_19",
    "subject": "org_123",
    "meter": "active_users",
    "quantity": 1,
    "timestamp": "2026-06-19T10:00:00Z",
    "metadata": {"plan": "enterprise"},
}


def landed(lake: Lake, *inputs: Path | str, file_format: str | None = None) -> RunReport:
    with reported(lake, "land") as report:
        land(lake, [str(source) for source in inputs], report, file_format)
    return report


def written(folder: Path, *bodies: Any, name: str = "usage.jsonl") -> Path:
    file = folder / name
    file.write_text("".join((body if isinstance(body, str) else json.dumps(body)) + "\n" for body in bodies))
    return file


def body(number: int = 0, **changes: Any) -> dict[str, Any]:
    said = BODY | {"idempotency_key": f"key {number}"} | changes
    return {name: value for name, value in said.items() if value is not ...}


def quarantined(lake: Lake) -> pl.DataFrame:
    files = sorted((Path(lake.url) / paths.QUARANTINE).rglob("*.parquet"))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files]).sort(
        "source", "position"
    )


LINES = "".join(json.dumps(body(number)) + "\n" for number in range(3))
TABLE = {
    "idempotency_key": ["a", None, "c"],
    "subject": ["s", "s", "s"],
    "meter": ["active_users"] * 3,
    "timestamp": [dt.datetime(2026, 6, 19, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))] * 3,
}
