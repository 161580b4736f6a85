"""Gauges with series through the jobs: bills, adjustments, changed definitions, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.aggregate.job import aggregate
from jobs.export import billing
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.export.verify import verify_exports
from jobs.run_report import ExportReport, RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, content, define, event, put, recomputed

NEXT = DAY + dt.timedelta(days=1)
SEATS: dict[str, Any] = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "series": ["workspace"],
    "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace")],
}


def seats_lake(folder: Path, **changes: Any) -> tuple[Lake, Meter]:
    return a_lake(folder, **SEATS | changes)


def snapshot(workspace: str, seats: str, day: dt.date = DAY, **more: Any) -> dict[str, Any]:
    return event(f"{workspace} {day}", "org_acme", seats, day, workspace=workspace) | more


def exported(lake: Lake, by: tuple[str, ...] = (), **more: Any) -> ExportReport:
    with reported(lake, "export") as report:
        export(lake, report, parse_period("2026-06"), options=Options(by=by), **more)
    assert report.errors == []
    return report.exports[0]


def usage(lake: Lake, done: ExportReport, *columns: str) -> list[tuple[Any, ...]]:
    file = Path(lake.url) / paths.revision(done.folder, done.revision) / "usage.parquet"
    return pl.read_parquet(file).select("subject", *columns, "quantity", "series_count", "events").rows()


def total(lake: Lake, by: list[str] | None = None) -> dict[Any, Any]:
    rows = lake.totals("seats", by or [], DAY, NEXT + dt.timedelta(days=1)).collect()
    return dict(rows.select(pl.first() if by else pl.lit("all"), "quantity").iter_rows())


def two_days(lake: Lake, meter: Meter) -> None:
    """Two workspaces, of which one grows and moves to another plan."""
    put(lake, meter, "a.parquet", snapshot("a", "20"), snapshot("b", "41"))
    put(lake, meter, "a.parquet", snapshot("a", "24", NEXT, plan="team"), day=NEXT)


def test_the_last_level_of_each_workspace_is_billed(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path)
    two_days(lake, meter)
    aggregated(lake)
    assert usage(lake, exported(lake)) == [("org_acme", 65, 2, 3)]
    # A workspace stands whole in the plan that it has last.
    assert usage(lake, exported(lake, ("plan",)), "plan") == [
        ("org_acme", "pro", 41, 1, 1),
        ("org_acme", "team", 24, 1, 2),
    ]
    assert total(lake) == {"all": 65}
    assert total(lake, ["plan"]) == {"pro": 41, "team": 24}
    days = lake.query("seats", DAY, NEXT + dt.timedelta(days=1), by=["plan"]).collect()
    assert days["quantity"].to_list() == [61, 24]
    assert not [each for each in verify_exports(tmp_path) if each.problems]


def test_a_workspace_that_closes_and_one_that_moves(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path)
    two_days(lake, meter)
    moved = snapshot("b", "41", NEXT) | {"subject": "org_globex", "idempotency_key": "moved"}
    put(lake, meter, "b.parquet", moved, day=NEXT)
    aggregated(lake)
    # Until a 0 ends it, it counts on where it was.
    assert total(lake, ["subject"]) == {"org_acme": 65, "org_globex": 41}
    put(lake, meter, "c.parquet", snapshot("b", "0", NEXT), day=NEXT)
    aggregated(lake)
    assert total(lake, ["subject"]) == {"org_acme": 24, "org_globex": 41}
    assert usage(lake, exported(lake))[0] == ("org_acme", 24, 2, 4)


def test_a_late_snapshot_is_an_adjustment(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path)
    two_days(lake, meter)
    aggregated(lake)
    exported(lake)
    put(lake, meter, "late.parquet", snapshot("b", "30", NEXT), snapshot("c", "1", NEXT), day=NEXT)
    aggregated(lake)
    done = exported(lake)
    assert (done.revision, usage(lake, done)) == (2, [("org_acme", 55, 3, 5)])
    folder = Path(lake.url) / paths.revision(done.folder, 2)
    told = pl.read_parquet(folder / "adjustments.parquet")
    columns = ("quantity_before", "quantity_after", "quantity_change")
    assert told.select(columns).rows() == [(Decimal(65), Decimal(55), Decimal(-10))]
    assert not [each for each in verify_exports(tmp_path) if each.problems]


def test_the_manifest_states_the_sum_of_added_levels(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path)
    two_days(lake, meter)
    aggregated(lake)
    done = exported(lake)
    said = json.loads((tmp_path / paths.revision(done.folder, 1) / "manifest.json").read_text())
    assert said["series"] == ["workspace"]
    assert said["files"]["usage.csv"]["totals"]["quantity"] == "65"
    assert said["files"]["usage.csv"]["columns"]["series_count"] == "int64"


def test_no_series_is_split_however_the_rows_are_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter = seats_lake(tmp_path)
    rows = [
        snapshot(f"w{n % 5}", "1") | {"subject": f"s{n // 5}", "idempotency_key": None} for n in range(40)
    ]
    put(lake, meter, "a.parquet", *rows)
    put(lake, meter, "b.parquet", *rows, day=DAY)
    aggregated(lake)
    monkeypatch.setattr(billing.subject_ranges, "__defaults__", (3,))
    assert [row[1:3] for row in usage(lake, exported(lake))] == [(5, 5)] * 8


def test_setting_series_computes_open_dates_anew(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path, series=None)
    two_days(lake, meter)
    aggregated(lake)
    before = total(lake)
    define(lake, **SEATS)
    assert recomputed(aggregated(lake)) == dict.fromkeys((DAY, NEXT), "definition changed")
    assert (before, total(lake)) == ({"all": 24}, {"all": 65})
    daily = lake.usage_by_subject("seats").select("date", "quantity").collect().rows()
    assert daily == [(DAY, 61), (NEXT, 24)]
    anew, _ = seats_lake(tmp_path / "anew")
    two_days(anew, anew.meter("seats"))
    aggregated(anew)
    for table in paths.TABLES:
        rows = [getattr(each, table)("seats").collect() for each in (lake, anew)]
        assert rows[0].equals(rows[1])


def test_an_undone_series_gives_the_numbers_of_before(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path, series=None)
    two_days(lake, meter)
    aggregated(lake)
    before = content(tmp_path, "meters")
    rows = lake.usage_by_subject("seats").collect()
    define(lake, **SEATS)
    aggregated(lake)
    define(lake, **SEATS | {"series": None})
    aggregated(lake)
    assert content(tmp_path, "meters") == before
    assert lake.usage_by_subject("seats").collect().equals(rows)


def test_incremental_is_rebuild_and_verify_agrees(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path)
    two_days(lake, meter)
    aggregated(lake)
    put(lake, meter, "b.parquet", snapshot("a", "7", NEXT, plan="free"), day=NEXT)
    aggregated(lake)
    tables = [getattr(lake, table)("seats").collect() for table in paths.TABLES]
    aggregated(lake, rebuild=True)
    assert all(
        getattr(lake, table)("seats").collect().equals(rows)
        for table, rows in zip(paths.TABLES, tables, strict=True)
    )
    report = RunReport(job="verify", started_at=dt.datetime.now(dt.UTC))
    verify(lake, report)
    assert report.errors == []


def test_added_levels_are_exact_far_beyond_doubles(tmp_path: Path) -> None:
    lake, meter = seats_lake(tmp_path)
    put(lake, meter, "a.parquet", snapshot("a", "1"))
    aggregated(lake)
    large = str(10**20 - 1)
    many = [snapshot(f"w{n}", large) | {"idempotency_key": None} for n in range(20)]
    put(lake, meter, "b.parquet", *many)
    with reported(lake, "aggregate") as report:
        aggregate(lake, report)
    assert report.exit_code == 0
    assert total(lake) == {"all": 20 * (10**20 - 1) + 1}
