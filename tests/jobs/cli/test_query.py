"""The commands that answer: `query`, `values`, `export`, in every format, and how they tell what is wrong."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from jobs.cli import app
from lake import Lake
from lake.storage.leased_storage import leased
from support import DAY, a_lake, aggregated, event, put, retained

NEXT = DAY + dt.timedelta(days=1)
JUNE = ("--meter", "active_users", "--from", "2026-06-19", "--to", "2026-06-21")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with two days of usage."""
    lake, meter = a_lake(tmp_path / "lake")
    put(
        lake,
        meter,
        "a.parquet",
        event("x", quantity="0.5"),
        event("y", plan=None, subject="b", quantity="1e9"),
    )
    put(lake, meter, "b.parquet", event("z", plan="=free", quantity="482.7", day=NEXT), day=NEXT)
    aggregated(lake)
    return lake


@pytest.fixture
def meterlake(lake: Lake, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line on the lake."""

    def run(*arguments: str) -> Ran:
        code = app.run(["--lake", lake.url, *arguments])
        ran = Ran(code, *capfd.readouterr())
        assert "Traceback" not in ran.err
        return ran

    return run


def test_a_table_for_people_is_the_default(meterlake: Run) -> None:
    ran = meterlake("query", *JUNE, "--group-by", "plan")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "active_users: sum of user",
        "day         plan       quantity  events",
        "2026-06-19  -      1000000000         1  ████████████████████████",
        "2026-06-19  pro             0.5       1  █",
        "2026-06-20  =free         482.7       1  █",
    ]
    assert (
        "month (Europe/Berlin)" in meterlake("query", *JUNE, "--bucket", "month", "--tz", "Europe/Berlin").out
    )
    assert "hour (UTC)" in meterlake("query", *JUNE, "--bucket", "hour", "--tz", "Europe/Berlin").out
    none = meterlake("query", *JUNE, "--bucket", "none").out.splitlines()
    assert none[1:] == ["    quantity  events", "1000000483.2       3"]
    empty = meterlake("query", "--meter", "active_users", "--from", "2025-01-01", "--to", "2025-01-02")
    assert empty.out.splitlines()[-1] == "nothing was used in this range"


def test_distinct_values_are_counted_in_place_of_the_quantity(meterlake: Run) -> None:
    ran = meterlake("query", *JUNE, "--distinct", "subject", "--rolling", "2")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "active_users: distinct subject in the 2 days up to each",
        "day         distinct  events",
        "2026-06-19         2       2  ████████████████████████",
        "2026-06-20         2       3  ████████████████████████",
    ]
    found = json.loads(meterlake("query", *JUNE, "--distinct", "plan", "--bucket", "none", "--json").out)
    assert (found["distinct"], found["rolling"]) == ("plan", None)
    assert [(row["distinct"], row["events"]) for row in found["rows"]] == [(2, 3)]
    ran = meterlake(
        "query", *JUNE, "--distinct", "plan", "--fill", "--group-by", "subject", "--format", "csv"
    )
    assert ran.out.splitlines()[0] == "bucket_start,bucket_end,subject,distinct,events"
    assert [line.split(",", 2)[2] for line in ran.out.splitlines()[1:]] == [
        "b,0,1",
        "org_1,1,1",
        "b,0,0",
        "org_1,1,1",
    ]


def test_distinct_values_that_can_not_be_counted_are_refused(meterlake: Run) -> None:
    for options, code, message in (
        (("--distinct", "team"), 1, "no field 'team' whose values could be counted"),
        (("--rolling", "7"), 1, "rolling windows are for distinct values"),
        (
            ("--distinct", "plan", "--rolling", "7", "--bucket", "month"),
            1,
            "expected buckets of a day, found bucket month",
        ),
        (("--distinct", "plan", "--rolling", "367"), 2, "'--rolling'"),
        (("--distinct", "plan", "--rolling", "0"), 2, "'--rolling'"),
    ):
        ran = meterlake("query", *JUNE, *options)
        assert (ran.code, ran.out) == (code, "")
        assert message in ran.err


def test_numbers_of_a_table_are_never_cut(meterlake: Run) -> None:
    ran = meterlake("query", *JUNE, "--group-by", "subject,plan", "--measures")
    assert ran.out.count("1000000000") == 6
    assert "2026-06-19T12:00:00Z" in ran.out
    assert "…" not in ran.out


def test_csv_has_exact_text_and_times_as_rfc_3339(meterlake: Run) -> None:
    ran = meterlake("query", *JUNE, "--group-by", "plan", "--group-by", "subject", "--format", "csv")
    assert ran.out.count("\r\n") == 4
    assert list(csv.reader(io.StringIO(ran.out, newline=""), strict=True)) == [
        ["bucket_start", "bucket_end", "plan", "subject", "quantity", "events"],
        ["2026-06-19T00:00:00Z", "2026-06-20T00:00:00Z", "", "b", "1000000000", "1"],
        ["2026-06-19T00:00:00Z", "2026-06-20T00:00:00Z", "pro", "org_1", "0.5", "1"],
        ["2026-06-20T00:00:00Z", "2026-06-21T00:00:00Z", "=free", "org_1", "482.7", "1"],
    ]


def test_json_is_the_question_the_answer_and_what_it_is_from(meterlake: Run) -> None:
    asked = (
        *JUNE,
        "--bucket",
        "none",
        "--filter",
        "plan is null or plan != 'x'",
        "--top",
        "1",
        "--group-by",
        "plan",
    )
    ran = meterlake("query", *asked, "--json")
    assert ran.err == ""
    found = json.loads(ran.out)
    assert found["rows"] == [
        {
            "bucket_start": "2026-06-19T00:00:00Z",
            "bucket_end": "2026-06-21T00:00:00Z",
            "plan": None,
            "quantity": "1000000000",
            "events": 1,
        }
    ]
    assert found["explain"] == {
        "source": "aggregates",
        "table": "usage",
        "why": [],
        "partitions": 2,
        "sealed": 0,
        "out_of_date": {},
        "ambiguous_subjects": 0,
    }
    assert (found["from"], found["unit"], found["top"]) == ("2026-06-19T00:00:00Z", "user", 1)
    assert meterlake("query", *asked, "--format", "json").out == ran.out


def test_what_is_shown_beside_has_columns_in_every_format(meterlake: Run, lake: Lake, tmp_path: Path) -> None:
    asked = (
        "query",
        *JUNE,
        "--group-by",
        "plan",
        "--share",
        "--compare",
        "previous",
        "--over",
        "active_users",
    )
    lines = meterlake(*asked, "--top", "1", "--format", "csv").out.split("\r\n")
    assert lines == [
        "bucket_start,bucket_end,plan,quantity,events,share,usage_before,usage_change,usage_state,over_quantity,ratio",
        "2026-06-19T00:00:00Z,2026-06-20T00:00:00Z,,1000000000,1,1,0,1000000000,new,1000000000,1",
        "2026-06-20T00:00:00Z,2026-06-21T00:00:00Z,,0,0,0,1000000000,-1000000000,lost,,",
        "",
    ]
    found = json.loads(meterlake(*asked, "--json").out)
    assert (found["share"], found["compare"], found["over"]) == (True, "previous", "active_users")
    assert [beside["for"] for beside in found["explain"]["beside"]] == ["total", "before", "over"]
    states = [(row["plan"], row["share"], row["usage_state"]) for row in found["rows"]]
    assert states == [
        *((None, "1", "new"), ("pro", "0", "new")),
        *((None, "0", "lost"), ("=free", "1", "new"), ("pro", "0", "lost")),
    ]
    file = tmp_path / "answer.parquet"
    assert meterlake(*asked, "--format", "parquet", "--output", str(file)).code == 0
    beside = {"share": True, "compare": "previous", "over": "active_users"}
    expected = lake.query("active_users", DAY, NEXT + dt.timedelta(days=1), by=["plan"], **beside).collect()
    assert pl.read_parquet(file).equals(expected)


def test_a_table_has_shares_in_percent_and_names_the_other_meter(meterlake: Run) -> None:
    ran = meterlake(
        "query", *JUNE, "--bucket", "month", "--filter", "plan != 'x'", "--group-by", "plan", "--share"
    )
    assert ran.out.splitlines()[1:] == [
        "month    plan   quantity  events   share",
        "2026-06  =free     482.7       1  99.9 %  ████████████████████████",
        "2026-06  pro         0.5       1   0.1 %  █",
    ]
    ran = meterlake("query", *JUNE, "--bucket", "none", "--over", "active_users", "--explain")
    assert ran.out.splitlines()[0] == "active_users: sum of user; over active_users: sum of user"
    assert ran.err.splitlines()[2:] == [
        "explain: meter active_users, answered from: aggregates (table usage_by_subject)",
        "explain: dates with data in the range: 2, of them sealed: 0",
    ]
    ran = meterlake("query", *JUNE, "--compare", "previous", "--explain")
    assert ran.err.splitlines()[2] == (
        "explain: the bucket before, from 2026-06-18T00:00Z, answered from: aggregates (table usage_by_subject)"
    )


def test_dates_of_a_comparison_that_are_out_of_date_are_noted(meterlake: Run, lake: Lake) -> None:
    put(lake, lake.meter("active_users"), "c.parquet", event("late"))
    ran = meterlake("query", *JUNE[:3], "2026-06-20", *JUNE[4:], "--compare", "previous")
    assert ran.err.startswith("note: 1 date of meter 'active_users' is out of date: 2026-06-19 (files added)")


def test_parquet_keeps_every_type(meterlake: Run, lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "answer.parquet"
    ran = meterlake("query", *JUNE, "--measures", "--format", "parquet", "--output", str(file))
    assert (ran.code, ran.out) == (0, f"2 rows in {file}\n")
    expected = lake.query("active_users", DAY, NEXT + dt.timedelta(days=1), measures=True).collect()
    assert pl.read_parquet(file).equals(expected)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["answer.parquet"]
    ran = meterlake("query", *JUNE, "--format", "csv", "--output", str(tmp_path / "none/answer.csv"))
    assert ran.code == 3
    assert "could not write the answer" in ran.err


def test_explain_says_what_was_used_and_why(meterlake: Run) -> None:
    ran = meterlake("query", *JUNE, "--explain")
    assert ran.err.splitlines()[0] == "explain: answered from: aggregates (table usage_by_subject)"
    ran = meterlake("query", *JUNE, "--explain", "--filter", "quantity > 1", "--bucket", "hour")
    assert ran.err.splitlines()[:3] == [
        "explain: answered from: events",
        "explain: because: hours are smaller than the dates of the aggregates",
        "explain: because: the filter looks at the quantity of single events",
    ]
    assert "2026-06-20 12:00" in ran.out


def test_an_answer_from_aggregates_that_are_out_of_date_says_so(meterlake: Run, lake: Lake) -> None:
    put(lake, lake.meter("active_users"), "late.parquet", event("late"))
    ran = meterlake("query", *JUNE)
    assert ran.code == 0
    assert ran.err.startswith("note: 1 date of this range is out of date: 2026-06-19 (files added)")


def test_what_only_dropped_events_could_answer_is_refused(meterlake: Run, lake: Lake) -> None:
    retained(lake, DAY + dt.timedelta(days=31))
    assert meterlake("query", *JUNE).code == 0
    ran = meterlake("query", *JUNE, "--bucket", "hour", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["error"]["kind"] == "refused"
    assert "retention has dropped their events" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("query", *JUNE[:-2]), 2, "--to"),
        (("query", *JUNE[:-1], "June"), 2, "expected a date like 2026-06-19"),
        (("query", *JUNE[:-1], "2026-02-30"), 2, "expected a date like 2026-06-19"),
        (("query", *JUNE, "--bucket", "fortnight"), 2, "fortnight"),
        (("query", *JUNE, "--compare", "next"), 2, "next"),
        (
            ("query", *JUNE, "--bucket", "week", "--compare", "previous"),
            1,
            "expected whole weeks of UTC, such as",
        ),
        (("query", *JUNE, "--over", "seats"), 1, "no meter 'seats' in this lake"),
        (("query", *JUNE, "--json", "--format", "csv"), 2, "expected json or nothing beside --json"),
        (("query", *JUNE, "--filter", "plam = 'x'"), 1, "a field: one of subject, plan, quantity"),
        (("query", *JUNE, "--group-by", "plan,"), 1, "can't be grouped by ''"),
        (("query", "--meter", "other", *JUNE[2:]), 1, "no meter 'other' in this lake"),
        (("values", "--meter", "active_users", "--dimension", "region"), 1, "some of subject, plan"),
        (
            ("values", "--meter", "active_users", "--dimension", "plan", "--from", "2026-06-19T00:00"),
            2,
            "found a time",
        ),
        (("export",), 2, "a month is missing"),
        (("export", "--period", "June"), 1, "a month like 2026-06"),
        (("export", "--period", "2026-06", "--meter", "other"), 1, "no meter 'other'"),
        (("export", "--period", "2026-06", "--columns", "all"), 2, "all"),
        (("export", "--verify", ".", "--period", "2026-06"), 2, "expected no --period"),
        (("export", "--verify", "/nowhere"), 1, "nothing to verify"),
    ],
)
def test_what_is_wrong_is_told(meterlake: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = meterlake(*arguments)
    assert (ran.code, said in ran.err) == (code, True), ran.err


def test_values_are_listed_with_their_events(meterlake: Run) -> None:
    ran = meterlake("values", "--meter", "active_users", "--dimension", "plan")
    bar = "█" * 24
    assert ran.out.splitlines() == [
        "plan    events",
        f"(none)       1  {bar}",
        f"=free        1  {bar}",
        f"pro          1  {bar}",
    ]
    ran = meterlake(
        "values", "--meter", "active_users", "--dimension", "plan", "--from", "2026-06-20", "--json"
    )
    assert json.loads(ran.out)["values"] == [{"value": "=free", "events": 1}]


def test_export_tells_what_it_made_and_verifies_it_anywhere(
    meterlake: Run, lake: Lake, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = meterlake("export", "--period", "2026-06", "--group-by", "plan", "--csv-safe")
    assert ran.code == 0
    assert "wrote exports/active_users/period=2026-06/by=plan/csv=safe/revision=0001/" in ran.out
    assert "1 revision exported" in ran.out
    document: Any = json.loads(meterlake("export", "--period", "2026-06", "--close", "--json").out)
    assert document["exports"][0]["closed"] is True
    # No lake is looked for.
    assert app.run(["--lake", "/nowhere", "export", "--verify", f"{lake.url}/exports"]) == 0
    assert [line[:7] for line in capfd.readouterr().out.splitlines()] == ["ok     "] * 2
    next(Path(lake.url).glob("exports/**/usage.csv")).write_text("tampered")
    ran = meterlake("export", "--verify", f"{lake.url}/exports", "--json")
    assert ran.code == 1
    assert [len(each["problems"]) for each in json.loads(ran.out)["revisions"]] in ([1, 0], [0, 1])


def test_an_export_waits_for_no_other_job_unless_asked_to(meterlake: Run, lake: Lake) -> None:
    with leased(lake.storage, "aggregate"):
        ran = meterlake("export", "--period", "2026-06")
        assert ran.code == 1
        assert "aggregate of process" in ran.err
        # Questions and checks only read.
        assert meterlake("query", *JUNE).code == 0
    assert meterlake("export", "--period", "2026-06", "--wait").code == 0


def test_nightly_exports_too(meterlake: Run) -> None:
    ran = meterlake("nightly", "--as-of", "2026-06-25")
    assert ran.code == 0
    steps = [line.split() for line in ran.out.splitlines()[:4]]
    assert steps[0] == ["step", "done", "of", "events", "rows", "size"]
    assert [step[:5] for step in steps[1:]] == [
        ["aggregate", "0", "partitions", "-", "-"],
        ["export", "1", "revision", "-", "2"],
        ["retain", "0", "partitions", "-", "-"],
    ]
    assert "wrote exports/active_users/period=2026-06/revision=0001/" in ran.out


def test_a_night_tells_its_steps_and_retention_its_plan(meterlake: Run, lake: Lake) -> None:
    put(lake, lake.meter("active_users"), "late.parquet", event("late"))
    expired = str(DAY + dt.timedelta(days=31))
    plan = meterlake("retain", "--dry-run", "--as-of", expired)
    first, _, took = plan.out.splitlines()[0].rpartition("; ")
    assert (plan.code, first) == (1, "retain: dry run, nothing touched; nothing to do; 1 warning")
    assert took.endswith(" s")
    before = sum(file.size_bytes for file in lake.storage.list("events/meter=active_users/date=2026-06-19/"))
    lines = meterlake("nightly", "--as-of", expired).out.splitlines()
    kept = f"{before / 1000:.1f} kB"
    assert lines[1].split()[:5] == ["aggregate", "1", "partition", "3", "6"]
    assert lines[3].split()[:5] == ["retain", "1", "partition", "3", "-"]
    assert lines[3].endswith(kept)
    dropped = next(number for number, line in enumerate(lines) if line.startswith("dropped"))
    assert lines[dropped].split() == ["dropped", "dates", "events", "size", "from", "to", "why"]
    assert " ".join(lines[dropped + 1].split()) == (
        f"active_users 1 3 {kept} 2026-06-19 2026-06-19 before 2026-06-20"
    )


@pytest.mark.parametrize(
    ("aggregation", "said"), [("avg", "0.333333333"), ("rate", "0.000011574"), ("last", "1")]
)
def test_quantities_of_every_aggregation_are_decimals_in_all_formats(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], aggregation: str, said: str
) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation=aggregation)
    put(
        lake,
        meter,
        "a.parquet",
        *(event(key, quantity=quantity) for key, quantity in zip("abc", "001", strict=True)),
    )
    put(lake, meter, "b.parquet", *(event(f"{n}", quantity="2", day=NEXT) for n in range(3)), day=NEXT)
    aggregated(lake)
    texts: dict[str, str] = {}
    for form in ("json", "csv"):
        assert app.run(["--lake", lake.url, "query", *JUNE, "--format", form]) == 0
        texts[form] = capfd.readouterr().out
    assert json.loads(texts["json"])["rows"][0]["quantity"] == said
    assert next(csv.DictReader(io.StringIO(texts["csv"])))["quantity"] == said
    answer = tmp_path / "answer.parquet"
    arguments = ["query", *JUNE, "--fill", "--format", "parquet", "--output", str(answer)]
    assert app.run(["--lake", lake.url, *arguments]) == 0
    assert pl.read_parquet_schema(answer)["quantity"] == pl.Decimal(38, 9)
