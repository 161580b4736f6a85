"""What the page answers first is what `query` answers, and what DuckDB counts over the daily tables."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from jobs.cli import app
from jobs.report_page.figures import Choice, Page, gather
from jobs.report_page.render import document
from lake import Lake
from support import a_lake, aggregated, define, event, put, retained

APRIL, MAY, JUNE, JULY = (dt.date(2026, month, 1) for month in (4, 5, 6, 7))
DAY = dt.timedelta(days=1)
# Other names than those of the demo.
PEOPLE: dict[str, Any] = {
    "name": "people",
    "unit": "person",
    "aggregation": "unique_count",
    "unique": "who",
    "dimensions": [
        {"name": name, "type": "string", "required": False} for name in ("tariff", "site", "job", "who")
    ],
}
PLACES: dict[str, Any] = {
    "name": "places",
    "unit": "Licenses",
    "aggregation": "last",
    "series": ["site"],
    "dimensions": [{"name": name, "type": "string", "required": False} for name in ("tariff", "site")],
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Customers that join, leave, come back and fall silent; people of several sites; tariffs that change."""
    chance = random.Random(5)
    lake, people = a_lake(tmp_path_factory.mktemp("answers") / "lake", **PEOPLE)
    places = define(lake, **PLACES)
    define(lake, name="noise", aggregation="count")
    for number in range(0, 91, 3):
        day = APRIL + DAY * number
        active = [name for name in "abcdefgh" if _is_customer(name, day)]
        seen = [
            event(
                f"p{name}{who}{day}", f"org_{name}", "1", day,
                tariff="free" if day < MAY else chance.choice(("pro", None)),
                site=f"{name}{who % 2}", job=chance.choice(("dev", "ops")), who=f"{name}{who}" if who else "shared",
            )
            for name in active
            for who in range(5)
            if chance.random() < 0.6
        ]  # fmt: skip
        levels = [
            event(f"s{name}{site}{day}", f"org_{name}", str(chance.randrange(6)), day, site=f"{name}{site}", tariff="pro")
            for name in active
            for site in range(2)
            if chance.random() < 0.7
        ]  # fmt: skip
        put(lake, people, "a.parquet", *seen, day=day)
        put(lake, places, "a.parquet", *levels, day=day)
    assert aggregated(lake).exit_code == 0
    return lake


def _is_customer(name: str, day: dt.date) -> bool:
    """Of a to h: g is lost in June, f returns in June, h is new in June, e falls silent in its middle."""
    away = {"g": day >= JUNE, "f": MAY <= day < JUNE, "h": day < JUNE, "e": day > JUNE + 10 * DAY}
    return not away.get(name)


@pytest.fixture(scope="module")
def page(lake: Lake) -> Page:
    return gather(lake, JULY, 91)


@pytest.fixture(scope="module")
def sql(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """`people` and `places`: the rows of the table `usage` of both meters."""
    with duckdb.connect() as database:
        for name in ("people", "places"):
            files = f"{lake.url}/aggregates/usage/meter={name}/*/part.parquet"
            database.execute(
                f"create view {name} as select * exclude (date), date::date as date "
                f"from read_parquet('{files}', hive_partitioning = true)"
            )
        # Each site of a month with its last level, and the tariff that it then had.
        database.execute("""
            create view sites as
            select date_trunc('month', date)::date as month, subject, site,
                arg_max(quantity_last, last_at) as level, arg_max(coalesce(tariff, ''), last_at) as tariff
            from places group by all
        """)
        yield database


@pytest.mark.parametrize(("curves", "field"), [("customer_curves", "subject"), ("user_curves", "who")])
def test_curves_count_distinct_ones_of_the_days_that_end_with_each_day(
    page: Page, sql: duckdb.DuckDBPyConnection, curves: str, field: str
) -> None:
    found = getattr(page.answers.activity, curves)
    assert [curve.days for curve in found] == [1, 7, 28]
    for curve in found:
        expected = sql.sql(f"""
            select day::date, (select count(distinct {field}) from people
                where date > day - interval {curve.days} day and date <= day)
            from generate_series(date '2026-04-01', date '2026-06-30', interval 1 day) as days(day) order by day
        """).fetchall()
        assert curve.points == expected


def test_weeks_and_months_count_customers_and_users(page: Page, sql: duckdb.DuckDBPyConnection) -> None:
    activity = page.answers.activity
    assert activity is not None
    assert activity.weeks is not None
    assert activity.months is not None
    for found, size in ((activity.weeks, "week"), ([each.count for each in activity.months], "month")):
        expected = sql.sql(f"""
            select date_trunc('{size}', date)::date as start, count(distinct subject), count(distinct who)
            from people group by start having start >= '{found[0].start}' order by start
        """).fetchall()
        assert [(each.start, each.customers, each.users) for each in found][-len(expected) :] == expected
        assert [each.so_far for each in found] == [False] * (len(found) - 1) + [size == "week"]
    assert activity.weeks_left_out == 6
    # The month before the first is there too, to be compared with.
    assert [each.count.start for each in activity.months] == [APRIL, MAY, JUNE]


def test_seats_are_those_of_an_export_and_users_are_held_against_them(
    page: Page, lake: Lake, sql: duckdb.DuckDBPyConnection
) -> None:
    seats = page.answers.seats
    assert seats is not None
    assert seats.rows is not None
    expected = sql.sql("""
        select subject, seats, users, round(users / nullif(seats, 0), 9)
        from (select subject, sum(level) as seats from sites where month = '2026-06-01' group by subject)
        full join (select subject, count(distinct who) as users from people where date >= '2026-06-01' group by subject)
            using (subject)
        where seats > 0 or users > 0 order by seats desc nulls last, users desc, subject
    """).fetchall()
    found = [(row.subject, *map(_number, (row.seats, row.users, row.used))) for row in seats.rows.rows]
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert [float(row[3] or 0) for row in found] == pytest.approx([row[3] or 0 for row in expected])
    assert seats.total is not None
    totals = lake.query("people", JUNE, JULY, bucket="month", over="places").collect().row(0, named=True)
    assert _number(seats.total.seats) == totals["over_quantity"] == sum(row[1] or 0 for row in expected)
    assert (_number(seats.total.users), _number(seats.total.used)) == (totals["quantity"], totals["ratio"])
    levels = dict(sql.sql("select month, sum(level) from sites group by month").fetchall())
    assert (_number(seats.total.before), _number(seats.total.change)) == (
        levels[MAY],
        levels[JUNE] - levels[MAY],
    )
    assert page.answers.activity is not None
    assert page.answers.activity.months is not None
    by_month = {each.count.start: each.seats for each in page.answers.activity.months}
    assert {month: _number(text) for month, text in by_month.items()} == levels


def test_dimensions_are_answered_for_the_month_with_their_seats(
    page: Page, sql: duckdb.DuckDBPyConnection
) -> None:
    assert page.answers.activity is not None
    found = {each.name: each.values for each in page.answers.activity.dimensions}
    # Not the dimension whose values are counted.
    assert [*found] == ["tariff", "site", "job"]
    for name, values in found.items():
        expected = sql.sql(f"""
            select {name}, count(distinct subject), count(distinct who) from people where date >= '2026-06-01'
            group by {name}
        """).fetchall()
        rows: list[Any] = [*values.rows]
        assert {(row.value, row.customers, int(row.quantity)) for row in rows if row.quantity != "0"} <= {
            *expected
        }
        assert values.total >= len(expected)
        assert [int(row.quantity) for row in rows] == sorted(
            (int(row.quantity) for row in rows), reverse=True
        )
    seats = dict(
        sql.sql("select tariff, sum(level) from sites where month = '2026-06-01' group by 1").fetchall()
    )
    rows = [*found["tariff"].rows]
    assert {row.value: _number(row.seats) for row in rows if row.seats} == seats
    # The seats meter has no jobs.
    assert {row.seats for row in [*found["job"].rows]} == {None}


def test_customers_are_new_returned_and_lost_against_the_month_before(page: Page, lake: Lake) -> None:
    assert page.answers.activity is not None
    moved = page.answers.activity.movements
    assert moved is not None
    assert moved.names == {"new": ["org_h"], "returned": ["org_f"], "lost": ["org_g"]}
    assert moved.counts == {"new": 1, "returned": 1, "active": 5, "lost": 1}
    rows = lake.query("people", JUNE, JULY, bucket="month", by=["subject"], compare="previous").collect()
    expected = {row["subject"]: row for row in rows.iter_rows(named=True) if row["usage_change"]}
    changes: list[Any] = [*moved.changes.rows]
    assert {row.subject for row in changes} == {*expected}
    for row in changes:
        numbers = (Decimal(row.before), Decimal(row.quantity), Decimal(row.change))
        known = expected[row.subject]
        assert numbers == (known["usage_before"], known["quantity"], known["usage_change"])
        assert row.state == known["usage_state"]
    assert [abs(int(row.change)) for row in changes] == sorted(
        (abs(int(row.change)) for row in changes), reverse=True
    )
    by_month = {
        each.count.start: (each.new, each.returned, each.lost) for each in page.answers.activity.months or []
    }
    assert by_month == {APRIL: (7, 0, 0), MAY: (0, 0, 1), JUNE: (1, 1, 1)}


def test_who_has_gone_quiet_has_the_date_of_the_last_event(
    page: Page, sql: duckdb.DuckDBPyConnection
) -> None:
    assert page.answers.activity is not None
    quiet = page.answers.activity.quiet
    assert quiet is not None
    expected = sql.sql("""
        select subject, max(last_at)::date as last, date '2026-06-30' - last, count(distinct who)
        from people group by subject having last < '2026-06-17' order by last desc
    """).fetchall()
    rows: list[Any] = [*quiet.rows]
    assert [(row.subject, row.last, row.days, int(row.quantity)) for row in rows] == expected
    assert {row.subject for row in rows} == {"org_e", "org_g"}
    # Who was there within the month has seats in it, and who was not has none.
    assert {row.subject: row.seats is not None for row in rows} == {"org_e": True, "org_g": False}


def test_a_month_that_is_not_over_is_answered_so_far(lake: Lake) -> None:
    middle = JUNE + 14 * DAY
    # History is there: the last month that is over.
    assert gather(lake, middle, 30).answers.month == MAY
    chosen = gather(lake, middle, 30, Choice(month=JUNE)).answers
    assert (chosen.month, chosen.month_until, chosen.is_over) == (JUNE, middle, False)
    assert chosen.activity is not None
    assert chosen.activity.movements is None
    months = chosen.activity.months or []
    assert [(each.count.start, each.count.so_far, each.lost) for each in months] == [
        (MAY, False, 1),
        (JUNE, True, None),
    ]
    expected = lake.query("people", JUNE, middle, bucket="none").collect()["quantity"].item()
    assert months[-1].count.users == expected
    # In the first month nothing is over.
    first = gather(lake, APRIL + 10 * DAY, 30).answers
    assert (first.month, first.is_over) == (APRIL, False)


def test_the_page_says_all_this(lake: Lake, page: Page) -> None:
    text = document(page)
    order = [
        text.index(word)
        for word in (
            "active customers",
            "Who is active",
            "Licenses to bill, and how many are used",
            "New, lost",
            "Gone quiet",
            "The lake",
        )
    ]
    assert order == sorted(order)
    assert "by tariff, site, job" in text
    assert "June 2026 against the month before" in text
    assert document(gather(lake, JULY, 91)) == text


def test_top_says_how_many_rows_there_are_and_shows_more(lake: Lake) -> None:
    few = gather(lake, JULY, 91, Choice(top=2))
    assert few.answers.seats is not None
    assert few.answers.seats.rows is not None
    assert (len(few.answers.seats.rows.rows), few.answers.seats.rows.total) == (2, 7)
    assert '2 of 7 customers; more with <span class="whole">--top</span>' in document(few)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--activity", "places"], "a gauge counts no activity"),
        (["--activity", "nobody"], "nobody"),
        (["--seats", "people"], "can't be added up"),
        (["--meter", "nobody"], "nobody"),
        (["--month", "2026-13"], "a month like 2026-06"),
        (["--month", "2026-07"], "a month out of range"),
        (["--month", "0001-01"], "a month out of range"),
    ],
)
def test_what_makes_no_sense_is_named(
    lake: Lake, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--lake", lake.url, "report", "--json", "--as-of", "2026-06-30", *options]
    assert app.run(command) == 1
    assert expected in capsys.readouterr().err


def test_named_meters_are_answered_about(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "--lake",
        lake.url,
        "report",
        "--json",
        "--as-of",
        "2026-06-30",
        "--activity",
        "noise",
        "--seats",
        "places",
    ]
    assert app.run([*command, "--meter", "places"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"]["activity"]["meter"] == "noise"
    assert [each["status"]["meter"] for each in found["meters"]] == ["places"]
    assert {each["status"]["meter"] for each in found["other_meters"]} == {"noise", "people"}


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def test_answers_stay_when_retention_has_dropped_the_events(lake: Lake, page: Page, tmp_path: Path) -> None:
    copy = shutil.copytree(lake.url, tmp_path / "lake")
    # Copied files are other ones.
    aggregated(Lake(str(copy)))
    assert retained(Lake(str(copy)), dt.date(2026, 8, 1)).exit_code == 0
    assert not [*(copy / "events").rglob("*.parquet")]
    assert gather(Lake(str(copy)), JULY, 91).answers == page.answers


def test_a_report_reads_no_event_data(lake: Lake, tmp_path: Path) -> None:
    """Every event file is spoiled; the listing is as it was."""
    copy = tmp_path / "lake"
    shutil.copytree(lake.url, copy)
    expected = document(gather(Lake(str(copy)), JULY, 91))
    for file in (copy / "events").rglob("*.parquet"):
        stat = file.stat()
        with file.open("r+b") as handle:
            handle.write(b"\0" * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert document(gather(Lake(str(copy)), JULY, 91)) == expected
