"""After any landings, nights, closes and losses of the state, every month's last revision is what SQL says of it."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEEP
from in_memory import FOLDER
from jobs.aggregate.job import aggregate
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.export.verify import verify_exports
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from jobs.status import status
from lake import Lake, paths
from support import METER, a_lake, event, put

NAME = METER["name"]
FIRST, LAST = dt.date(2025, 2, 20), dt.date(2025, 7, 9)
DAYS = [dt.date(2025, month, day) for month in (3, 4, 7) for day in (1, 9)]
MONTHS = ["2025-03", "2025-04", "2025-07"]
EXAMPLES = 300 if DEEP else 6
WINNERS = """
    select strftime("timestamp", '%Y-%m') as month, subject, plan, quantity from (
        select *, row_number() over (
            partition by idempotency_key order by received_at, "timestamp", quantity, subject, plan) as place
        from read_parquet('{}/events/*/*/*.parquet', hive_partitioning = false))
    where place = 1 or idempotency_key is null"""

facts = st.lists(
    st.tuples(
        st.sampled_from([None, *"abcdefgh"]),
        st.sampled_from(["org_1", "org_2", "org_3"]),
        st.integers(1, 10**9),
        st.sampled_from(["free", "pro"]),
        st.integers(-9, 9),
    ),
    min_size=1,
    max_size=4,
)
steps = st.one_of(
    st.tuples(st.just("land"), st.sampled_from(DAYS), facts),
    st.tuples(st.just("land"), st.sampled_from(DAYS), facts),
    st.tuples(st.just("night"), st.sampled_from([0, 20, 50, 139])),
    st.tuples(st.just("close"), st.sampled_from(MONTHS[:-1]), st.booleans()),
    st.tuples(st.just("form"), st.sampled_from(MONTHS)),
    st.tuples(st.just("remove"), st.integers(0, 9)),
    st.tuples(st.just("lose"), st.sampled_from([paths.STATE, paths.INDEX])),
)


def night(lake: Lake, as_of: dt.date) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=as_of)
    assert report.errors == []
    return report


def step(lake: Lake, number: int, what: str, *how: Any) -> None:
    folder = Path(lake.url)
    if what == "land":
        day, rows = how
        events = [
            event(key, subject, str(Decimal(amount) / 10**9), day=day, plan=plan)
            | {"received_at": dt.datetime.combine(day, dt.time(12), dt.UTC) + dt.timedelta(hours=hours)}
            for key, subject, amount, plan, hours in rows
        ]
        put(lake, lake.meter(NAME), f"{number}.parquet", *events, day=day)
    elif what == "night":
        as_of = FIRST + dt.timedelta(days=how[0])
        found = night(lake, as_of)
        assert all(done.period <= f"{as_of:%Y-%m}" for done in found.exports)
    elif what == "remove":
        files = sorted(folder.glob("events/*/*/*.parquet"))
        if files:
            files[how[0] % len(files)].unlink()
    elif what == "lose":
        shutil.rmtree(folder / how[0], ignore_errors=True)
    else:
        options = Options(by=("plan",)) if what == "form" or how[1] else Options()
        with reported(lake, "export") as report:
            aggregate(lake, report)
            export(lake, report, parse_period(how[0]), options=options, close=what == "close")


def told(lake: Lake, month: str, *form: str) -> dict[Any, Decimal] | None:
    """What all revisions of a month come to, by what their keys are; None if there are none."""
    folders = sorted((Path(lake.url) / paths.exports(NAME, month, *form)).glob("revision=*"))
    found: dict[Any, Decimal] = {}
    for folder in folders:
        is_usage = (folder / "usage.parquet").exists()
        rows = pl.read_parquet(folder / ("usage.parquet" if is_usage else "adjustments.parquet"))
        keys = [key for key in ("subject", "plan") if key in rows.columns]
        found = {} if is_usage else found
        for *key, quantity in rows.select(*keys, "quantity" if is_usage else "quantity_after").iter_rows():
            found[tuple(key)] = quantity
    return {key: quantity for key, quantity in found.items() if quantity is not None} if folders else None


def by_sql(lake: Lake, month: str, *keys: str) -> dict[Any, Decimal]:
    if not list(Path(lake.url).glob("events/*/*/*.parquet")):
        return {}
    winners = WINNERS.format(lake.url)
    names = ", ".join(keys)
    rows = duckdb.sql(f"select {names}, sum(quantity) from ({winners}) where month = '{month}' group by all")
    return {tuple(key): quantity for *key, quantity in rows.fetchall()}


@given(plan=st.lists(steps, min_size=6, max_size=14))
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_months_last_revision_is_what_sql_says_of_it(plan: list[tuple[Any, ...]]) -> None:
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    lake, _ = a_lake(folder, event_retention_days=3650)
    for number, (what, *how) in enumerate(plan):
        step(lake, number, what, *how)
    night(lake, LAST)
    for month in MONTHS:
        usage = by_sql(lake, month, "subject")
        assert (told(lake, month) or {}) == usage, month
        assert told(lake, month) is not None or not usage
        by_plan = told(lake, month, "by=plan")
        assert by_plan is None or by_plan == by_sql(lake, month, "subject", "plan"), month
    assert [each.problems for each in _verified(folder) if each.problems] == []
    assert [month for each in status(lake, 0).meters for month in each.exports_due] == []
    assert {done.action for done in night(lake, LAST).exports} <= {"unchanged", "nothing used"}
    shutil.rmtree(folder)


LEVELS = {"aggregation": "last", "series": ["plan"]}
KINDS: dict[str, dict[str, Any]] = {
    "levels": LEVELS,
    "levels that are carried": LEVELS | {"carry_days": 40},
    "averages": {"aggregation": "avg"},
    "values": {"aggregation": "unique_count", "unique": "plan"},
}


@given(
    plan=st.lists(steps, min_size=6, max_size=14),
    kind=st.sampled_from([*KINDS]),
    days=st.sampled_from([30, 3650]),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_months_last_revision_is_what_a_question_answers(
    plan: list[tuple[Any, ...]], kind: str, days: int
) -> None:
    """Before and after retention, for quantities that do not add up."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    lake, _ = a_lake(folder, event_retention_days=days, **KINDS[kind])
    for number, (what, *how) in enumerate(plan):
        if what != "remove" or days > 30:
            step(lake, number, what, *how)
    night(lake, LAST)
    for month in [f"2025-{month:02}" for month in range(3, 8)]:
        since, until = parse_period(month)
        rows = lake.query(NAME, since, until, bucket="month", by=["subject"]).select("subject", "quantity")
        answer = {(subject,): quantity for subject, quantity in rows.collect().iter_rows()}
        assert (told(lake, month) or {}) == answer, month
    assert [each.problems for each in _verified(folder) if each.problems] == []
    assert {done.action for done in night(lake, LAST).exports} <= {"unchanged", "nothing used"}
    due = [month.period for each in status(lake, 0).meters for month in each.exports_due]
    # Levels may be carried into a month that is later than the last night's.
    assert [month for month in due if month <= f"{LAST:%Y-%m}"] == []
    shutil.rmtree(folder)


def _verified(folder: Path) -> list[Any]:
    return verify_exports(folder) if list(folder.rglob(paths.MANIFEST)) else []
