"""Meters of `unique_count` through the jobs: definitions, landing, bills and their adjustments, nights, and the page."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.cli import app
from jobs.compact import compact
from jobs.export import billing
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.export.verify import verify_exports
from jobs.nightly import nightly
from jobs.report_page.figures import gather
from jobs.run_report import ExportReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, event, put, retained

NEXT = DAY + dt.timedelta(days=1)
TABLES = ("usage", "usage_by_subject", "usage_by_dimension")
USERS: dict[str, Any] = {
    "name": "users",
    "unit": "user",
    "aggregation": "unique_count",
    "unique": "user",
    "dimensions": [
        {"name": "plan", "type": "string"},
        {"name": "user", "type": "string", "required": False},
    ],
}


def users_lake(folder: Path) -> tuple[Lake, Meter]:
    """Two days of three users, of whom Ada is there on both, and with two customers; and of somebody unknown."""
    lake, meter = a_lake(folder, **USERS)
    first = [act("1", user="ada"), act("2", user="ada", plan="team"), act("3", "org_2", user="ada"), act("4")]
    second = [act("5", day=NEXT, user="ada"), act("6", day=NEXT, user="bo"), act("7", "org_2", day=NEXT)]
    put(lake, meter, "a.parquet", *first)
    put(lake, meter, "a.parquet", *second, day=NEXT)
    return lake, meter


def act(key: str, subject: str = "org_1", day: dt.date = DAY, **more: Any) -> dict[str, Any]:
    return event(key, subject, "1", day, **more)


def exported(lake: Lake, by: tuple[str, ...] = (), **more: Any) -> ExportReport:
    with reported(lake, "export") as report:
        export(lake, report, parse_period("2026-06"), options=Options(by=by), **more)
    assert report.errors == []
    return report.exports[0]


def rows(lake: Lake, done: ExportReport, *columns: str, name: str = "usage") -> list[tuple[Any, ...]]:
    file = Path(lake.url) / paths.revision(done.folder, done.revision) / f"{name}.parquet"
    return pl.read_parquet(file).select("subject", *columns).rows()


def totals(lake: Lake, done: ExportReport, name: str) -> dict[str, str]:
    file = Path(lake.url) / paths.revision(done.folder, done.revision) / paths.MANIFEST
    found: dict[str, str] = json.loads(file.read_text())["files"][name]["totals"]
    return found


def test_a_user_is_billed_once_a_month_and_customer(tmp_path: Path) -> None:
    lake, _ = users_lake(tmp_path)
    aggregated(lake)
    done = exported(lake)
    assert rows(lake, done, "quantity", "events") == [("org_1", 2, 5), ("org_2", 1, 2)]
    # Two customers have one user more than there are, and two plans too: no sum of rows says how many.
    assert totals(lake, done, "usage.csv") == {"events": "7", "quantity_sum": "7"}
    by_plan = exported(lake, ("plan",))
    assert rows(lake, by_plan, "plan", "quantity") == [
        ("org_1", "pro", 2),
        ("org_1", "team", 1),
        ("org_2", "pro", 1),
    ]
    assert lake.totals("users").collect()["quantity"].to_list() == [2]
    assert not [each for each in verify_exports(tmp_path) if each.problems]


def test_a_late_user_is_an_adjustment_and_one_known_already_none(tmp_path: Path) -> None:
    lake, meter = users_lake(tmp_path)
    aggregated(lake)
    assert exported(lake, close=True).closed
    put(lake, meter, "late.parquet", act("8", "org_2", user="ada"), act("9", user="bo"))
    aggregated(lake)
    assert exported(lake).revision == 1
    put(lake, meter, "later.parquet", act("10", "org_2", user="bo"))
    aggregated(lake)
    done = exported(lake)
    columns = ("quantity_before", "quantity_after", "quantity_change")
    assert rows(lake, done, *columns, name="adjustments") == [("org_2", 1, 2, 1)]
    assert totals(lake, done, "adjustments.csv") == {}
    assert not [each for each in verify_exports(tmp_path) if each.problems]


def test_bills_are_the_same_however_their_rows_are_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _ = users_lake(tmp_path)
    aggregated(lake)
    monkeypatch.setattr(billing.subject_ranges, "__defaults__", (2,))
    assert rows(lake, exported(lake), "quantity") == [("org_1", 2), ("org_2", 1)]


def test_nights_bill_from_the_table_that_has_the_users(tmp_path: Path) -> None:
    lake, meter = users_lake(tmp_path)
    for night in (1, 2):
        with reported(lake, "nightly") as report:
            nightly(lake, report, as_of=NEXT + dt.timedelta(days=night))
        assert report.errors == []
        june = next(done for done in report.exports if done.period == "2026-06")
        assert (june.action, june.revision) == ("exported", night)
        put(lake, meter, "b.parquet", act("8", "org_2", user="cy"))
    assert rows(lake, june, "quantity") == [("org_1", 2), ("org_2", 2)]


def test_nothing_changes_by_compaction_retention_or_a_rebuild(tmp_path: Path) -> None:
    lake, meter = users_lake(tmp_path)
    put(lake, meter, "b.parquet", act("1", user="ada"), act("11", "org_2", user="cy"))
    aggregated(lake)
    tables = [getattr(lake, table)("users").collect() for table in TABLES]
    with reported(lake, "compact") as report:
        compact(lake, report, as_of=NEXT + dt.timedelta(days=9))
    assert "compacted" in [done.action for done in report.partitions]
    aggregated(lake, rebuild=True)
    with reported(lake, "verify") as report:
        verify(lake, report)
    assert report.errors == []
    answers = [lake.totals("users", by).collect() for by in ([], ["plan"], ["user"])]
    retained(lake, NEXT + dt.timedelta(days=40))
    assert [lake.totals("users", by).collect().rows() for by in ([], ["plan"], ["user"])] == [
        each.rows() for each in answers
    ]
    assert [getattr(lake, table)("users").collect().rows() for table in TABLES] == [
        table.rows() for table in tables
    ]
    assert rows(lake, exported(lake), "quantity") == [("org_1", 2), ("org_2", 2)]


def test_the_page_counts_users_of_the_range_and_of_each_day(tmp_path: Path) -> None:
    lake, _ = users_lake(tmp_path)
    aggregated(lake)
    (figures,) = gather(lake, NEXT + dt.timedelta(days=1), 30).meters
    assert (figures.quantity, [bar.quantity for bar in figures.days]) == ("2", ["1", "2"])
    ranking = {
        ranking.field: [(bar.name, bar.quantity) for bar in ranking.bars] for ranking in figures.rankings
    }
    assert ranking["plan"] == [("pro", "2"), ("team", "1")]
    assert ranking["subject"] == [("org_1", "2"), ("org_2", "1")]


def test_from_a_definition_to_an_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = app.run(["--lake", str(tmp_path / "lake"), *arguments])
        return code, capfd.readouterr().out

    (tmp_path / "users.json").write_text(json.dumps(USERS))
    body = {"subject": "org_1", "meter": "users", "timestamp": "2026-06-19T10:00:00Z"}
    users = [{"user": "ada"}, {"user": "ada"}, {"user": "bo"}, {}]
    # An event counts by itself: it needs no quantity.
    lines = [
        body | {"idempotency_key": str(number), "metadata": {"plan": "pro"} | user}
        for number, user in enumerate(users)
    ]
    (tmp_path / "usage.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert run("init")[0] == 0
    assert run("meter", "add", str(tmp_path / "users.json"))[0] == 0
    assert run("land", str(tmp_path / "usage.jsonl"))[0] == 0
    assert run("aggregate")[0] == 0
    code, out = run(
        "query", "--meter", "users", "--from", "2026-06-01", "--to", "2026-07-01", "--bucket", "month"
    )
    assert (code, out.splitlines()) == (
        0,
        ["users: unique_count of user", "month    quantity  events", "2026-06         2       4"],
    )
    code, out = run(
        "query", "--meter", "users", "--from", "2026-06-20", "--to", "2026-06-21", "--rolling", "28"
    )
    assert out.splitlines() == [
        "users: unique_count of user in the 28 days up to each",
        "day         quantity  events",
        "2026-06-20         2       4",
    ]
    assert run("export", "--period", "2026-06", "--columns", "focus")[0] == 1
