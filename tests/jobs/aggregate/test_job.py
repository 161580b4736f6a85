"""Aggregation: the tables against the oracle, and what is recomputed when, and why."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from jobs.run_report import RunReport
from lake import Lake, paths
from lake.meters import save_meter
from oracle.generate import AGGREGATIONS, Spec, generate, meter_body, write_lake
from oracle.tables import Oracle
from schemas.columns import aggregate_columns
from schemas.errors import BadInputError
from schemas.meter import parse_meter
from support import DAY, METER, a_lake, aggregated, content, define, event, put, recomputed, usage

NEXT = DAY + dt.timedelta(days=1)
LATER = DAY + dt.timedelta(days=2)
MIDNIGHT = dt.datetime.combine(NEXT, dt.time(), dt.UTC)
MINUTE = dt.timedelta(minutes=1)
NAME = "usage/of it"
TABLES = ["usage", "usage_by_subject", "usage_by_dimension"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200,000 events with everything the generator knows, without a meter yet."""
    root = tmp_path_factory.mktemp("generated")
    write_lake(root, NAME, generate(Spec()), 4, seed=1)
    return root


class Counted(NamedTuple):
    """A lake over the generated events, aggregated by one meter, and what the oracle makes of the same files."""

    lake: Lake
    oracle: Oracle
    report: RunReport


@pytest.fixture(scope="module", params=AGGREGATIONS)
def counted(
    request: pytest.FixtureRequest, generated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Counted:
    root, body = tmp_path_factory.mktemp("lake"), meter_body(request.param, NAME)
    lake = Lake.init(str(root))
    (root / "events").symlink_to(generated / "events")
    save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "test"))
    return Counted(lake, Oracle(generated, body), aggregated(lake))


def test_tables_equal_the_oracles_in_every_digit(counted: Counted) -> None:
    for table in TABLES:
        expected = getattr(counted.oracle, table)()
        found = getattr(counted.lake, table)(NAME).collect()
        assert found.schema == expected.schema
        assert found.equals(expected), table
    lost = counted.oracle.losers()
    assert counted.report.duplicates == lost.height > 10_000
    assert counted.report.conflicts == lost["conflict"].sum() > 1_000
    assert counted.report.events_read == 200_000
    assert counted.report.exit_code == 0


def test_totals_of_any_dates_equal_the_oracles(counted: Counted) -> None:
    since, until = dt.date(2026, 1, 3), dt.date(2026, 1, 12)
    dates = [since + dt.timedelta(days=n) for n in range((until - since).days)]
    for by in ([], ["subject"], ["plan", "trial"]):
        table = "usage" if by == ["plan", "trial"] else "usage_by_subject"
        expected = counted.oracle.totals(table, by, dates)
        found = counted.lake.totals(NAME, by, since, until).collect()
        assert found.equals(expected.select(found.columns)), by


def test_month_of_a_max_meter_is_its_greatest_quantity(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="max")
    put(lake, meter, "a.parquet", event("a", quantity="5"), event("b", quantity="7.5"))
    put(lake, meter, "b.parquet", event("c", quantity="6", day=NEXT), day=NEXT)
    aggregated(lake)
    assert lake.totals(meter.name, ["subject"]).select("quantity").collect().item() == Decimal("7.5")


def test_a_run_with_nothing_new_recomputes_nothing_and_changes_no_file(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    before = content(tmp_path, "aggregates", "state", "index", "quarantine")
    (tmp_path / paths.events(meter.name, DAY) / "a.parquet").chmod(0o000)
    report = aggregated(lake)
    assert (report.partitions, report.events_read, report.exit_code) == ([], 0, 0)
    assert content(tmp_path, "aggregates", "state", "index", "quarantine") == before


def test_only_the_partition_of_an_added_file_is_recomputed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "a.parquet", event("b", day=NEXT), day=NEXT)
    assert recomputed(aggregated(lake)) == {DAY: "new", NEXT: "new"}
    put(lake, meter, "b.parquet", event("c", quantity="2", day=NEXT), day=NEXT)
    assert recomputed(aggregated(lake)) == {NEXT: "files added"}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1)), (NEXT, "org_1", Decimal(3))]


def test_an_earlier_copy_on_another_date_moves_the_winner_and_recomputes_both(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k", quantity="5"), event("other"))
    put(lake, meter, "a.parquet", event("x", day=LATER), day=LATER)
    aggregated(lake)
    early = event("k", quantity="9", timestamp=MIDNIGHT, received_at=event("k")["received_at"] - MINUTE)
    put(lake, meter, "late.parquet", early, day=NEXT)
    assert recomputed(aggregated(lake)) == {DAY: "a duplicate in another partition", NEXT: "new"}
    assert usage(lake, meter) == [
        (DAY, "org_1", Decimal(1)),
        (NEXT, "org_1", Decimal(9)),
        (LATER, "org_1", Decimal(1)),
    ]


def test_a_later_copy_on_another_date_leaves_the_winners_partition_alone(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"))
    aggregated(lake)
    put(lake, meter, "retry.parquet", event("k", day=NEXT), event("y", day=NEXT), day=NEXT)
    report = aggregated(lake)
    assert recomputed(report) == {NEXT: "new"}
    assert (report.duplicates, report.conflicts) == (1, 0)


def test_removing_the_winners_file_gives_the_number_to_the_copy(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    first = put(lake, meter, "a.parquet", event("k", quantity="5"))
    put(lake, meter, "b.parquet", event("k", quantity="7", day=NEXT), day=NEXT)
    aggregated(lake)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(5))]
    first.unlink()
    assert recomputed(aggregated(lake)) == {DAY: "vanished", NEXT: "a duplicate in another partition"}
    assert usage(lake, meter) == [(NEXT, "org_1", Decimal(7))]
    assert not list((tmp_path / paths.AGGREGATES).rglob(f"date={DAY}"))


def test_replacing_a_file_recomputes_what_it_held_and_holds(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k", quantity="5"))
    put(lake, meter, "b.parquet", event("k", quantity="7", day=NEXT), day=NEXT)
    aggregated(lake)
    put(lake, meter, "a.parquet", event("other", quantity="1"), event("another", quantity="1"))
    assert recomputed(aggregated(lake)) == {DAY: "files replaced", NEXT: "a duplicate in another partition"}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2)), (NEXT, "org_1", Decimal(7))]


def test_a_partition_of_losers_only_has_no_aggregate_file(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"))
    put(lake, meter, "b.parquet", event("k", day=NEXT), day=NEXT)
    aggregated(lake)
    assert not (tmp_path / paths.aggregate("usage", meter.name, NEXT)).exists()
    assert recomputed(aggregated(lake)) == {}


def test_lost_state_is_rebuilt_from_the_aggregates_metadata(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"))
    aggregated(lake)
    state = tmp_path / paths.state(meter.name)
    before = state.read_bytes()
    state.unlink()
    assert recomputed(aggregated(lake)) == {}
    assert state.read_bytes() == before


def test_rebuild_computes_every_partition_and_withdraws_what_has_no_events(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"))
    gone = put(lake, meter, "b.parquet", event("x", day=NEXT), day=NEXT)
    aggregated(lake)
    gone.unlink()
    assert recomputed(aggregated(lake, rebuild=True)) == {DAY: "rebuild", NEXT: "vanished"}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


def test_an_added_optional_dimension_is_null_in_old_files(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    meter = define(
        lake, dimensions=[*METER["dimensions"], {"name": "seats", "type": "number", "required": False}]
    )
    put(lake, meter, "b.parquet", event("b", seats=1.5))
    assert recomputed(aggregated(lake)) == {DAY: "definition changed, files added"}
    rows = lake.usage(meter.name).select("plan", "seats", "quantity").collect().rows()
    assert rows == [("pro", None, Decimal(1)), ("pro", 1.5, Decimal(1))]


@pytest.mark.parametrize(
    "change", [{"required": False}, {"deprecated": True}], ids=["optional", "deprecated"]
)
def test_a_dimension_that_needs_no_value_any_more_lets_rows_count_that_did_not(
    tmp_path: Path, change: dict[str, bool]
) -> None:
    plan = {"name": "plan", "type": "string"}
    lake, meter = a_lake(tmp_path, dimensions=[plan])
    put(lake, meter, "a.parquet", event("a"), event("b", plan=None))
    assert aggregated(lake).quarantined == {"dimension_missing": 1}
    meter = define(lake, dimensions=[plan | change])
    file = put(lake, meter, "b.parquet", event("c"))
    pl.read_parquet(file, hive_partitioning=False).drop("plan").write_parquet(file)
    assert recomputed(aggregated(lake)) == {DAY: "definition changed, files added"}
    assert lake.usage(meter.name).select("plan", "events").collect().rows() == [(None, 2), ("pro", 1)]


def test_an_invalid_row_of_a_producer_is_kept_in_quarantine_once_and_never_counted(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    early = event("ok", received_at=event("k")["received_at"] - MINUTE, quantity="-5")
    put(
        lake,
        meter,
        "a.parquet",
        event("ok"),
        early,
        event("far", day=NEXT),
        event("bad", subject="no spaces"),
    )
    report = aggregated(lake)
    assert report.quarantined == {"quantity_not_positive": 1, "subject_invalid": 1, "wrong_partition": 1}
    assert report.exit_code == 1
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    put(lake, meter, "b.parquet", event("ok2"))
    assert aggregated(lake).quarantined == {}
    kept = pl.read_parquet(tmp_path / paths.quarantine(meter.name)).sort("position")
    assert kept["reason"].to_list() == ["quantity_not_positive", "wrong_partition", "subject_invalid"]
    assert kept["position"].to_list() == [2, 3, 4]
    assert json.loads(kept["raw"][2])["subject"] == "no spaces"


BROKEN_FILES = {
    "zero bytes": (b"", "unreadable file"),
    "not parquet": (b"PAR1 nothing more", "unreadable file"),
}


@pytest.mark.parametrize(("body", "what"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_an_unreadable_file_is_named_at_every_run_and_the_others_count(
    tmp_path: Path, body: bytes, what: str
) -> None:
    lake, meter = a_lake(tmp_path)
    bad = put(lake, meter, "bad.parquet", event("a"))
    bad.write_bytes(body)
    put(lake, meter, "good.parquet", event("b"))
    for _ in range(2):
        report = aggregated(lake)
        assert [(problem["what"], problem["where"]) for problem in report.errors] == [
            (what, paths.events(meter.name, DAY) + "bad.parquet")
        ]
        assert report.exit_code == 1
    assert bad.read_bytes() == body
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    put(lake, meter, "bad.parquet", event("a"))
    assert aggregated(lake).errors == []
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2))]


def test_a_damaged_page_is_found_when_it_is_read(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    bad = put(lake, meter, "bad.parquet", *(event(f"key {n}", subject=f"s{n}") for n in range(1000)))
    body = bytearray(bad.read_bytes())
    body[20:400] = bytes(380)
    bad.write_bytes(body)
    put(lake, meter, "good.parquet", event("b"))
    report = aggregated(lake)
    assert [problem["what"] for problem in report.errors] == ["damaged file"]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert aggregated(lake).partitions == []


WRONG_COLUMNS = {
    "a wrong type": (pl.lit(b"1").alias("quantity"), "column 'quantity' is wrong", "large_binary"),
    "a naive time": (
        pl.col("timestamp").dt.replace_time_zone(None),
        "column 'timestamp' is wrong",
        "timestamp[us]",
    ),
}


@pytest.mark.parametrize(("change", "what", "found"), WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_a_wrongly_typed_file_is_named_with_what_was_found(
    tmp_path: Path, change: pl.Expr, what: str, found: str
) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    pl.read_parquet(file).with_columns(change).write_parquet(file)
    (problem,) = aggregated(lake).errors
    assert problem["what"] == what
    assert found in problem["found"]
    assert problem["expected"]


@pytest.mark.parametrize("column", ["idempotency_key", "subject", "quantity", "timestamp", "received_at"])
def test_a_file_without_a_column_is_named(tmp_path: Path, column: str) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    pl.read_parquet(file).drop(column).write_parquet(file)
    (problem,) = aggregated(lake).errors
    assert (problem["what"], problem["found"]) == (f"column {column!r} is wrong", "no such column")


def test_a_producer_may_leave_out_what_is_optional_and_add_the_hive_columns(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    pl.read_parquet(file).drop("plan", "metadata").with_columns(
        meter=pl.lit("x"), date=pl.lit(1)
    ).write_parquet(file)
    assert aggregated(lake).exit_code == 0
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


@pytest.mark.parametrize("day", [dt.date.min, dt.date(1969, 12, 31), dt.date.max])
def test_a_partition_at_the_edge_of_the_calendar_keeps_no_other_from_its_work(
    tmp_path: Path, day: dt.date
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"), event("k", quantity="2"), day=day)
    put(lake, meter, "a.parquet", event("k"))
    report = aggregated(lake)
    assert report.quarantined == {"wrong_partition": 2}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


def test_stray_files_are_named_and_markers_of_other_programs_passed_over(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    for name in ("_SUCCESS", ".a.parquet.crc"):
        (file.parent / name).touch()
    (file.parent / "notes.txt").touch()
    (file.parents[1] / "date=2026-13-45").mkdir()
    (file.parents[1] / "date=2026-13-45" / "a.parquet").touch()
    assert {problem["where"].rsplit("/", 2)[-1] for problem in aggregated(lake).errors} == {
        "notes.txt",
        "a.parquet",
    }


def test_an_unknown_meter_lists_the_known_ones(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path)
    with pytest.raises(BadInputError, match="'active_users'"):
        aggregated(lake, meter="activ_users")


@pytest.mark.parametrize("aggregation", ["sum", "avg"])
def test_columns_and_types_of_the_tables_are_those_the_models_state(tmp_path: Path, aggregation: str) -> None:
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    for table in TABLES:
        found = pl.read_parquet(tmp_path / paths.aggregate(table, meter.name, DAY), hive_partitioning=False)
        assert dict(found.schema) == aggregate_columns(meter, table)


def test_the_result_does_not_depend_on_names_or_order_of_files(tmp_path: Path) -> None:
    events = [event("k", quantity=str(n), plan=plan) for n in (2, 1) for plan in ("b", "a", None)]
    tables = []
    for order in (events, events[::-1]):
        lake, meter = a_lake(tmp_path / str(len(tables)))
        for number, one in enumerate(order):
            put(lake, meter, f"{number}.parquet", one)
        aggregated(lake)
        tables.append(lake.usage(meter.name).collect())
    assert tables[0].equals(tables[1])
    assert tables[0].select("plan", "quantity").rows() == [(None, Decimal(1))]


@pytest.mark.parametrize("column", [True, False])
def test_a_producers_event_without_a_quantity_counts_one_where_events_are_counted(
    tmp_path: Path,
    column: bool,
) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation="count")
    file = put(lake, meter, "a.parquet", event("a", quantity="2"), event("b"))
    rows = pl.read_parquet(file, hive_partitioning=False)
    null = rows.with_columns(quantity=pl.lit(None, rows.schema["quantity"]))
    (null if column else rows.drop("quantity")).write_parquet(file)
    assert aggregated(lake).exit_code == 0
    found = lake.usage_by_subject(meter.name).select("quantity", "quantity_sum", "quantity_min").collect()
    assert found.rows() == [(Decimal(2), Decimal(2), Decimal(1))]


MISNAMED = [("quantity", "Quantity"), ("idempotency_key", "idempotencyKey"), ("received_at", "received-at")]


@pytest.mark.parametrize(("name", "misnamed"), MISNAMED)
def test_a_producers_column_that_was_meant_to_be_a_field_is_named(
    tmp_path: Path, name: str, misnamed: str
) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation="count")
    file = put(lake, meter, "a.parquet", event("a", quantity="2"))
    pl.read_parquet(file, hive_partitioning=False).rename({name: misnamed}).write_parquet(file)
    (problem,) = aggregated(lake).errors
    assert (problem["what"], problem["found"]) == (f"column {name!r} is wrong", f"column {misnamed!r}")
    assert f"did you mean {name!r}?" in problem["hint"]
    assert usage(lake, meter) == []
