"""A sum that no decimal(38, 9) holds fails the one date, group or figure that it is of, and nothing else."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.cli import app
from jobs.export.billing import month_of
from jobs.export.job import export
from jobs.export.month import Options
from jobs.export.verify import verify_exports
from jobs.nightly import nightly
from jobs.report_page.figures import gather
from jobs.report_page.render import document
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake
from lake.aggregates import valid_tables
from schemas import event_rules
from schemas.errors import SumTooLargeError
from schemas.validation import check_earlier_aggregate
from support import DAY, a_lake, aggregated, define, event, put, recomputed, retained, usage

DAYS = [DAY + dt.timedelta(days=n) for n in range(4)]
# Two of them have more than 38 digits; four wrap to a number that is above 0.
LARGE = "9" + "0" * 28


@pytest.fixture(autouse=True)
def _earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantities of 29 digits count, as in the first version."""
    monkeypatch.setattr(event_rules, "QUANTITY_LIMIT", 10**29 - 1)
    monkeypatch.setattr(valid_tables, "check_aggregate", check_earlier_aggregate)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two meters; in one, `org_1` has a quantity on each of four dates of which no two can be added."""
    lake, meter = a_lake(tmp_path / "lake")
    for number, day in enumerate(DAYS):
        mine = event(f"k{number}", "org_1", LARGE, day)
        put(lake, meter, "a.parquet", mine, event(f"o{number}", "org_2", "2", day, plan="free"), day=day)
    put(lake, define(lake, name="other"), "a.parquet", event("k"))
    assert aggregated(lake).exit_code == 0
    return lake


def ask(lake: Lake, **options: Any) -> list[tuple[Any, ...]]:
    found = lake.query("active_users", DAYS[0], DAYS[3] + dt.timedelta(days=1), **options)
    return found.drop("bucket_end", "events").collect().rows()


def test_a_date_with_such_a_sum_is_named_and_all_others_go_on(lake: Lake) -> None:
    meter = lake.meter("active_users")
    put(lake, meter, "b.parquet", event("more", "org_1", LARGE), event("late", "org_2", "3"))
    put(lake, meter, "b.parquet", event("later", "org_2", "5", DAYS[1]), day=DAYS[1])
    put(lake, lake.meter("other"), "b.parquet", event("new"))
    before = usage(lake, meter)
    for _ in range(2):
        report = aggregated(lake)
        assert report.exit_code == 1
        (problem,) = report.errors
        assert problem["where"] == f"meter 'active_users', {DAY}"
        assert "subject 'org_1'" in problem["found"]
        put(lake, lake.meter("other"), f"{len(recomputed(report))}.parquet", event("newer"))
    # The date's rows are those of its last aggregation, and the others' are new.
    after = usage(lake, meter)
    assert [row for row in after if row[0] == DAY] == [row for row in before if row[0] == DAY]
    assert (DAYS[1], "org_2", Decimal(7)) in after
    assert usage(lake, lake.meter("other")) == [(DAY, "org_1", Decimal(3))]
    # It is out of date, so it is not dropped.
    refused = retained(lake, DAY + dt.timedelta(days=60))
    (problem, *_) = refused.errors
    assert problem["where"] == f"events/meter=active_users/date={DAY}/"


def test_a_date_with_such_a_sum_is_new_until_it_can_be_computed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("k", "org_1", LARGE), event("l", "org_1", LARGE))
    put(lake, meter, "a.parquet", event("m", "org_2", day=DAYS[1]), day=DAYS[1])
    assert aggregated(lake).exit_code == 1
    assert usage(lake, meter) == [(DAYS[1], "org_2", Decimal(1))]
    file.unlink()
    put(lake, meter, "b.parquet", event("k"))
    assert aggregated(lake).exit_code == 0
    assert usage(lake, meter)[0] == (DAY, "org_1", Decimal(1))


def test_a_date_whose_groups_fit_but_not_their_sum_by_dimension_is_left_out(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k", "org_1", LARGE), event("l", "org_2", LARGE))
    (problem,) = aggregated(lake).errors
    assert problem["found"] == "more: dimension 'plan', value 'pro'"


def test_a_date_that_gets_such_a_sum_from_elsewhere_is_computed_again_by_the_next_run(lake: Lake) -> None:
    meter = lake.meter("active_users")
    # The copy on a later date had won; when it goes, both of a date's quantities count.
    late = {"received_at": dt.datetime(2026, 7, 1, tzinfo=dt.UTC)}
    put(lake, meter, "z.parquet", event("x", "org_1", LARGE, DAYS[1]) | late, day=DAYS[1])
    put(lake, meter, "z.parquet", event("x", "org_1", "1", DAYS[2]), day=DAYS[2])
    assert aggregated(lake).exit_code == 0
    (Path(lake.url) / f"events/meter=active_users/date={DAYS[2]}/z.parquet").unlink()
    for _ in range(2):
        report = aggregated(lake)
        assert [problem["where"] for problem in report.errors] == [f"meter 'active_users', {DAYS[1]}"]


@pytest.mark.parametrize("bucket", ["none", "month"])
def test_a_query_names_meter_bucket_and_group_of_such_a_sum(lake: Lake, bucket: Any) -> None:
    with pytest.raises(SumTooLargeError) as refused:
        ask(lake, bucket=bucket, by=["subject"])
    assert refused.value.where == "meter 'active_users'"
    start = DAYS[0].replace(day=1) if bucket == "month" else DAYS[0]
    assert refused.value.found == f"more: bucket_start {start}T00:00:00+00:00, subject 'org_1'"


def test_other_groups_and_buckets_are_answered(lake: Lake) -> None:
    assert [row[1] for row in ask(lake, bucket="none", where="subject = 'org_2'")] == [Decimal(8)]
    assert len(ask(lake, bucket="day", by=["subject"])) == 8
    assert [row[2] for row in ask(lake, bucket="day", by=["subject"], top=1, where="plan = 'free'")] == [
        2
    ] * 4


@pytest.mark.parametrize(
    "options", [{"top": 1}, {"fill": True}, {"measures": True}, {"where": "quantity > 1"}]
)
def test_no_way_to_ask_turns_such_a_sum_into_a_number(lake: Lake, options: dict[str, Any]) -> None:
    with pytest.raises(SumTooLargeError, match="subject 'org_1'"):
        ask(lake, bucket="none", by=["subject"], **options)


def test_a_rank_by_such_a_sum_is_no_rank_though_each_bucket_fits(lake: Lake) -> None:
    with pytest.raises(SumTooLargeError, match="subject 'org_1'"):
        ask(lake, bucket="day", by=["subject"], top=1)


def test_totals_name_the_group_of_such_a_sum(lake: Lake) -> None:
    with pytest.raises(SumTooLargeError, match=r"meter 'active_users': .* subject 'org_1'"):
        lake.totals("active_users", ["subject"])
    assert lake.totals("active_users", ["subject"], DAY, DAYS[1]).collect().height == 2


def test_an_answer_that_needs_no_such_sum_is_given(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="max")
    for number, day in enumerate(DAYS):
        put(lake, meter, "a.parquet", event(f"k{number}", "org_1", LARGE, day), day=day)
    aggregated(lake)
    assert [row[1] for row in ask(lake, bucket="none")] == [Decimal(LARGE)]


def test_the_command_line_refuses_with_exit_code_1_and_no_traceback(
    lake: Lake, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [
        "query",
        "--meter",
        "active_users",
        "--from",
        str(DAYS[0]),
        "--to",
        "2026-07-01",
        "--bucket",
        "none",
    ]
    assert app.run(["--lake", lake.url, *command]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: meter 'active_users': a sum is too large: expected less than 10^29")


def test_the_page_names_the_figure_and_draws_all_else(lake: Lake) -> None:
    page = gather(lake, DAYS[3] + dt.timedelta(days=1), 30)
    figures = {each.status.meter: each for each in page.meters}
    mine = figures["active_users"]
    assert (mine.quantity, mine.events, len(mine.days)) == ("not computable", 8, 4)
    assert mine.late
    assert figures["other"].quantity == "1"
    assert {problem["what"] for problem in page.status.problems} == {"a sum is too large"}
    assert page.status.exit_code == 1
    assert "not computable" in document(page)


def test_verify_compares_totals_of_any_size(lake: Lake) -> None:
    meter = lake.meter("active_users")
    put(lake, meter, "b.parquet", event("x", "org_3", LARGE, plan="team"))
    assert aggregated(lake).exit_code == 0
    assert verified(lake).errors == []


def test_verify_names_a_date_that_can_no_longer_be_derived(lake: Lake) -> None:
    put(lake, lake.meter("active_users"), "b.parquet", event("more", "org_1", LARGE))
    aggregated(lake)
    assert {problem["what"] for problem in verified(lake).errors} == {"out of date"}


def exported(lake: Lake, **options: Any) -> RunReport:
    with reported(lake, "export") as report:
        export(lake, report, month_of(DAY), meter="active_users", **options)
    return report


def folder(lake: Lake, revision: int, by: str = "") -> Path:
    return Path(lake.url) / f"exports/active_users/period=2026-06/{by}revision={revision:04d}"


def billed(lake: Lake, revision: int) -> dict[str, Decimal]:
    rows = pl.read_parquet(folder(lake, revision) / "usage.parquet", hive_partitioning=False)
    return dict(rows.select("subject", "quantity").iter_rows())


def manifest(lake: Lake, revision: int, by: str = "") -> dict[str, Any]:
    return dict(json.loads((folder(lake, revision, by) / "manifest.json").read_text()))


def checked(lake: Lake) -> list[Any]:
    return [problem for each in verify_exports(Path(lake.url) / "exports") for problem in each.problems]


def test_an_export_bills_all_others_and_names_who_it_leaves_out(lake: Lake) -> None:
    for _ in range(2):
        report = exported(lake)
        assert report.exit_code == 1
        (problem,) = report.errors
        assert problem["where"] == "meter 'active_users', 2026-06"
        assert problem["found"] == "more: subject 'org_1'"
    assert billed(lake, 1) == {"org_2": 8}
    assert manifest(lake, 1)["left_out"] == [{"subject": "org_1"}]
    assert not folder(lake, 2).exists()
    assert checked(lake) == []


def test_an_export_by_dimension_leaves_out_the_row_alone(lake: Lake) -> None:
    more = event("more", "org_1", "4", plan="free")
    put(lake, lake.meter("active_users"), "b.parquet", more)
    aggregated(lake)
    assert exported(lake, options=Options(by=("plan",))).exit_code == 1
    assert manifest(lake, 1, "by=plan/")["left_out"] == [{"subject": "org_1", "plan": "pro"}]
    rows = pl.read_parquet(folder(lake, 1, "by=plan/") / "usage.parquet", hive_partitioning=False)
    assert rows.select("subject", "plan", "quantity").rows() == [("org_1", "free", 4), ("org_2", "free", 8)]


@pytest.mark.parametrize("nights", [True, False])
def test_who_is_left_out_keeps_what_was_billed_until_there_is_a_number(tmp_path: Path, nights: bool) -> None:
    lake, meter = a_lake(tmp_path)

    def revise() -> RunReport:
        if not nights:
            aggregated(lake)
            return exported(lake)
        with reported(lake, "nightly") as report:
            nightly(lake, report, as_of=DAYS[3])
        return report

    put(lake, meter, "a.parquet", event("a", "org_1", "5"), event("b", "org_2", "7"))
    assert revise().exit_code == 0
    large = [
        put(lake, meter, "b.parquet", event(f"l{n}", "org_1", LARGE, DAYS[n]), day=DAYS[n]) for n in (1, 2)
    ]
    put(lake, meter, "c.parquet", event("c", "org_2", "1", DAYS[1]), day=DAYS[1])
    assert [revise().exit_code, revise().exit_code] == [1, 1]
    assert billed(lake, 2) == {"org_2": 8}
    for file in large:
        file.unlink()
    put(lake, meter, "d.parquet", event("d", "org_1", "1", DAYS[1]), day=DAYS[1])
    assert revise().exit_code == 0
    assert billed(lake, 3) == {"org_1": 6, "org_2": 8}
    assert "left_out" not in manifest(lake, 3)
    told = [pl.read_csv(folder(lake, number) / "adjustments.csv", infer_schema=False) for number in (2, 3)]
    columns = ["subject", "quantity_before", "quantity_after"]
    assert [rows.select(columns).rows() for rows in told] == [
        [("org_2", "7.000000000", "8.000000000")],
        [("org_1", "5.000000000", "6.000000000")],
    ]
    assert checked(lake) == []
    assert revise().exit_code == 0
    assert not folder(lake, 4).exists()


def test_a_month_that_lacks_a_row_is_not_closed(lake: Lake) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.export.job.now", lambda: dt.datetime(2026, 8, 1, tzinfo=dt.UTC))
        for _ in range(2):
            report = exported(lake, close=True)
            assert [problem["what"] for problem in report.errors] == [
                "the period can't be closed without a row"
            ]
    assert not (folder(lake, 1).parent / "closed.json").exists()


def test_the_total_of_an_export_has_any_size(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a", "org_1", LARGE, plan="x"), event("b", "org_2", LARGE, plan="y"))
    assert aggregated(lake).exit_code == 0
    assert exported(lake).exit_code == 0
    total = manifest(lake, 1)["files"]["usage.csv"]["totals"]["quantity"]
    assert total == "18" + "0" * 28
    assert checked(lake) == []


def verified(lake: Lake) -> RunReport:
    with reported(lake, "verify") as report:
        verify(lake, report)
    return report
