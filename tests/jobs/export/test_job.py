"""Billing revisions: what they hold, when there is a new one, and that nothing can disturb one that exists."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from jobs import nightly as nightly_job
from jobs.export import revision as revision_module
from jobs.export.billing import parse_period, subject_ranges
from jobs.export.files import ROW_GROUP_ROWS, Drafts
from jobs.export.job import export
from jobs.export.month import MonthExport, Options
from jobs.export.verify import verify_exports
from jobs.nightly import nightly
from jobs.run_report import ExportReport, RunReport, reported
from lake import Lake, paths
from lake.meters import save_meter
from oracle.generate import AGGREGATIONS, Spec, generate, meter_body, write_lake
from oracle.tables import Oracle
from schemas.errors import BadInputError, StorageError
from schemas.meter import Meter, parse_meter
from support import DAY, a_lake, aggregated, content, define, event, put, retained

JUNE = parse_period("2026-06")
NEXT = DAY + dt.timedelta(days=1)
MEASURES = [
    *("quantity", "events", "quantity_sum", "quantity_min", "quantity_max"),
    *("quantity_first", "first_at", "first_received_at", "quantity_last", "last_at", "last_received_at"),
]
ABOUT = ["period_start", "period_end", "meter", "unit", "aggregation"]


def run(lake: Lake, period: str = "2026-06", **options: Any) -> RunReport:
    """Run the export; gives its report."""
    chosen = {name: options.pop(name) for name in ("by", "columns", "csv_safe") if name in options}
    with reported(lake, "export") as report:
        export(lake, report, parse_period(period), options=Options(**chosen), **options)
    return report


def exported(lake: Lake, **options: Any) -> ExportReport:
    """Export the only meter, which has to go well; gives what was done."""
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


# What a revision holds


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


# When there is a new revision


def test_nothing_changed_makes_no_revision(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("x"), event("y", subject="b"))
    aggregated(lake)
    assert exported(lake).action == "exported"
    before = content(tmp_path, "exports")
    assert exported(lake).action == "unchanged"
    # Other inputs with the same rows: written anew, a copy landed, a definition that changes no number.
    file.write_bytes(file.read_bytes())
    os.utime(file, (1, 1))
    put(lake, meter, "b.parquet", event("x", received_at=dt.datetime(2027, 1, 1, tzinfo=dt.UTC)))
    define(
        lake,
        description="other",
        dimensions=[
            *json.loads(meter.to_json())["dimensions"],
            {"name": "new", "type": "string", "required": False},
        ],
    )
    assert aggregated(lake).partitions
    assert exported(lake).action == "unchanged"
    assert content(tmp_path, "exports") == before


def test_a_month_without_usage_makes_no_revision(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    assert exported(lake, period="2026-05").action == "nothing used"
    assert not (tmp_path / "exports").exists()


def test_late_data_makes_a_revision_whose_adjustments_tell_what_changed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"), event("y", subject="b"), event("z", subject="same"))
    gone = put(lake, meter, "gone.parquet", event("v", subject="vanishes", quantity="2.5"))
    aggregated(lake)
    first = revision(lake, exported(lake))
    frozen = content(tmp_path, f"exports/{meter.name}/period=2026-06/revision=0001")
    put(lake, meter, "late.parquet", event("n", subject="appears", quantity="7", day=NEXT), day=NEXT)
    put(lake, meter, "more.parquet", event("m", quantity="0.000000001"))
    gone.unlink()
    aggregated(lake)
    done = exported(lake)
    assert (done.action, done.revision, done.rows, done.adjustments) == ("exported", 2, 4, 3)
    second = revision(lake, done)
    assert content(tmp_path, "exports").items() >= frozen.items()
    rows = cells(second / "adjustments.csv")
    told = [
        (row["subject"], row["quantity_before"], row["quantity_after"], row["quantity_change"])
        for row in rows
    ]
    assert list(rows[0]) == [*ABOUT, "subject", "quantity_before", "quantity_after", "quantity_change"]
    assert told == [
        ("appears", "", "7.000000000", "7.000000000"),
        ("org_1", "1.000000000", "1.000000001", "0.000000001"),
        ("vanishes", "2.500000000", "", "-2.500000000"),
    ]
    said = manifest(second)["files"]["adjustments.csv"]
    assert said["totals"] == {
        "quantity_before": "3.5",
        "quantity_after": "8.000000001",
        "quantity_change": "4.500000001",
    }
    assert quantities(first)["vanishes"] == Decimal("2.5")


def test_everything_vanishing_is_a_revision_of_no_rows(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    gone = put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    exported(lake)
    gone.unlink()
    aggregated(lake)
    done = exported(lake)
    assert (done.revision, done.rows, done.adjustments) == (2, 0, 1)
    assert (revision(lake, done) / "usage.csv").read_text().count("\n") == 1
    assert not verify_exports(revision(lake, done))[0].problems


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("aggregation", ["sum", "count", "max"])
def test_a_revision_and_the_adjustments_after_it_make_the_next(
    tmp_path: Path, aggregation: str, seed: int
) -> None:
    random = Random(seed)
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    files: list[Path] = []
    state: dict[Any, Decimal] = {}
    for landing in range(4):
        day = dt.date(2026, 6, random.randint(1, 30))
        events = [
            event(
                random.choice([None, f"k{random.randrange(20)}"]),
                subject=f"s{random.randrange(8)}",
                quantity=str(Decimal(random.randrange(1, 10**12)) / 10**9),
                plan=random.choice([None, "", "pro"]),
                day=day,
            )
            for _ in range(10)
        ]
        files.append(put(lake, meter, f"{landing}.parquet", *events, day=day))
        if landing and random.random() < 0.5:
            files.pop(random.randrange(len(files))).unlink()
        aggregated(lake)
        done = exported(lake, by=("plan",))
        folder = revision(lake, done)
        if done.action == "exported" and done.revision > 1:
            for row in pl.read_parquet(folder / "adjustments.parquet").iter_rows(named=True):
                key = (row["subject"], row["plan"])
                assert state.get(key) == row["quantity_before"] != row["quantity_after"]
                state[key] = state.get(key, Decimal(0)) + row["quantity_change"]
                if row["quantity_after"] is None:
                    assert state.pop(key) == 0
        usage = pl.read_parquet(folder / "usage.parquet").select("subject", "plan", "quantity")
        found = {(subject, plan): quantity for subject, plan, quantity in usage.iter_rows()}
        assert done.revision == 1 or found == state
        state = found
    assert not [each for each in verify_exports(tmp_path) if each.problems]


# Interruptions


class GoneError(StorageError):
    """The storage goes away at this very moment."""


def interrupted_at(lake: Lake, step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the storage fail at the given change of an export; gives how many changes there were."""
    count = 0

    def failing(change: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(path: str, *arguments: Any) -> Any:
            nonlocal count
            if path.startswith(paths.EXPORTS):
                count += 1
                if count == step:
                    raise GoneError("gone", where=path)
            return change(path, *arguments)

        return attempt

    for name in ("publish", "publish_file", "create", "delete"):
        monkeypatch.setattr(lake.storage, name, failing(getattr(lake.storage, name)))
    return lambda: count


@pytest.mark.parametrize("step", range(1, 8))
def test_an_interrupted_export_run_again_gives_the_same_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", *(event(str(n), subject=f"s{n}") for n in range(50)))
    aggregated(lake)
    exported(lake, by=("plan",))
    put(lake, meter, "late.parquet", *(event(f"late {n}", subject=f"s{n * 2}") for n in range(50)))
    aggregated(lake)
    undisturbed = exported(lake, by=("plan",))
    wanted = content(tmp_path, "exports")
    # Four files, the manifest, and what names it as the last, each of which the interruption may hit.
    assert len(wanted) == 3 + 5 + 1
    # What names it as the last is repaired first.
    shutil.rmtree(revision(lake, undisturbed))
    with monkeypatch.context() as patch:
        changes = interrupted_at(lake, step, patch)
        assert run(lake, by=("plan",)).exit_code == 3
        assert changes() == step
    # It does not exist yet, whatever lies there, before its manifest does.
    assert [each.folder[-4:] for each in verify_exports(tmp_path / "exports")] == ["0001", "0002"][
        : 1 + step // 7
    ]
    if step < 7:
        leftover = revision(lake, undisturbed) / "half.csv"
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_text("half")
    assert exported(lake, by=("plan",)).revision == 2
    assert content(tmp_path, "exports") == wanted
    assert not list((tmp_path / paths.TEMPORARY).glob("*"))


def test_the_same_rows_are_the_same_bytes_however_many_there_are(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path)
    rows = 2 * ROW_GROUP_ROWS + 7
    subjects = pl.int_range(rows, eager=True).shuffle(seed=1).cast(pl.String)
    frame = pl.LazyFrame({"subject": subjects}).with_columns(
        quantity=pl.col("subject").cast(pl.Decimal(38, 9)), plan=pl.lit("pro"), empty=pl.lit(None, pl.String)
    )
    described = []
    counted = frame.group_by(pl.all()).agg(pl.len().cast(pl.Int64)).sort("subject")
    for part_rows in (rows, rows, 30_000):
        drafts = Drafts(lake.storage, additive=True)
        written = drafts.parquet(
            "usage.parquet", [counted.filter(share) for share in subject_ranges(frame, part_rows)]
        )
        drafts.csv("usage.csv", written, full=True, safe=True)
        described.append(drafts.described())
        drafts.clear()
    assert described[0] == described[1] == described[2]
    assert {file.rows for file in described[0].values()} == {rows}
    assert described[0]["usage.csv"].totals == {"quantity": str(rows * (rows - 1) // 2)}


def test_shares_are_parts_of_whole_subjects_in_their_order() -> None:
    subjects = pl.LazyFrame({"subject": [*"zebra", *"aaaaaaaaaaaaaaa", "é", "Z"]})
    for part_rows in (1, 2, 5, 100):
        parts = [subjects.filter(share).collect()["subject"] for share in subject_ranges(subjects, part_rows)]
        assert (len(parts) > 1) == (part_rows < 100)
        assert sum(map(len, parts)) == 22
        ordered = [subject for part in parts for subject in part.sort()]
        assert ordered == subjects.collect()["subject"].sort().to_list()
    assert len(subject_ranges(subjects.clear())) == 1


def test_aggregates_of_an_interrupted_aggregation_are_not_exported(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    state = tmp_path / paths.state(meter.name)
    before = state.read_bytes()
    put(lake, meter, "b.parquet", event("y"))
    aggregated(lake)
    state.write_bytes(before)
    report = run(lake)
    assert (report.exit_code, report.exports) == (3, [])
    assert report.errors[0]["hint"] == "run: meterlake aggregate"
    aggregated(lake)
    assert exported(lake).rows == 1


@pytest.mark.parametrize("sealed", [True, False])
def test_a_table_that_is_missing_though_its_date_is_up_to_date_is_not_exported(
    tmp_path: Path, *, sealed: bool
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    if sealed:
        retained(lake, DAY + dt.timedelta(days=31))
    file = tmp_path / paths.aggregate("usage_by_subject", meter.name, DAY)
    body = file.read_bytes()
    file.unlink()
    report = run(lake)
    assert (report.exit_code, report.exports) == (3, [])
    assert ("backup" in report.errors[0]["hint"]) == sealed
    assert "--rebuild" in report.errors[0]["hint"]
    if sealed:
        file.write_bytes(body)
    aggregated(lake, rebuild=True)
    assert exported(lake).rows == 1


# Closing


def test_after_the_close_only_adjustments_are_told(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"), event("y", subject="b"))
    aggregated(lake)
    done = exported(lake, close=True)
    assert (done.action, done.revision, done.closed) == ("exported", 1, True)
    assert exported(lake, close=True).action == "unchanged"
    for number, quantity in ((2, "3"), (3, "0.5")):
        put(lake, meter, f"{number}.parquet", event(f"late {number}", quantity=quantity))
        aggregated(lake)
        done = exported(lake)
        assert (done.action, done.revision, done.closed, done.adjustments) == ("exported", number, True, 1)
        folder = revision(lake, done)
        names = sorted(file.name for file in folder.iterdir())
        assert names == ["adjustments.csv", "adjustments.parquet", "manifest.json"]
        assert manifest(folder)["kind"] == "adjustments"
    row = cells(folder / "adjustments.csv")[0]
    told = (row["subject"], row["quantity_before"], row["quantity_after"], row["quantity_change"])
    assert told == ("org_1", "4.000000000", "4.500000000", "0.500000000")
    assert exported(lake).action == "unchanged"
    # Back to what was told before the close: an adjustment again, from the revisions' chain.
    for number in (2, 3):
        next(Path(lake.url).glob(f"events/**/{number}.parquet")).unlink()
    aggregated(lake)
    done = exported(lake)
    row = cells(revision(lake, done) / "adjustments.csv")[0]
    assert (row["quantity_before"], row["quantity_change"]) == ("4.500000000", "-3.500000000")
    assert not [each for each in verify_exports(tmp_path) if each.problems]


def test_a_change_of_no_quantity_makes_no_revision_after_the_close(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="max")
    put(lake, meter, "a.parquet", event("x", quantity="5"))
    aggregated(lake)
    exported(lake, close=True)
    put(lake, meter, "b.parquet", event("y", quantity="4"))
    aggregated(lake)
    assert exported(lake).action == "unchanged"


def test_a_month_without_usage_can_be_closed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    done = exported(lake, close=True)
    assert (done.action, done.revision, done.rows, done.closed) == ("exported", 1, 0, True)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    done = exported(lake)
    assert (done.revision, done.adjustments, done.rows) == (2, 1, 0)


def test_a_month_that_is_not_over_or_not_aggregated_is_not_closed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    put(lake, meter, "b.parquet", event("y"))
    report = run(lake, close=True)
    assert report.exit_code == 1
    assert report.errors[0]["found"] == "1 out of date: 2026-06-19 (files added)"
    # Without a close it is exported as aggregated, and told.
    assert exported(lake).out_of_date == {"2026-06-19": "files added"}
    report = run(lake, f"{dt.datetime.now(dt.UTC):%Y-%m}", close=True)
    assert report.errors[0]["expected"] == "a month that is over"


# Verification


def delivered(tmp_path: Path) -> Path:
    """Two revisions of a period in a folder that no lake is near to."""
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("x", plan="=1"), event("y", subject="b"))
    aggregated(lake)
    exported(lake, csv_safe=True, by=("plan",))
    put(lake, meter, "b.parquet", event("z", plan=None))
    aggregated(lake)
    exported(lake, csv_safe=True, by=("plan",))
    shutil.move(
        tmp_path / "lake/exports/active_users/period=2026-06/by=plan/csv=safe", tmp_path / "delivered"
    )
    shutil.rmtree(tmp_path / "lake")
    return tmp_path / "delivered"


def restated(folder: Path, name: str) -> None:
    """Make a manifest's hash and size those of a file that was tampered with."""
    said = manifest(folder)
    body = (folder / name).read_bytes()
    said["files"][name] |= {"sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}
    (folder / "manifest.json").write_text(json.dumps(said))


def latest_restated(folder: Path, revision: str) -> None:
    """Make the file beside revisions name one of them."""
    number, sha256 = (
        int(revision[-4:]),
        hashlib.sha256((folder / revision / "manifest.json").read_bytes()).hexdigest(),
    )
    said = {"revision": number, "kind": "usage", "manifest_sha256": sha256, "usage_revision": number}
    (folder / "latest.json").write_text(json.dumps(said | {"closed": False}))


def more_usage(folder: Path) -> None:
    rows = pl.read_parquet(folder / "usage.parquet")
    one = pl.lit(1, rows.schema["quantity"])
    rows.with_columns(quantity=pl.col("quantity") + one).write_parquet(folder / "usage.parquet")
    restated(folder, "usage.parquet")


def less_change(folder: Path) -> None:
    rows = pl.read_parquet(folder / "adjustments.parquet")
    rows.clear().write_parquet(folder / "adjustments.parquet")
    said = manifest(folder)
    zero = dict.fromkeys(("quantity_before", "quantity_after", "quantity_change"), "0")
    said["files"]["adjustments.parquet"] |= {"rows": 0, "totals": zero}
    (folder / "manifest.json").write_text(json.dumps(said))
    restated(folder, "adjustments.parquet")


def other_change(folder: Path) -> None:
    rows = pl.read_parquet(folder / "adjustments.parquet")
    swapped = rows.with_columns(quantity_before="quantity_after", quantity_after="quantity_before")
    swapped.write_parquet(folder / "adjustments.parquet")
    said = manifest(folder)
    totals = said["files"]["adjustments.parquet"]["totals"]
    totals |= {"quantity_before": totals["quantity_after"], "quantity_after": totals["quantity_before"]}
    (folder / "manifest.json").write_text(json.dumps(said))
    restated(folder, "adjustments.parquet")


def shorter_csv(folder: Path) -> None:
    lines = (folder / "usage.csv").read_bytes().splitlines(keepends=True)
    (folder / "usage.csv").write_bytes(b"".join(lines[:-1]))
    restated(folder, "usage.csv")


def renamed_column(folder: Path) -> None:
    file = folder / "usage.csv"
    file.write_bytes(file.read_bytes().replace(b"subject", b"account", 1))
    restated(folder, "usage.csv")


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (lambda folder: (folder / "usage.csv").unlink(), "a file is missing"),
        (lambda folder: (folder / "usage.csv").write_text("x"), "a file is not the one that was exported"),
        (lambda folder: (folder / "extra.csv").write_text("x"), "a file that the manifest does not name"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "not a manifest of an export"),
        (more_usage, "the manifest differs from the file"),
        (shorter_csv, "the manifest differs from the file"),
        (renamed_column, "the manifest differs from the file"),
        (less_change, "the adjustments do not add up"),
        (other_change, "the adjustments do not add up"),
        (
            lambda folder: restated(folder.with_name("revision=0001"), "usage.csv"),
            "not the revision before",
        ),
    ],
    ids=[
        "missing",
        "other",
        "extra",
        "manifest",
        "usage",
        "rows",
        "columns",
        "adjustments",
        "swapped",
        "before",
    ],
)
def test_verification_finds_what_was_tampered_with(
    tmp_path: Path, tamper: Callable[[Path], Any], wrong: str
) -> None:
    folder = delivered(tmp_path)
    found = verify_exports(folder)
    assert [(each.files, each.rows, each.problems) for each in found] == [(2, 2, []), (4, 3, [])]
    assert verify_exports(folder / "revision=0002")[0].problems == []
    tamper(folder / "revision=0002")
    first, second = verify_exports(folder)
    assert first.problems == []
    assert second.problems[0]["what"].startswith(wrong)


def told_otherwise(**members: Any) -> Callable[[Path], None]:
    """Change members of a manifest."""

    def tamper(folder: Path) -> None:
        (folder / "manifest.json").write_text(json.dumps(manifest(folder) | members))

    return tamper


def named_otherwise(name: str) -> Callable[[Path], None]:
    """Give the file of a manifest another name."""

    def tamper(folder: Path) -> None:
        said = manifest(folder)
        said["files"][name] = said["files"].pop("usage.csv")
        (folder / "manifest.json").write_text(json.dumps(said))

    return tamper


def replaced_manifest(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Put something else in a manifest's place."""

    def tamper(folder: Path) -> None:
        (folder / "manifest.json").unlink()
        make(folder / "manifest.json")

    return tamper


ODD_REVISIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "number of another folder": (told_otherwise(revision=7), "the revision is not that of its folder"),
    "period of another folder": (
        lambda folder: (
            shutil.move(folder, folder.with_name("period=2026-01") / folder.name),
            latest_restated(folder.parent, "revision=0001"),
        ),
        "the period is not that of its folder",
    ),
    "unknown kind": (told_otherwise(kind="guess"), "an unknown kind of revision"),
    "no revision before": (told_otherwise(previous_sha256=None), "the revision before is not named"),
    "no sha256": (told_otherwise(previous_sha256="../x"), "the revision before is not named"),
    "dimension that is no column": (told_otherwise(group_by=["nowhere"]), "a revision can't be checked"),
    "dimension twice": (told_otherwise(group_by=["plan", "plan"]), "a dimension is duplicated"),
    "subject as dimension": (told_otherwise(group_by=["subject"]), "a dimension is duplicated"),
    "very long name": (named_otherwise("x" * 5000), "a file is not named"),
    "name with a path": (named_otherwise("../usage.csv"), "a file is not named"),
    "name with a null": (named_otherwise("a\0b"), "a file is not named"),
    "no files": (told_otherwise(files={}), "a file is not named"),
    "folder": (replaced_manifest(Path.mkdir), "a manifest is no file"),
    "pipe": (replaced_manifest(os.mkfifo), "a manifest is no file"),
    "dangling link": (replaced_manifest(lambda file: file.symlink_to("nowhere")), "a manifest can't be read"),
    "looping link": (replaced_manifest(lambda file: file.symlink_to(file)), "a manifest can't be read"),
    "no UTF-8": (replaced_manifest(lambda file: file.write_bytes(b'{"meter": "\xff"}')), "not a manifest"),
    "deep nesting": (replaced_manifest(lambda file: file.write_text("[" * 100_000)), "not a manifest"),
    "empty": (replaced_manifest(Path.touch), "not a manifest"),
    "pipe for a file": (
        lambda folder: ((folder / "usage.csv").unlink(), os.mkfifo(folder / "usage.csv")),
        "a file is missing",
    ),
    "another type": (
        lambda folder: (
            pl.DataFrame(
                {"subject": ["a"], "quantity": [1.5]}, schema_overrides={"quantity": pl.Float32}
            ).write_parquet(folder / "usage.parquet"),
            restated(folder, "usage.parquet"),
        ),
        "a file can't be read",
    ),
}


@pytest.mark.parametrize(("tamper", "wrong"), ODD_REVISIONS.values(), ids=ODD_REVISIONS)
def test_an_odd_revision_is_named_and_keeps_no_other_from_being_checked(
    tmp_path: Path, tamper: Callable[[Path], Any], wrong: str
) -> None:
    folder = delivered(tmp_path)
    shutil.copytree(folder, tmp_path / "others")
    (folder.with_name("period=2026-01")).mkdir()
    tamper(folder / "revision=0002")
    checked = {each.folder.removeprefix(f"{tmp_path}/"): each.problems for each in verify_exports(tmp_path)}
    assert len(checked) == 4
    (odd,) = checked.keys() - {
        f"{name}/revision={n:04d}" for name, n in [("delivered", 1), ("others", 1), ("others", 2)]
    }
    assert checked.pop(odd)[0]["what"].startswith(wrong)
    assert [*checked.values()] == [[], [], []]


def test_there_must_be_something_to_verify(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to verify"):
        verify_exports(tmp_path)


# The whole night


def night(lake: Lake, as_of: dt.date) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=as_of)
    return report


def two_meters(tmp_path: Path) -> tuple[Lake, list[Meter]]:
    lake, meter = a_lake(tmp_path)
    meters = [meter, define(lake, name="zeta")]
    for each in meters:
        put(lake, each, "old.parquet", event("x"))
        put(lake, each, "new.parquet", event("y", day=dt.date(2026, 7, 18)), day=dt.date(2026, 7, 18))
    return lake, meters


def test_a_night_aggregates_exports_two_months_and_retains(tmp_path: Path) -> None:
    lake, meters = two_meters(tmp_path)
    report = night(lake, dt.date(2026, 7, 20))
    assert report.exit_code == 0
    assert [(done.meter, done.period, done.revision) for done in report.exports] == [
        (meter.name, period, 1) for meter in meters for period in ("2026-06", "2026-07")
    ]
    actions = [(each.meter, each.action) for each in report.partitions]
    assert actions.count(("zeta", "aggregated")) == 2
    assert actions.count(("zeta", "dropped")) == 1
    # Sealed dates are billed too: nothing changed, so nothing is exported.
    assert {done.action for done in night(lake, dt.date(2026, 7, 21)).exports} == {"unchanged"}


@pytest.mark.parametrize("step", ["aggregate", "export_month", "retain"])
@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(ZeroDivisionError("oops"), 3), (BadInputError("oops"), 1), (StorageError("oops"), 3)],
)
def test_a_failing_step_loses_no_other_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, exit_code: int
) -> None:
    lake, _ = two_meters(tmp_path)
    working = getattr(nightly_job, step)

    def broken(what: Lake | MonthExport, *arguments: Any, **options: Any) -> Any:
        if (what.meter.name if isinstance(what, MonthExport) else options["meter"]) == "active_users":
            raise error
        return working(what, *arguments, **options)

    monkeypatch.setattr(nightly_job, step, broken)
    report = night(lake, dt.date(2026, 7, 20))
    assert report.exit_code >= exit_code
    assert "oops" in report.errors[0]["what"]
    done = {(each.meter, each.action) for each in report.partitions}
    exports = [(each.meter, each.revision) for each in report.exports]
    assert done >= {("zeta", "aggregated"), ("zeta", "dropped")}
    assert (("active_users", "aggregated") in done) == (step != "aggregate")
    assert (("active_users", "dropped") in done) == (step == "export_month")
    assert exports.count(("zeta", 1)) == 2
    assert exports.count(("active_users", 1)) == (2 if step == "retain" else 0)


def test_a_night_ends_when_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, _ = two_meters(tmp_path)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nightly_job, "export_month", stop)
    with pytest.raises(KeyboardInterrupt):
        night(lake, dt.date(2026, 7, 20))


def test_an_export_that_fails_keeps_no_scratch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)

    def full(*_: Any) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(revision_module, "publish_revision", full)
    assert run(lake).exit_code == 3
    assert not list((tmp_path / paths.TEMPORARY).glob("*"))
