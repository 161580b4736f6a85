"""Dates at the ends of the calendar: nothing is added to them that leaves it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from jobs.cli.app import run
from jobs.compact import compact
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.retain import retain
from jobs.run_report import reported
from lake.calendar import days_before
from support import DAY, a_lake, aggregated, event, put, usage

FIRST, LAST = dt.date.min, dt.date.max


@pytest.mark.parametrize(
    ("date", "days", "expected"),
    [(DAY, 3, DAY - dt.timedelta(days=3)), (FIRST, 1, FIRST), (FIRST, 0, FIRST), (LAST, 10**9, FIRST)],
)
def test_days_before(date: dt.date, days: int, expected: dt.date) -> None:
    assert days_before(date, days) == expected


@pytest.mark.parametrize("as_of", [FIRST, FIRST + dt.timedelta(days=1), dt.date(1, 3, 1), dt.date(2, 1, 1)])
def test_jobs_of_the_first_days_do_nothing(tmp_path: Path, as_of: dt.date) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "b.parquet", event("b"))
    with reported(lake, "test") as report:
        nightly(lake, report, as_of=as_of)
        compact(lake, report, as_of=as_of)
        retain(lake, report, as_of=as_of)
    assert (report.exit_code, report.errors) == (0, [])
    assert [each.action for each in report.partitions] == ["aggregated"]
    assert len({each.period for each in report.exports}) == len(report.exports)


@pytest.mark.parametrize(
    "command", [["retain", "--dry-run"], ["compact", "--dry-run"], ["report", "--out", "-"]]
)
@pytest.mark.parametrize("as_of", [FIRST, LAST, LAST - dt.timedelta(days=1)])
def test_commands_of_the_first_and_last_days(
    tmp_path: Path, command: list[str], as_of: dt.date, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, _ = a_lake(tmp_path)
    assert run(["--lake", lake.url, *command, "--as-of", as_of.isoformat()]) == (command[0] == "report")
    assert "unexpected" not in capsys.readouterr().err


def test_a_zone_that_leads_beyond_the_last_date_is_out_of_range(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    times = {
        "a": ("9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59Z"),
        "b": (None, "9999-12-31T23:59:59-12:00"),
        "c": ("0001-01-01T00:00:00+01:00", "2026-01-01T00:00:00Z"),
        "d": ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        "e": (f"{DAY}T00:00:00Z", "9999-12-31T23:59:59-12:00"),
    }
    lines = [
        {"meter": meter.name, "idempotency_key": key, "subject": "a", "quantity": 1, "received_at": received}
        | ({"timestamp": timestamp} if timestamp else {})
        for key, (timestamp, received) in times.items()
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with reported(lake, "land") as report:
        land(lake, [str(tmp_path / "in.jsonl")], report)
    assert (report.events_landed, report.quarantined) == (2, {"timestamp_out_of_range": 3})
    assert aggregated(lake).exit_code == 0
    assert [date for date, _, _ in usage(lake, meter)] == [DAY, LAST]
