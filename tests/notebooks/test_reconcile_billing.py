"""What the notebook of one bill proves, and what it says where something can't be proved or is not so."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from demo_lake import demo_folder
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.run_report import reported
from lake import Lake
from notebooks.running import Shown, run
from schemas.errors import BrokenLakeError
from schemas.meter import AGGREGATIONS
from support import a_lake, aggregated, define, event, put, retained

NAME = "reconcile_billing"
PROVED = ["proved"] * 5
# A month that is over, whatever the clock says.
JUNE, MAY = dt.date(2025, 6, 1), dt.date(2025, 5, 31)
AT_MIDNIGHT = dt.datetime(2025, 6, 2, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def demo_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_folder(tmp_path_factory) / "demo-lake"


@pytest.fixture(scope="module")
def shown(demo_lake: Path) -> Shown:
    return run(NAME, demo_lake)


def _inputs(lake: Path, name: str) -> list[dict[str, Any]]:
    """The events of one of the demo's input files that are valid."""
    lines = (lake / "input" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if "broken" not in line and line.endswith("}}")]


def _holds(shown: Shown) -> list[str]:
    return [holds for _, holds in shown.table("claim", "holds")]


def _exported(lake: Lake, *, close: bool = False) -> None:
    aggregated(lake)
    with reported(lake, "export") as report:
        export(lake, report, parse_period("2025-06"), close=close)


def test_the_bill_is_accounted_for_to_the_last_row(shown: Shown, demo_lake: Path) -> None:
    landed, june = duckdb.sql(f"""
        with raw as (select *, row_number() over (partition by idempotency_key
                order by received_at, timestamp, quantity, subject, plan, workspace, role, source) as place
            from read_parquet('{demo_lake}/events/meter=active_users/**/*.parquet', hive_partitioning = true))
        select count(*), sum(quantity) from raw where subject = 'org_acme' and date >= '2026-06-01'
        union all
        select count(*), sum(quantity) from raw where subject = 'org_acme' and date >= '2026-06-01' and place = 1
        order by 1 desc
    """).fetchall()
    account = {step: rest for step, *rest in shown.table("step", "rows", "quantity_sum")}
    assert account["landed in this month"] == list(landed)
    assert account["count"] == list(june)
    first, *taken, counted = [rows for rows, _ in account.values()]
    assert first - sum(taken) == counted
    csv = (demo_lake / "exports/active_users/period=2026-06/revision=0002/usage.csv").read_text()
    (billed,) = (line.split(",")[6] for line in csv.splitlines() if ",org_acme," in line)
    assert f"org_acme, 2026-06: {int(Decimal(billed))} user of active_users (sum)" in shown.text
    computed = shown.table("computed from", "of dates", "quantity")
    assert {quantity for *_, quantity in computed} == {Decimal(billed)} == {june[1]}
    assert _holds(shown) == PROVED


def test_every_duplicate_of_the_input_is_explained(shown: Shown, demo_lake: Path) -> None:
    first = {said["idempotency_key"]: said for said in _inputs(demo_lake, "activity")}
    expected = sorted(
        (
            said["idempotency_key"],
            said["timestamp"][:10],
            first[said["idempotency_key"]]["timestamp"][:10],
            said["quantity"],
            "quantity" if said["quantity"] == 2 else "",
        )
        for said in _inputs(demo_lake, "retries")
        if said["subject"] == "org_acme"
    )
    explained = shown.names["explained"]
    found = explained.select(
        "idempotency_key",
        pl.col("date", "winner_date").cast(pl.String),
        pl.col("quantity").cast(pl.Int64),
        "says otherwise",
    )
    assert sorted(found.rows()) == expected
    assert explained["decided by"].unique().to_list() == ["received_at"]
    assert {row[4] for row in expected} == {"", "quantity"}
    assert {row[1] == row[2] for row in expected} == {True, False}


def test_what_came_late_is_what_was_adjusted(shown: Shown, demo_lake: Path) -> None:
    late = [said for said in _inputs(demo_lake, "late") if said["meter"] == "active_users"]
    dates = ", ".join(sorted({said["timestamp"][:10] for said in late}))
    columns = ("revision", "before", "after", "change", "dates changed", "late events", "they make")
    (row,) = shown.table(*columns)
    assert row[0] == 2
    assert row[4:6] == (dates, len(late))
    assert row[3] == row[6] == row[2] - row[1] == len(late)


def test_every_rejected_row_of_the_customer_is_shown(shown: Shown, demo_lake: Path) -> None:
    lines = (demo_lake / "input" / "activity.jsonl").read_text().splitlines()
    rejected = [line for line in lines if '"broken"' in line and '"org_acme"' in line]
    assert [line in shown.text for line in rejected] == [True] * 6
    assert len(shown.table("reason", "source", "position", "detail")) == 6


@pytest.mark.parametrize(
    ("meter", "customer"),
    [("users", "org_globex"), ("seats", "org_acme")],
)
def test_any_bill_can_be_explained(demo_lake: Path, meter: str, customer: str) -> None:
    shown = run(NAME, demo_lake, METER=meter, SUBJECT=customer, PERIOD="2026-06")
    folder = demo_lake / f"exports/{meter}/period=2026-06"
    last = json.loads((folder / "latest.json").read_bytes())["revision"]
    csv = pl.read_csv(folder / f"revision={last:04d}" / "usage.csv", infer_schema=False)
    (billed,) = csv.filter(pl.col("subject") == customer)["quantity"]
    assert shown.names["billed"] == shown.names["from_events"] == Decimal(billed)
    assert _holds(shown) == PROVED


def test_a_changed_export_is_an_error(demo_lake: Path, tmp_path: Path) -> None:
    lake = shutil.copytree(demo_lake, tmp_path / "lake")
    csv = lake / "exports/active_users/period=2026-06/revision=0001/usage.csv"
    csv.write_text(csv.read_text().replace("874", "974"))
    with pytest.raises(BrokenLakeError, match=r"usage\.csv"):
        run(NAME, lake)


@pytest.fixture
def small_bill(tmp_path: Path, request: pytest.FixtureRequest) -> Lake:
    """One customer's June: three events that count, a duplicate of one of May, and a row that breaks a rule."""
    aggregation = getattr(request, "param", "sum")
    unique = {"unique": "plan"} if aggregation == "unique_count" else {}
    lake, meter = a_lake(tmp_path / "lake", aggregation=aggregation, **unique)
    put(lake, meter, "a.parquet", event("may", "org_acme", day=MAY), day=MAY)
    put(
        lake,
        meter,
        "a.parquet",
        event("june", "org_acme", "5", JUNE, received_at=AT_MIDNIGHT),
        event("may", "org_acme", "2", JUNE),
        # Received before the valid one of its key, which wins all the same.
        event("june", "org_acme", "-1", JUNE),
        event(None, "org_acme", "0.25", JUNE),
        event(None, "org_acme", "0.25", JUNE),
        day=JUNE,
    )
    _exported(lake)
    return lake


@pytest.mark.parametrize("small_bill", AGGREGATIONS, indirect=True)
def test_the_bill_of_any_aggregation_can_be_explained(small_bill: Lake) -> None:
    shown = run(NAME, small_bill.url)
    billed = {
        "sum": Decimal("5.5"),
        "count": Decimal(3),
        "avg": Decimal("1.833333333"),
        "min": Decimal("0.25"),
        "max": Decimal(5),
        "first": Decimal("0.25"),
        "last": Decimal(5),
        "rate": Decimal("0.000001157"),
        "unique_count": 1,
    }
    names = shown.names
    assert names["billed"] == names["from_events"] == billed[small_bill.meters()[0].aggregation]
    assert names["account"]["rows"].to_list() == [5, 0, 0, 1, 0, 1, 3]
    assert [reason.removesuffix("_not_positive") for reason in names["rejected"]["reason"]] in (
        ["quantity"],
        ["quantity_negative"],
    )
    assert _holds(shown) == PROVED


@pytest.mark.parametrize("aggregation", ["avg", "last"])
def test_levels_of_series_are_added_and_carried(tmp_path: Path, aggregation: str) -> None:
    carry = {"carry_days": 5} if aggregation == "last" else {}
    lake, meter = a_lake(tmp_path, aggregation=aggregation, series=["plan"], event_retention_days=90, **carry)
    put(
        lake,
        meter,
        "a.parquet",
        event("a", "org_1", "7", MAY, plan="x"),
        event("b", "org_1", "9", MAY),
        day=MAY,
    )
    rows = [event(name, "org_1", name, JUNE, received_at=AT_MIDNIGHT) for name in ("1", "2", "2")]
    put(lake, meter, "a.parquet", *rows[:2], event("c", "org_1", "2", JUNE), day=JUNE)
    _exported(lake)
    shown = run(NAME, tmp_path)
    # Of x, which is silent in June, 7 are carried; an average is rounded half-even.
    assert shown.names["billed"] == (Decimal(9) if carry else Decimal("1.666666667"))
    assert _holds(shown) == PROVED


def test_a_duplicate_is_explained_whatever_decided(tmp_path: Path) -> None:
    dimensions = [{"name": "n.x", "type": "number", "required": False}]
    lake, meter = a_lake(tmp_path, name="a/b = ü%", dimensions=dimensions)
    mine = "org.acme:1-x"
    put(
        lake,
        meter,
        "a.parquet",
        event("dimension", mine, day=JUNE),
        event("dimension", mine, day=JUNE, **{"n.x": 1.5}),
        event("quantity", mine, "2", JUNE),
        event("quantity", mine, "3", JUNE),
        event("subject", mine, "4", JUNE),
        event("subject", "another", "4", JUNE),
        event("time", mine, "8", JUNE),
        event("time", mine, "8", JUNE, received_at=AT_MIDNIGHT),
        event("alike", mine, "16", JUNE),
        event("alike", mine, "16", JUNE),
        day=JUNE,
    )
    _exported(lake)
    shown = run(NAME, tmp_path)
    explained = shown.names["explained"].select("idempotency_key", "decided by", "says otherwise")
    assert explained.sort(pl.all()).rows() == [
        ("alike", "all alike", ""),
        ("dimension", "n.x", "n.x"),
        ("quantity", "quantity", "quantity"),
        ("subject", "subject", "subject"),
        ("time", "received_at", ""),
    ]
    # What another customer won is not on this bill.
    assert shown.names["billed"] == 1 + 2 + 8 + 16
    assert _holds(shown) == PROVED


def test_duplicates_of_dropped_events_stay_lost(small_bill: Lake) -> None:
    dropped = retained(small_bill, JUNE + dt.timedelta(days=30))
    assert [partition.date for partition in dropped.partitions] == [MAY]
    shown = run(NAME, small_bill.url)
    assert shown.names["billed"] == Decimal("5.5")
    assert shown.names["account"]["rows"].to_list() == [5, 0, 0, 0, 1, 1, 3]
    assert _holds(shown) == PROVED


def test_a_month_of_which_some_dates_are_gone_is_proved_by_day(small_bill: Lake) -> None:
    late = JUNE + dt.timedelta(days=20)
    put(small_bill, small_bill.meters()[0], "b.parquet", event("late", "org_acme", "2", late), day=late)
    _exported(small_bill)
    retained(small_bill, JUNE + dt.timedelta(days=32))
    shown = run(NAME, small_bill.url)
    gone = "can't be proved: retention has dropped events up to 2025-06-01"
    assert _holds(shown) == ["proved", "proved", "proved", gone, "proved"]
    assert [claim for claim, _ in shown.table("claim", "holds")][2].endswith("(1 of 2 dates)")
    assert shown.names["billed"] == shown.names["total"] == Decimal("7.5")


def test_a_month_whose_events_are_gone_is_named_as_such(small_bill: Lake) -> None:
    retained(small_bill, JUNE + dt.timedelta(days=60))
    shown = run(NAME, small_bill.url)
    gone = "can't be proved: retention has dropped events up to 2025-06-01"
    assert _holds(shown) == ["proved", "proved", gone, gone, gone]


def test_a_closed_month_is_explained_with_its_adjustments(small_bill: Lake) -> None:
    _exported(small_bill, close=True)
    day = JUNE + dt.timedelta(days=1)
    put(small_bill, small_bill.meters()[0], "late.parquet", event("late", "org_acme", "0.5", day), day=day)
    _exported(small_bill)
    shown = run(NAME, small_bill.url)
    assert [row[:2] for row in shown.table("revision", "kind", "rows", "billed", "closed")] == [
        (1, "usage"),
        (2, "adjustments"),
    ]
    assert shown.names["bill"]["billed"].to_list() == [Decimal("5.5"), Decimal(6)]
    assert _holds(shown) == PROVED


@pytest.mark.parametrize("is_aggregated", [True, False])
def test_events_that_came_after_the_export_are_named_as_such(small_bill: Lake, is_aggregated: bool) -> None:
    put(small_bill, small_bill.meters()[0], "late.parquet", event("late", "org_acme", "0.5", JUNE), day=JUNE)
    if is_aggregated:
        aggregated(small_bill)
    shown = run(NAME, small_bill.url)
    day, bill = ("proved", "NOT SO") if is_aggregated else ("NOT SO", "proved")
    assert _holds(shown) == ["proved", bill, day, "NOT SO", "proved"]
    assert "Events have come since the export: meterlake nightly" in shown.text


def test_a_lake_without_a_bill_is_named_as_such(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path))
    shown = run(NAME, tmp_path)
    assert "This lake has no meters yet" in shown.text
    assert "nothing to prove" in shown.text
    meter = define(lake, event_retention_days=90)
    assert "active_users was not exported for" in run(NAME, tmp_path).text
    put(lake, meter, "a.parquet", event("a", day=JUNE), day=JUNE)
    _exported(lake)
    shown = run(NAME, tmp_path, SUBJECT="org_9")
    assert "org_9 is not on the bill of active_users for 2025-06" in shown.text
    assert "nothing to prove" in shown.text
    assert (
        "active_users was not exported for 2025-07: meterlake export"
        in run(NAME, tmp_path, PERIOD="2025-07").text
    )
