"""Levels of silent series with `carry_days`, from the command line: a customer whose seats do not change is billed on."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import app
from jobs.export.billing import month_of

SEATS = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "series": ["workspace"],
    "carry_days": 36,
    "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace")],
}
# Workspace, date, seats, plan: b ends with a 0, c comes back on another plan.
SNAPSHOTS = [
    ("a", "2026-05-10", 20, "pro"),
    ("b", "2026-05-12", 30, "pro"),
    ("c", "2026-05-20", 11, "free"),
    ("b", "2026-06-05", 0, "pro"),
    ("c", "2026-06-25", 12, "pro"),
]


@pytest.fixture
def lake(tmp_path: Path) -> str:
    (tmp_path / "seats.json").write_text(json.dumps(SEATS))
    url = str(tmp_path / "lake")
    land(url, tmp_path / "usage.jsonl", SNAPSHOTS, init=True)
    return url


def land(url: str, file: Path, snapshots: list[tuple[str, str, int, str]], *, init: bool = False) -> None:
    lines = [
        {
            "idempotency_key": f"{workspace} {date}",
            "subject": "org_acme",
            "meter": "seats",
            "quantity": seats,
            "timestamp": f"{date}T10:00:00Z",
            "metadata": {"plan": plan, "workspace": workspace},
        }
        for workspace, date, seats, plan in snapshots
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if init:
        run(url, "init")
        run(url, "meter", "add", str(file.parent / "seats.json"))
    run(url, "land", str(file))
    run(url, "aggregate")


def run(url: str, *arguments: str) -> None:
    assert app.run(["--lake", url, *arguments]) == 0


def asked(url: str, capfd: pytest.CaptureFixture[str], *more: str) -> list[dict[str, str]]:
    capfd.readouterr()
    run(url, "query", "--meter", "seats", *more, "--format", "csv")
    return list(csv.DictReader(io.StringIO(capfd.readouterr().out)))


def billed(url: str, period: str) -> tuple[int, dict[str, Any]]:
    """The last revision's number, and its row."""
    folder = Path(url) / "exports/seats" / f"period={period}"
    last = json.loads((folder / "latest.json").read_bytes())["revision"] if folder.exists() else 0
    if not last:
        return 0, {}
    (row,) = csv.DictReader(io.StringIO((folder / f"revision={last:04d}" / "usage.csv").read_text()))
    return last, row


def test_months_get_what_silent_series_said_last_for_so_many_days(
    lake: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monthly = ["--from", "2026-05-01", "--to", "2026-09-01", "--bucket", "month"]
    rows = asked(lake, capfd, *monthly)
    # June: a is carried, b has ended, c spoke. July: c alone, since a's event is more than 36 days old. August: nobody.
    assert [(row["bucket_start"][:7], row["quantity"], row["events"]) for row in rows] == [
        ("2026-05", "61", "3"),
        ("2026-06", "32", "2"),
        ("2026-07", "12", "0"),
    ]
    filled = asked(lake, capfd, *monthly, "--fill")
    assert [row["quantity"] for row in filled] == ["61", "32", "12", "0"]
    by_plan = asked(lake, capfd, *monthly, "--group-by", "plan")
    assert [(row["bucket_start"][:7], row["plan"], row["quantity"]) for row in by_plan] == [
        ("2026-05", "free", "11"),
        ("2026-05", "pro", "50"),
        ("2026-06", "pro", "32"),
        ("2026-07", "pro", "12"),
    ]


def test_exports_bill_them_and_a_late_event_of_a_date_before_makes_a_revision(
    lake: str, tmp_path: Path
) -> None:
    for period in ("2026-06", "2026-07", "2026-08"):
        run(lake, "export", "--period", period)
    number, june = billed(lake, "2026-06")
    assert (number, Decimal(june["quantity"]), june["events"], june["series_count"]) == (1, 32, "2", "3")
    number, july = billed(lake, "2026-07")
    assert (number, Decimal(july["quantity"]), july["events"], july["series_count"]) == (1, 12, "0", "1")
    assert {july[name] for name in ("quantity_sum", "quantity_last", "last_at")} == {""}
    assert billed(lake, "2026-08") == (0, {})
    # Of a date that July looks back to.
    land(lake, tmp_path / "late.jsonl", [("d", "2026-06-30", 5, "pro")])
    run(lake, "nightly", "--as-of", "2026-08-03")
    number, july = billed(lake, "2026-07")
    assert (number, Decimal(july["quantity"]), july["series_count"]) == (2, 17, "2")
    run(lake, "export", "--verify", str(Path(lake) / "exports"))
    run(lake, "verify")


def test_nothing_is_carried_into_a_month_that_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "seats.json").write_text(json.dumps(SEATS | {"carry_days": 366}))
    url, today = str(tmp_path / "lake"), dt.datetime.now(dt.UTC).date()
    this_month = month_of(today)
    date = this_month.start - dt.timedelta(days=20)
    land(url, tmp_path / "usage.jsonl", [("a", str(date), 20, "pro")], init=True)
    run(url, "export", "--period", str(this_month))
    assert Decimal(billed(url, str(this_month))[1]["quantity"]) == 20
    following = str(month_of(this_month.end))
    run(url, "export", "--period", following)
    assert billed(url, following) == (0, {})
