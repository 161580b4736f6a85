"""What a revision holds: rows, columns, totals, and text that others trip over."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from exporting import ABOUT, MEASURES, cells, exported, manifest, revision, run
from jobs.export.billing import parse_period
from jobs.export.verify import verify_exports
from lake import Lake
from lake.meters import save_meter
from oracle.generate import AGGREGATIONS, Spec, generate, meter_body, write_lake
from oracle.tables import Oracle
from schemas.errors import BadInputError
from schemas.meter import parse_meter
from support import a_lake, aggregated, define, event, put


@pytest.fixture(scope="module")
def meters_of_all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a meter of each aggregation over the same events, around the end of a month."""
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake.init(str(folder))
    spec = Spec(events=800, dates=4, first_date=dt.date(2026, 1, 30), subjects=40, seed=5)
    for aggregation in AGGREGATIONS:
        save_meter(
            lake.storage, parse_meter(json.dumps(meter_body(aggregation, aggregation)).encode(), "test")
        )
        write_lake(folder, aggregation, generate(spec), 2, 1)
    aggregated(lake)
    return lake


@pytest.mark.parametrize("by", [(), ("plan", "trial")], ids=["subject", "dimensions"])
def test_every_row_equals_sql_over_the_raw_events(meters_of_all_kinds: Lake, by: tuple[str, ...]) -> None:
    lake = meters_of_all_kinds
    for month in ("2026-01", "2026-02"):
        period = parse_period(month)
        days = [period.start + dt.timedelta(n) for n in range((period.end - period.start).days)]
        for done in run(lake, month, by=by).exports:
            oracle = Oracle(lake.url, meter_body(done.meter, done.meter))
            expected = oracle.totals("usage", ["subject", *by], days)
            folder = revision(lake, done)
            found = pl.read_parquet(folder / "usage.parquet")
            assert found.columns == [*ABOUT, "subject", *by, *MEASURES]
            assert_frame_equal(found.select(expected.columns), expected, check_exact=True)
            assert manifest(folder)["files"]["usage.csv"]["rows"] == done.rows == expected.height > 30
    assert not [each for each in verify_exports(Path(lake.url)) if each.problems]


def test_a_revision_has_the_files_and_columns_of_the_contract(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, name="a/b")
    put(lake, meter, "a.parquet", event("x", quantity="0.5"), event("y", subject="b", quantity="482.7"))
    aggregated(lake)
    done = exported(lake)
    assert done.folder == "exports/a%2Fb/period=2026-06/"
    folder = revision(lake, done)
    assert folder.name == "revision=0001"
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "usage.csv", "usage.parquet"]
    rows = cells(folder / "usage.csv")
    assert list(rows[0]) == [*ABOUT, "subject", *MEASURES]
    assert {**rows[0], "first_at": "", "last_at": ""} == {
        "period_start": "2026-06-01T00:00:00Z",
        "period_end": "2026-07-01T00:00:00Z",
        "meter": "a/b",
        "unit": "user",
        "aggregation": "sum",
        "subject": "b",
        "quantity": "482.700000000",
        "events": "1",
        **dict.fromkeys(("quantity_sum", "quantity_min", "quantity_max"), "482.700000000"),
        **dict.fromkeys(("quantity_first", "quantity_last"), "482.700000000"),
        **dict.fromkeys(("first_received_at", "last_received_at"), "2026-06-19T12:00:00Z"),
        "first_at": "",
        "last_at": "",
    }
    said = manifest(folder)
    assert (said["meter"], said["period"], said["revision"], said["kind"]) == ("a/b", "2026-06", 1, "usage")
    assert (said["meter_version"], list(said["inputs"])) == (meter.version, ["2026-06-19"])
    for name in ("usage.csv", "usage.parquet"):
        file = said["files"][name]
        assert file["rows"] == 2
        assert file["totals"] == {"quantity": "483.2", "events": "2", "quantity_sum": "483.2"}
        assert list(file["columns"]) == list(rows[0])
        assert (file["columns"]["quantity"], file["columns"]["first_at"]) == (
            "decimal(38, 9)",
            "timestamp[us, UTC]",
        )


def test_totals_are_stated_only_of_what_adds_up(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="max")
    put(lake, meter, "a.parquet", event("x", quantity="0.5"), event("y", quantity="482.7"))
    aggregated(lake)
    said = manifest(revision(lake, exported(lake)))
    assert said["files"]["usage.csv"]["totals"] == {"events": "2", "quantity_sum": "483.2"}


def test_text_that_csv_and_spreadsheets_trip_over(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    plans = ["=1+1", "+1", "-1", "@x", "\t=1", 'a "q", b\r\nc', "", None, " lead", "é", "'=1"]
    put(
        lake,
        meter,
        "a.parquet",
        *(event(str(n), subject=f"s{n:02}", plan=plan) for n, plan in enumerate(plans)),
    )
    aggregated(lake)
    rows = cells(revision(lake, exported(lake, by=("plan",))) / "usage.csv")
    assert [row["plan"] for row in rows] == [plan or "" for plan in plans]
    folder = revision(lake, exported(lake, by=("plan",), csv_safe=True))
    assert folder.parent.name == "csv=safe"
    safe = [row["plan"] for row in cells(folder / "usage.csv")]
    assert safe == ["'=1+1", "'+1", "'-1", "'@x", "'\t=1", 'a "q", b\r\nc', "", "", " lead", "é", "'=1"]
    # An empty text is not the same as none, and Parquet is never changed.
    lines = (folder / "usage.csv").read_bytes().decode().split("\r\n")
    assert [line.split(",")[6] for line in lines if ",s06," in line or ",s07," in line] == ['""', ""]
    assert pl.read_parquet(folder / "usage.parquet")["plan"].to_list() == plans


def test_the_other_sets_of_columns(tmp_path: Path) -> None:
    seats = {"name": "seats", "type": "number", "required": False}
    plan = {"name": "plan", "type": "string", "required": False}
    lake, meter = a_lake(tmp_path, dimensions=[plan, seats])
    put(
        lake, meter, "a.parquet", event("x", quantity="482.7", seats=2.0), event("y", plan=None, quantity="3")
    )
    aggregated(lake)
    done = exported(lake, by=("seats", "plan"), columns="open-spanner")
    assert done.folder == "exports/active_users/period=2026-06/by=plan,seats/columns=open-spanner/"
    file = revision(lake, done) / "usage.csv"
    assert file.read_text().splitlines() == [
        "bucket_start,subject,meter,bucket_size,aggregation,unit,quantity,plan,seats",
        "2026-06-01T00:00:00Z,org_1,active_users,month,sum,user,3,,",
        "2026-06-01T00:00:00Z,org_1,active_users,month,sum,user,482.7,pro,2",
    ]
    folder = revision(lake, exported(lake, by=("seats", "plan"), columns="focus"))
    rows = cells(folder / "usage.csv")
    assert list(rows[1].items()) == [
        ("BillingPeriodStart", "2026-06-01T00:00:00Z"),
        ("BillingPeriodEnd", "2026-07-01T00:00:00Z"),
        ("ChargePeriodStart", "2026-06-01T00:00:00Z"),
        ("ChargePeriodEnd", "2026-07-01T00:00:00Z"),
        ("ChargeCategory", "Usage"),
        ("ChargeClass", ""),
        ("SubAccountId", "org_1"),
        ("ConsumedQuantity", "482.7"),
        ("ConsumedUnit", "user"),
        ("SkuMeter", "active_users"),
        ("Tags", '{"plan":"pro","seats":2.0}'),
    ]
    assert json.loads(rows[0]["Tags"]) == {"plan": None, "seats": None}
    assert manifest(folder)["files"]["usage.csv"]["totals"] == {"ConsumedQuantity": "485.7"}
    assert "quantity_first" in pl.read_parquet(folder / "usage.parquet").columns
    assert [row["Tags"] for row in cells(revision(lake, exported(lake, columns="focus")) / "usage.csv")] == [
        "{}"
    ]


@pytest.mark.parametrize("aggregation", ["avg", "min", "max", "first", "last", "rate"])
def test_focus_columns_are_refused_for_what_does_not_add_up(tmp_path: Path, aggregation: str) -> None:
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    define(lake, name="other")
    for each in (meter.name, "other"):
        put(
            lake,
            parse_meter(meter.to_json().replace(b"active_users", each.encode()), ""),
            "a.parquet",
            event("x"),
        )
    aggregated(lake)
    report = run(lake, columns="focus")
    assert report.exit_code == 1
    assert [problem["found"] for problem in report.errors] == [f"one of {aggregation}"]
    # The other meter is exported all the same.
    assert [done.meter for done in report.exports] == ["other"]


def test_a_dimension_that_has_a_columns_name_or_is_unknown_is_refused(tmp_path: Path) -> None:
    names = ("unit", "bucket_size", "plan")
    lake, meter = a_lake(
        tmp_path, dimensions=[{"name": name, "type": "string", "required": False} for name in names]
    )
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    for by in (("unit",), ("bucket_size", "plan"), ("region",), ("plan", "plan")):
        report = run(lake, by=by)
        assert (report.exit_code, report.exports) == (1, [])
        assert report.errors[0]["expected"] == "some of its dimensions, each once: plan"
    assert exported(lake, by=("plan",)).rows == 1


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-6", "2026", "0000-01", "2026-06-01", " 2026-06", "9999-12"]
)
def test_a_period_is_a_month(text: str) -> None:
    with pytest.raises(BadInputError, match="a month like 2026-06"):
        parse_period(text)
