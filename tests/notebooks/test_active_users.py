"""What the notebook of active users shows, held to SQL over the raw files, and on lakes of every kind."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from demo_lake import demo_folder
from jobs.demo.data import FIRST, TODAY
from jobs.report_page.figures import gather
from lake import Lake
from notebooks.running import NAMES, Shown, run
from support import DAY, a_lake, aggregated, define, event, put

Rows = list[tuple[Any, ...]]
ORDER = {
    "active_users": "plan, workspace, role, source",
    "users": 'plan, workspace, role, "user"',
    "seats": "plan, workspace",
}


@pytest.fixture(scope="module")
def demo_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_folder(tmp_path_factory) / "demo-lake"


@pytest.fixture(scope="module")
def shown(demo_lake: Path) -> Shown:
    return run("active_users", demo_lake)


@pytest.fixture(scope="module")
def sql(demo_lake: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the tables `active_users`, `users` and `seats`: of each key the winner, where raw events are left."""
    with duckdb.connect() as database:
        for meter, dimensions in ORDER.items():
            database.execute(f"""
                create table {meter} as select * exclude (meter, date), date::date as date
                from read_parquet('{demo_lake}/events/meter={meter}/**/*.parquet', hive_partitioning = true)
                qualify row_number() over (partition by idempotency_key
                    order by received_at, timestamp, quantity, subject, {dimensions}) = 1
            """)
        yield database


def _inputs(lake: Path, *names: str) -> list[dict[str, Any]]:
    """The events of the demo's input files that are valid."""
    lines = [line for name in names for line in (lake / "input" / f"{name}.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in lines if "broken" not in line and line.endswith("}}")]


def test_meters_are_chosen_by_their_definitions(shown: Shown) -> None:
    chosen = shown.table("answers for", "meter", "aggregation", "unit", "dimensions", "newest usage")
    assert [row[:3] for row in chosen] == [
        ("activity", "active_users", "sum"),
        ("users", "users", "unique_count"),
        ("seats", "seats", "last"),
    ]
    assert "June 2026\n" in shown.text


@pytest.mark.parametrize(
    ("who", "counted"), [("customers", "active_users.subject"), ("users", 'users."user"')]
)
def test_active_on_a_day_in_a_week_and_in_a_month(
    shown: Shown, sql: duckdb.DuckDBPyConnection, who: str, counted: str
) -> None:
    windows = ", ".join(
        f"(select count(distinct {counted}) from {counted.split('.', maxsplit=1)[0]} where date between day - {days - 1} and day)"
        for days in (1, 7, 30)
    )
    days = f"select unnest(generate_series(date '{FIRST}', date '{TODAY}', interval 1 day))::date as day"
    expected = sql.sql(f"select day, {windows} from ({days}) order by day").fetchall()
    assert shown.names["curves"][who].rows() == expected
    assert len(expected) == 91
    last = shown.table("active", "day", "on a day", "in 7 days", "in 30 days", "stickiness %")
    (row,) = (row for row in last if row[0] == who)
    assert row[1:5] == expected[-1]
    assert row[5] == pytest.approx(100 * sum(each[1] for each in expected[-30:]) / 30 / expected[-1][3])


def test_what_changed_against_the_month_before(shown: Shown, sql: duckdb.DuckDBPyConnection) -> None:
    levels = "select arg_max(quantity, (timestamp, received_at)) from seats where month(date) = m group by subject, workspace"
    expected = sql.sql(f"""
        select (select count(distinct subject) from active_users where month(date) = m),
            (select count(distinct "user") from users where month(date) = m),
            (select sum(quantity) from active_users where month(date) = m),
            (select sum(level) from ({levels}) as levels(level))
        from (values (5), (6)) as months(m) order by m
    """).fetchall()
    printed = shown.table("what", "May 2026", "June 2026", "change", "change %")
    assert [row[1] for row in printed] == list(expected[0])
    assert [row[2] for row in printed] == list(expected[1])
    assert expected[1][3] == 168
    for _, before, now, change, percent in printed:
        assert change == now - before
        assert percent == pytest.approx(float(100 * change / before))


def test_new_returned_and_lost_customers(shown: Shown, demo_lake: Path) -> None:
    months = defaultdict[str, set[int]](set)
    for said in _inputs(demo_lake, "activity", "history", "late"):
        # As months since those of 2025, where the first history is.
        date = dt.date.fromisoformat(said["timestamp"][:10])
        months[said["subject"]].add(12 * (date.year - 2025) + date.month)
    expected = defaultdict[tuple[dt.date, str], int](int)
    for month in (16, 17, 18):
        for there in months.values():
            is_there, was_there = month in there, month - 1 in there
            if is_there:
                state = "stayed" if was_there else "new" if min(there) == month else "returned"
            else:
                state = "lost" if was_there else ""
            expected[dt.date(2026, month - 12, 1), state] += -1 if state == "lost" else 1
    flow = shown.names["flow"].unpivot(index="month").filter(pl.col("value") != 0)
    assert {(month, state): count for month, state, count in flow.rows()} == {
        key: count for key, count in expected.items() if key[1]
    }
    moved = shown.table("customer", "state", "before", "now")
    assert [row[1] for row in moved].count("lost") == 4
    assert ("org_cyberdyne", "new", 0, 30) in moved


def test_top_customers_and_the_values_of_dimensions(shown: Shown, sql: duckdb.DuckDBPyConnection) -> None:
    for field in ("subject", "plan", "workspace", "role", "source"):
        expected = sql.sql(f"""
            select {field}, sum(quantity) filter (month(date) = 6) as now,
                sum(quantity) filter (month(date) = 5)
            from active_users group by all having now > 0 order by now desc, 1
        """).fetchall()
        found = shown.names["top"] if field == "subject" else shown.names["values"](field)
        rows = found.select("name", "now", "before").with_columns(pl.col("before").replace(0, None)).rows()
        assert rows == expected[: len(rows)]
        assert len(rows) == min(len(expected), 10 if field == "subject" else len(expected))


def test_seats_to_bill_and_how_many_are_used(shown: Shown, sql: duckdb.DuckDBPyConnection) -> None:
    expected = sql.sql("""
        with levels as (select subject, arg_max(quantity, (timestamp, received_at)) as level
                from seats where month(date) = 6 group by subject, workspace),
            billed as (select subject, sum(level) as seats from levels group by subject having sum(level) > 0),
            used as (select subject, count(distinct "user") as users from users where month(date) = 6 group by subject)
        select subject, seats, users, 100.0 * users / seats from billed full join used using (subject)
        order by seats desc, subject
    """).fetchall()
    printed = shown.table("customer", "seats", "users", "used %")
    assert [row[:3] for row in printed] == [row[:3] for row in expected]
    assert [row[3] for row in printed] == pytest.approx([float(row[3]) for row in expected])


def test_levels_are_the_last_snapshots_carried_on(shown: Shown, demo_lake: Path) -> None:
    snapshots = defaultdict[str, dict[tuple[str, str], int]](dict)
    for said in sorted(_inputs(demo_lake, "seats"), key=lambda said: said["timestamp"]):
        workspace = said["subject"], said["metadata"]["workspace"]
        snapshots[said["timestamp"][:10]][workspace] = said["quantity"]
    last: dict[tuple[str, str], int] = {}
    found = shown.names["lines"]
    assert list(found)[1:3] == ["org_acme", "org_globex"]
    for number in range((TODAY - FIRST).days + 1):
        last |= snapshots[f"{FIRST + dt.timedelta(days=number)}"]
        for name, line in found.items():
            levels = [seats for (subject, _), seats in last.items() if name in ("all", subject)]
            assert line["quantity"][number] == sum(levels)


def test_seats_are_the_same_in_notebook_export_page_and_answers(shown: Shown, demo_lake: Path) -> None:
    lake, until = Lake(str(demo_lake)), TODAY + dt.timedelta(days=1)
    month = TODAY.replace(day=1)
    answered = lake.query("seats", month, until, bucket="month", by=["subject"]).collect()
    seats = dict(answered.select("subject", "quantity").rows())
    assert (seats["org_acme"], sum(seats.values())) == (61, 168)
    whole = lake.query("seats", month, until, bucket="month").collect()
    assert (
        whole["quantity"].to_list() == lake.totals("seats", (), month, until).collect()["quantity"].to_list()
    )
    assert whole["quantity"].item() == 168
    exported = lake.exported("seats", f"{month:%Y-%m}").collect()
    assert dict(exported.select("subject", "quantity").rows()) == seats
    # Those that have left have 0 there.
    drawn = dict(shown.names["billed"].select("customer", "seats").rows())
    assert drawn == {subject: level for subject, level in seats.items() if level}
    assert shown.names["lines"]["all"]["quantity"][-1] == 168
    page = gather(lake, until, TODAY.day)
    (figures,) = (each for each in page.meters if each.status.meter == "seats")
    assert figures.quantity == "168"
    (ranking,) = (each for each in figures.rankings if each.field == "subject")
    assert all(Decimal(bar.quantity) == seats[str(bar.name)] for bar in ranking.bars)
    assert (ranking.bars[0].name, ranking.bars[0].quantity) == ("org_acme", "61")
    answer = page.answers.seats
    assert answer is not None
    assert answer.rows is not None
    assert answer.total is not None
    rows: list[Any] = [*answer.rows.rows]
    assert {row.subject: Decimal(row.seats) for row in rows} == drawn
    assert answer.total.seats == "168"


def test_who_has_gone_quiet(shown: Shown, sql: duckdb.DuckDBPyConnection) -> None:
    expected = sql.sql(f"""
        select subject, max(date), count(distinct date) as days, date '2026-07-01' - max(date) as ago
        from active_users where date >= date '{FIRST}' group by subject having ago > 14 order by days desc, subject
    """).fetchall()
    assert shown.table("customer", "last active", "active days", "days ago") == expected
    assert len(expected) == 4


def test_cohorts_are_those_of_the_input(shown: Shown, demo_lake: Path) -> None:
    weeks = defaultdict[str, set[dt.date]](set)
    for said in _inputs(demo_lake, "activity", "history", "late"):
        date = dt.date.fromisoformat(said["timestamp"][:10])
        weeks[said["subject"]].add(date - dt.timedelta(days=date.weekday()))
    last = dt.date(2026, 6, 22)
    lives = defaultdict[tuple[dt.date, int], list[bool]](list)
    for there in weeks.values():
        born = min(there)
        if born >= dt.date(2026, 3, 30):
            for age in range((last - born).days // 7 + 1):
                lives[born.replace(day=1), age].append(born + dt.timedelta(weeks=age) in there)
    expected = [
        (joined, age, 100 * sum(active) / len(active), len(active))
        for (joined, age), active in sorted(lives.items())
    ]
    found = shown.names["stay"].with_columns(pl.col("joined").dt.date())
    assert found.select("joined", "age", "percent", "customers").rows() == expected
    assert {joined for joined, *_ in expected} == {dt.date(2026, month, 1) for month in (4, 5, 6)}


def _used(lake: Path, **definition: Any) -> tuple[Lake, Any]:
    """A lake with a meter of two customers' usage of one day."""
    made, meter = a_lake(lake, **definition)
    put(made, meter, "a.parquet", event("a", quantity="2.5"), event("b", "org_2"))
    aggregated(made)
    return made, meter


@pytest.mark.parametrize("aggregation", ["sum", "avg", "rate"])
def test_a_lake_with_one_meter_without_dimensions(tmp_path: Path, aggregation: str) -> None:
    lake, meter = _used(tmp_path, name="api calls", aggregation=aggregation, dimensions=[])
    shown = run("active_users", tmp_path)
    is_gauge = aggregation in ("avg", "max")
    chosen = [row[:2] for row in shown.tables[0].rows()]
    assert chosen == [("activity", meter.name), ("users", None), ("seats", meter.name if is_gauge else None)]
    assert shown.table("active", "day", "on a day", "in 7 days", "in 30 days", "stickiness %")[0][:5] == (
        "customers",
        DAY,
        2,
        2,
        2,
    )
    june = lake.totals(meter.name, ["subject"], DAY.replace(day=1), dt.date(2026, 7, 1)).collect()
    moved = shown.table("customer", "state", "before", "now")
    assert sorted((row[0], row[3]) for row in moved) == june.select("subject", "quantity").rows()
    assert ("there are no seats" in shown.text) == (not is_gauge)
    assert "as far as it has come: up to 2026-06-19" in shown.text


def test_a_gauge_with_series_alone(tmp_path: Path) -> None:
    _used(tmp_path, name="storage", unit="GB", aggregation="last", series=["plan"])
    shown = run("active_users", tmp_path)
    assert shown.table("customer", "seats", "users", "used %") == [
        ("org_1", Decimal("2.5"), None, None),
        ("org_2", Decimal(1), None, None),
    ]
    # Named once, though it is activity and levels.
    printed = shown.table("what", "May 2026", "June 2026", "change", "change %")
    assert [row[:3] for row in printed] == [
        ("active customers", 0, 2),
        ("storage: last of GB", 0, Decimal("3.5")),
    ]


def test_names_of_every_kind(tmp_path: Path) -> None:
    types = {"service.tier": "string", "share": "string", "distinct": "number", "bucket_start": "boolean"}
    dimensions = [{"name": name, "type": kind, "required": False} for name, kind in types.items()]
    lake, meter = a_lake(tmp_path, name="a/b = ü%", unit="€", dimensions=dimensions)
    odd = {"service.tier": "größe $x$ 企業", "share": "<b>", "distinct": 1.5, "bucket_start": True}
    put(lake, meter, "a.parquet", event("a", **odd), event("b", "org_2", share=""), event("c", "org_2"))
    user = {"name": "user.id", "type": "string", "required": False}
    users = define(lake, name="who", aggregation="unique_count", unique="user.id", dimensions=[user])
    put(lake, users, "a.parquet", event("a", **{"user.id": "ü"}), event("b", "org_3", **{"user.id": None}))
    aggregated(lake)
    shown = run("active_users", tmp_path, draw=True)
    assert [row[:5][2] for row in shown.tables[1].rows()] == [2, 1]
    values = shown.names["values"]
    assert values("service.tier")["name"].to_list() == ["(none)", "größe $x$ 企業"]
    assert values("share").select("name", "now").rows() == [("", 1), ("(none)", 1), ("<b>", 1)]
    assert values("distinct")["name"].to_list() == ["(none)", "1.5"]
    assert values("bucket_start")["name"].to_list() == ["(none)", "true"]


@pytest.mark.parametrize(
    ("has_meter", "settings", "message"),
    [
        (False, {}, "This lake has no meters yet"),
        (True, {"PERIOD": "2030-01"}, "active_users has no usage yet"),
    ],
)
def test_a_lake_without_usage_is_named_as_such(
    tmp_path: Path, has_meter: bool, settings: dict[str, str], message: str
) -> None:
    Lake.init(str(tmp_path))
    if has_meter:
        a_lake(tmp_path)
    shown = run("active_users", tmp_path, **settings)
    assert message in shown.text
    assert "Nobody is new" in shown.text


def test_a_meter_that_cannot_be_read_is_named_and_passed_over(tmp_path: Path) -> None:
    _used(tmp_path, dimensions=[])
    (tmp_path / "meters" / "a.json").write_text("{")
    for name in NAMES:
        assert "meters/a.json" in run(name, tmp_path).text


def test_a_month_without_usage_is_named_as_such(demo_lake: Path) -> None:
    shown = run("active_users", demo_lake, PERIOD="2030-01")
    assert "active_users has no usage in" in shown.text
    assert "its newest is of 2026-06-30: set PERIOD" in shown.text


def test_the_meters_can_be_chosen(demo_lake: Path) -> None:
    shown = run("active_users", demo_lake, METER="users", PERIOD="2026-05")
    assert shown.tables[0]["meter"].to_list() == ["users", "users", "seats"]
    assert "May 2026\n" in shown.text
    assert shown.names["dimensions"] == ["plan", "workspace", "role"]
