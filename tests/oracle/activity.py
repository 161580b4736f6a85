"""Generated activity: people in several workspaces and customers, late and twice, and SQL that counts who was active."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import polars as pl

from lake import Lake
from support import retained

from .tables import Oracle

FIRST = dt.date(2026, 2, 20)
DATES = 45
DIMENSIONS: list[dict[str, Any]] = [
    {"name": "plan", "type": "string"},
    {"name": "workspace", "type": "string", "required": False},
    {"name": "user", "type": "string", "required": False},
    {"name": "seats", "type": "number", "required": False},
    {"name": "trial", "type": "boolean", "required": False},
]
INSTANT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "idempotency_key": pl.String(),
        "subject": pl.String(),
        "quantity": pl.Decimal(38, 9),
        "timestamp": INSTANT,
        "received_at": INSTANT,
        "plan": pl.String(),
        "workspace": pl.String(),
        "user": pl.String(),
        "seats": pl.Float64(),
        "trial": pl.Boolean(),
        "metadata": pl.String(),
    }
)


def drop_events(lake: Lake, meter: str, date: dt.date) -> None:
    """Run retention when all dates but the last have expired; those of `date` are gone."""
    retained(lake, FIRST + dt.timedelta(days=DATES + 19))
    assert not (Path(lake.url) / f"events/meter={meter}/date={date}").exists()


def body(name: str, aggregation: str, **more: Any) -> dict[str, Any]:
    """The definition of a meter of this activity."""
    head = {"name": name, "unit": "user", "aggregation": aggregation, "event_retention_days": 20}
    return head | {"dimensions": [dict(each) for each in DIMENSIONS]} | more


def activity(seed: int, events: int, *, zeros: bool = False) -> pl.DataFrame:
    """Events of 45 dates: most people are active on few of them, some are of two customers, some of nobody known.

    Plans change by time, so that the same person counts in two of them; every tenth event comes twice, maybe on
    another date, with another quantity or of another person.
    """
    random = Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(events):
        if rows and random.random() < 0.1:
            copy = random.choice(rows)
            moved = dt.timedelta(days=random.choice((-2, 0, 0, 1)), seconds=random.choice((0, 30)))
            at = min(max(copy["timestamp"] + moved, _midnight(0)), _midnight(DATES) - dt.timedelta(hours=1))
            late = copy["received_at"] + dt.timedelta(hours=random.choice((-1, 0, 50)))
            row = copy | {"timestamp": at, "received_at": max(late, at)}
            rows.append(row | random.choice(({}, {}, {"user": _user(random)}, {"workspace": None})))
        else:
            rows.append(_event(random, number, zeros=zeros))
    return pl.DataFrame(rows, schema=SCHEMA)


class ActivityOracle:
    """What SQL says of the events that win, however many there are of one key."""

    def __init__(self, root: Path, meter_body: dict[str, Any]) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("set TimeZone = 'UTC'")
        self._connection.execute(f"create table winning as {Oracle(root, meter_body).winners_sql()}")

    def distinct(  # noqa: PLR0917 - a question has this many parts
        self,
        field: str,
        bucket: str,
        by: Sequence[str],
        dates: tuple[dt.date, dt.date],
        where: str = "true",
        zone: str = "UTC",
    ) -> pl.DataFrame:
        """`bucket_start`, the fields of `by`, `distinct`, `events`; in order of the first ones, null first."""
        bounds = [f"(timestamp '{day} 00:00:00' at time zone '{zone}')" for day in dates]
        local = f"date_trunc('{bucket}', \"timestamp\" at time zone '{zone}') at time zone '{zone}'"
        start = {"none": bounds[0], "hour": "date_trunc('hour', \"timestamp\")"}.get(bucket, local)
        return self._run(
            f"""
            select {_listed([f"{start} as bucket_start", *_quoted(by)])},
                count(distinct "{field}") as "distinct", count(*) as events
            from winning
            where "timestamp" >= {bounds[0]} and "timestamp" < {bounds[1]} and ({where}) group by all""",
            by,
        )

    def rolling(  # noqa: PLR0917 - a question has this many parts
        self,
        field: str,
        days: int,
        by: Sequence[str],
        dates: tuple[dt.date, dt.date],
        where: str = "true",
        zone: str = "UTC",
    ) -> pl.DataFrame:
        """The same for each day of a zone, of the days that end with it; no event counts from dates[1] on."""
        return self._run(
            f"""
            with days as (
                select cast(unnest(range(date '{dates[0]}', date '{dates[1]}', interval 1 day)) as date) as day
            ), chosen as (
                select *, cast("timestamp" at time zone '{zone}' as date) as local from winning where ({where})
            )
            select {_listed([f"cast(day as timestamp) at time zone '{zone}' as bucket_start", *_quoted(by)])},
                count(distinct "{field}") as "distinct", count(*) as events
            from days join chosen on local > day - {days} and local <= day group by all""",
            by,
        )

    def _run(self, sql: str, by: Sequence[str]) -> pl.DataFrame:
        order = ", ".join(f"{name} nulls first" for name in ["bucket_start", *_quoted(by)])
        frame: pl.DataFrame = self._connection.sql(f"select * from ({sql}) order by {order}").pl()
        return frame


def _event(random: Random, number: int, *, zeros: bool) -> dict[str, Any]:
    day = random.randrange(DATES)
    person = int(40 * random.random() ** 2)
    customer = person % 7 if random.random() < 0.8 else random.randrange(7)
    at = _midnight(day) + dt.timedelta(seconds=random.randrange(86_400))
    return {
        "idempotency_key": f"key-{number}" if random.random() < 0.95 else None,
        "subject": f"org_{customer}",
        "quantity": 0 if zeros and random.random() < 0.2 else random.choice((1, 2, 5)),
        "timestamp": at,
        "received_at": at + dt.timedelta(hours=random.choice((0, 0, 1, 100))),
        "plan": ("free", "pro", "Zürich")[(customer + day // 15) % 3],
        "workspace": random.choice((None, f"{customer}-a", f"{customer}-b", "shared")),
        "user": f"user_{person}" if random.random() < 0.9 else None,
        # Two zeros that are one number.
        "seats": random.choice((None, 0.0, -0.0, 1.5, 10.0)),
        "trial": random.choice((None, True, False)),
    }


def _user(random: Random) -> str:
    return f"user_{random.randrange(40)}"


def _midnight(day: int) -> dt.datetime:
    return dt.datetime.combine(FIRST + dt.timedelta(days=day), dt.time(), dt.UTC)


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts)
