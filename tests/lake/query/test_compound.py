"""Shares, comparisons and ratios of questions against SQL over the raw events, before and after retention."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEEP
from lake import Lake
from lake.meters import save_meter
from oracle.generate import Spec, generate, meter_body, write_lake
from oracle.tables import Oracle
from schemas.meter import parse_meter
from support import aggregated, retained

# 90 dates from a Monday, the begin of a month and of a quarter; the first 40 of them get sealed.
FIRST, DATES, SEALED = dt.date(2024, 1, 1), 90, 40
METERS = ("sum", "rate", "avg", "max", "last")
SPEC = Spec(events=900, dates=DATES, first_date=FIRST, subjects=9, seed=4, large=0.05)
VALUES = {
    "sum": "sum(quantity)",
    "max": "max(quantity)",
    "last": "arg_max(quantity, {'at': \"timestamp\", 'received': received_at, 'quantity': quantity})",
}
# Distinct values of a field of a meter, in place of its quantity.
DISTINCT = {"subjects": ("sum", "subject"), "tiers": ("max", "service.tier")}
VALUES |= {name: f'count(distinct "{field}")' for name, (_, field) in DISTINCT.items()}
# Each as a fraction of two exact numbers; the seconds of a bucket cancel each other out in a share.
PARTS = VALUES | {"avg": "sum(quantity)", "rate": "count(*)"}
GROUPS = [(), ("plan",), ("subject",), ("plan", "service.tier"), ("trial",)]
FILTERS = ["true", "plan in ('pro', 'Team')", "not (trial = true) or subject = 'acct-00000'"]
# Ranges of whole buckets within the open dates.
RANGES = {
    "day": (dt.date(2024, 3, 1), dt.date(2024, 3, 8)),
    "week": (dt.date(2024, 2, 19), dt.date(2024, 3, 25)),
    "month": (dt.date(2024, 2, 1), dt.date(2024, 4, 1)),
    "quarter": (dt.date(2024, 1, 1), dt.date(2024, 7, 1)),
    "year": (dt.date(2024, 1, 1), dt.date(2025, 1, 1)),
}

asked = st.tuples(st.sampled_from(list(RANGES)), st.sampled_from(GROUPS), st.sampled_from(FILTERS))


def named(name: str) -> tuple[str, dict[str, str], str]:
    """The meter that is meant, what it is asked, and the column of the answer."""
    meter, field = DISTINCT.get(name, (name, None))
    return (meter, {"distinct": field}, "distinct") if field else (meter, {}, "quantity")


few = settings(max_examples=300 if DEEP else 10)


class Events(NamedTuple):
    """A lake, and the events that count by meter."""

    lake: Lake
    winning: dict[str, duckdb.DuckDBPyConnection]


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Events:
    """A lake with events on every fourth date."""
    lake = Lake.init(str(tmp_path_factory.mktemp("lake")))
    winning = {}
    for name in METERS:
        body = meter_body(name, name)
        save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "test"))
        events = generate(Spec(**SPEC.__dict__ | {"zeros": 0.0 if name in ("sum", "rate") else 0.3}))
        write_lake(lake.url, name, events.filter(pl.col("timestamp").dt.ordinal_day() % 4 == 1), 1, 1)
        winning[name] = duckdb.connect()
        winning[name].execute("set TimeZone = 'UTC'")
        winning[name].execute(f"create table winning as {Oracle(lake.url, body).winners_sql()}")
    assert aggregated(lake).exit_code == 0
    return Events(lake, winning)


@pytest.fixture(scope="module", params=["before", "after"])
def events(unsealed: Events, request: pytest.FixtureRequest) -> Events:
    """The lake before retention, and after it."""
    if request.param == "after":
        assert retained(unsealed.lake, FIRST + dt.timedelta(days=SEALED + 90)).exit_code == 0
    return unsealed


def names(by: Sequence[str]) -> str:
    return "".join(f', "{name}"' for name in by)


def states(  # noqa: PLR0917 - a question has this many parts
    events: Events, meter: str, bucket: str, by: Sequence[str], where: str, zone: str = "UTC"
) -> list[tuple[Any, ...]]:
    """Bucket, group, usage, usage before, and state, by SQL's windows over all events, in order."""
    since, until = RANGES[bucket]
    connection = events.winning[named(meter)[0]]
    begin = f"date_trunc('{bucket}', \"timestamp\" at time zone '{zone}')"
    step = f"interval 1 {bucket}"
    order = ", ".join(f"{name} nulls first" for name in ["1", *(f'"{name}"' for name in by)])
    return (
        connection.sql(f"""
        with used as (
            select {begin} as b{names(by)}, cast({VALUES[meter]} as decimal(38, 9)) as v
            from winning where {where} group by all
        ), placed as (
            select *, lag(b) over groups as earlier, lag(v) over groups as earlier_v, lead(b) over groups as later
            from used where v > 0 window groups as (partition by 0{names(by)} order by b)
        ), answer as (
            select b{names(by)}, v, if(earlier = b - {step}, earlier_v, 0) as before,
                case when earlier is null then 'new' when earlier = b - {step} then 'active' else 'returned' end as state
            from placed
            union all
            select b + {step}{names(by)}, 0, v, 'lost' from placed where later is distinct from b + {step}
            union all
            select b{names(by)}, 0, 0, null from used where v = 0 and not exists (
                from placed where {" and ".join([f"placed.b = used.b - {step}", *(f'placed."{name}" is not distinct from used."{name}"' for name in by)])}
            )
        )
        select b at time zone '{zone}'{names(by)}, v, before, state from answer
        where b >= timestamp '{since}' and b < timestamp '{until}' order by {order}
        """)
        .pl()
        .rows()
    )


@pytest.mark.parametrize("name", ["sum", "max", "last", "subjects", "tiers"])
@few
@given(asked)
def test_states_are_those_of_windows_over_all_events(
    events: Events, name: str, question: tuple[Any, tuple[str, ...], str]
) -> None:
    bucket, by, where = question
    meter, more, value = named(name)
    asked = {"bucket": bucket, "by": by, "where": _filter(where), **more}
    found = events.lake.query(meter, *RANGES[bucket], compare="previous", **asked).collect()
    rows = found.select("bucket_start", *by, value, "usage_before", "usage_state").rows()
    assert rows == states(events, name, bucket, by, where)
    assert (found["usage_change"] == found[value] - found["usage_before"]).all()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("name", ["sum", "subjects"])
def test_days_of_a_zone_are_compared_with_all_dates_before(events: Events, name: str, zone: str) -> None:
    meter, more, value = named(name)
    asked = {"by": ["plan", "subject"], "zone": zone, **more}
    found = events.lake.query(meter, *RANGES["day"], compare="previous", **asked).collect()
    rows = found.select("bucket_start", *asked["by"], value, "usage_before", "usage_state").rows()
    assert rows == states(events, name, "day", asked["by"], "true", zone)
    assert {"new", "returned", "lost"} <= set(found["usage_state"])


def _filter(where: str) -> str | None:
    return None if where == "true" else where


def parts(
    events: Events, meter: str, bucket: str, by: Sequence[str], where: str
) -> dict[tuple[Any, ...], Fraction]:
    """The exact quantity of each bucket and group, of a rate without its seconds."""
    since, until = RANGES[bucket]
    found = events.winning[named(meter)[0]].sql(f"""
        select date_trunc('{bucket}', "timestamp") as b{names(by)}, {PARTS[meter]}, count(*)
        from winning where ({where}) and "timestamp" >= '{since}' and "timestamp" < '{until}' group by all
    """)
    by_event = meter == "avg"
    return {
        tuple(key): Fraction(value) / (events if by_event else 1) for *key, value, events in found.pl().rows()
    }


def rounded(number: Fraction) -> Decimal:
    # Half-even, and not to the 28 digits of a context.
    return Decimal(f"{round(number * 10**9)}e-9")


@pytest.mark.parametrize("name", ["sum", "rate", "subjects"])
@few
@given(asked)
def test_shares_are_of_the_same_question_without_groups(
    events: Events, name: str, question: tuple[Any, tuple[str, ...], str]
) -> None:
    bucket, by, where = question
    totals = parts(events, name, bucket, (), where)
    expected = {
        key: rounded(value / totals[key[:1]]) for key, value in parts(events, name, bucket, by, where).items()
    }
    meter, more, _ = named(name)
    asked = {"bucket": bucket, "by": by, "where": _filter(where), **more}
    found = events.lake.query(meter, *RANGES[bucket], share=True, **asked).collect()
    shares = {tuple(key): share for *key, share in found.select("bucket_start", *by, "share").rows()}
    assert shares == expected
    assert found.drop("share").equals(events.lake.query(meter, *RANGES[bucket], **asked).collect())


@pytest.mark.parametrize(
    ("name", "other"), [("sum", "avg"), ("avg", "last"), ("rate", "sum"), ("max", "rate"), ("tiers", "last")]
)
@few
@given(asked)
def test_ratios_are_of_a_full_outer_join_with_another_meter(
    events: Events, name: str, other: str, question: tuple[Any, tuple[str, ...], str]
) -> None:
    bucket, by, where = question
    mine, its = (exact(events, each, bucket, by, where) for each in (name, other))
    expected = {
        key: (
            key in mine,
            key in its,
            rounded(mine[key] / its[key]) if key in mine and its.get(key) else None,
        )
        for key in mine.keys() | its.keys()
    }
    asked = {"bucket": bucket, "by": by, "where": _filter(where)}
    meter, more, value = named(name)
    found = events.lake.query(meter, *RANGES[bucket], over=other, **asked, **more).collect()
    has = [pl.col(column).is_not_null() for column in (value, "over_quantity")]
    rows = found.select("bucket_start", *by, *has, "ratio").rows()
    assert {tuple(key): (mine, its, ratio) for *key, mine, its, ratio in rows} == expected
    theirs = events.lake.query(other, *RANGES[bucket], **asked).collect()
    assert found.filter(has[1])["over_quantity"].equals(theirs["quantity"].alias("over_quantity"))
    assert found["bucket_start"].is_sorted()


def exact(
    events: Events, meter: str, bucket: str, by: Sequence[str], where: str
) -> dict[tuple[Any, ...], Fraction]:
    found = parts(events, meter, bucket, by, where)
    if meter != "rate":
        return found
    grid = events.lake.query(meter, *RANGES[bucket], bucket=bucket, fill=True).collect()
    lengths = {
        start: (end - start) / dt.timedelta(seconds=1)
        for start, end in grid.select("bucket_start", "bucket_end").rows()
    }
    return {key: value / Fraction(lengths[key[0]]) for key, value in found.items()}
