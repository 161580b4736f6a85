"""Generated snapshots of levels, and SQL over the deduplicated raw events that says what gauges with series come to.

Customers change plans, workspaces close (a level of 0), move to another customer and fall silent, events come late, twice
and at the same moment. Levels are compared as whole billionths, so that nothing is rounded on the way.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import polars as pl

from .tables import Oracle

FIRST = date(2026, 1, 25)
DATES = 16
DIMENSIONS: list[dict[str, Any]] = [
    {"name": "plan", "type": "string", "required": False},
    {"name": "workspace", "type": "string", "required": False},
    {"name": "tier", "type": "number", "required": False},
    {"name": "trial", "type": "boolean", "required": False},
]
NAMES = [each["name"] for each in DIMENSIONS]
LEVELS = ("0", "0", "1", "2.5", "7", "0.000000001", "0.333333333", "1000000")
PLANS, TIERS, TRIALS = (None, "", "free", "pro", "Pro", "é"), (None, -0.5, 0.0, 2.0), (None, False, True)
SCHEMA = {
    "idempotency_key": pl.String(),
    "subject": pl.String(),
    "quantity": pl.Decimal(38, 9),
    "timestamp": pl.Datetime("us", "UTC"),
    "received_at": pl.Datetime("us", "UTC"),
    "plan": pl.String(),
    "workspace": pl.String(),
    "tier": pl.Float64(),
    "trial": pl.Boolean(),
    "metadata": pl.String(),
}
Row = tuple[Any, ...]


def body(aggregation: str, name: str, **more: Any) -> dict[str, Any]:
    """A definition of such a gauge."""
    return {"name": name, "unit": "seat", "aggregation": aggregation, "dimensions": DIMENSIONS, **more}


def snapshots(seed: int, events: int = 700) -> pl.DataFrame:
    """Some events of few customers and workspaces."""
    random = Random(seed)
    rows = [_snapshot(random, number) for number in range(events)]
    doubled = random.sample(rows, events // 8)
    again = [row | _other(random, row) for row in doubled]
    # Equal to the microsecond, with other attributes: only those tell which is the last.
    tied = [row | _attributes(random) | {"idempotency_key": None} for row in random.sample(rows, events // 8)]
    return pl.DataFrame(rows + again + tied, schema=SCHEMA)


def _snapshot(random: Random, number: int) -> dict[str, Any]:
    workspace = random.choice((None, "", "w1", "w2", "w3", "w4"))
    # Some are silent for the most of the time.
    last = {"w3": 3, "w4": DATES}.get(workspace or "", 9)
    seconds = random.randrange(last * 24) * 3600 + random.choice((0, 0, 1))
    at = datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(seconds=seconds)
    return {
        "idempotency_key": f"k{number}",
        "subject": random.choice(("org_a", "org_b", "Org.c")),
        "quantity": Decimal(random.choice(LEVELS)),
        "timestamp": at,
        "received_at": at + timedelta(seconds=random.choice((0, 0, 5))),
        "workspace": workspace,
        "metadata": None,
        **_attributes(random),
    }


def _attributes(random: Random) -> dict[str, Any]:
    return {"plan": random.choice(PLANS), "tier": random.choice(TIERS), "trial": random.choice(TRIALS)}


def _other(random: Random, row: dict[str, Any]) -> dict[str, Any]:
    """The same event once more, perhaps on another date or with another level."""
    moved = timedelta(days=random.choice((0, 0, 1)), seconds=1)
    return {
        "timestamp": row["timestamp"] + moved,
        "received_at": row["received_at"] + moved,
        "quantity": Decimal(random.choice(LEVELS)),
    }


class Levels:
    """What gauges with series over one lake's raw events come to, by SQL."""

    def __init__(self, root: Path, meter_body: dict[str, Any]) -> None:
        """Deduplicate the events that are there now."""
        self.series: list[str] = meter_body["series"]
        self.aggregation: str = meter_body["aggregation"]
        self.carry_days: int | None = meter_body.get("carry_days")
        self.connection = duckdb.connect()
        self.connection.execute("set TimeZone = 'UTC'")
        self.connection.execute(f"create table winning as {Oracle(root, meter_body).winners_sql()}")
        self.connection.execute(
            """alter table winning add column billionths hugeint;
            update winning set billionths = cast(replace(cast(quantity as varchar), '.', '') as hugeint)"""
        )

    def answer(
        self,
        grid: Sequence[tuple[datetime, datetime]],
        by: Sequence[str] = (),
        where: str = "true",
        *,
        filled: bool = False,
    ) -> list[Row]:
        """Bucket, the fields of `by`, the level in billionths, series and events, for each bucket and group; sorted.

        With `filled` a silent series keeps its last level of the grid's buckets to the end.
        """
        names = [f'"{name}"' for name in by]
        of_events, of_series = (where, "true") if "quantity" in where else ("true", where)
        sql = f"""
        with chosen as (select * from winning where {of_events}),
        {self._series_sql(grid, filled=filled)}
        select {", ".join(["bucket", *names])}, sum(level)::bigint as level, count(*) as series,
            sum(events)::bigint as events
        from levels where {of_series}
        group by {", ".join(["bucket", *names])} order by all nulls first"""
        frame: pl.DataFrame = self.connection.sql(sql).pl()
        return frame.rows()

    def _series_sql(self, grid: Sequence[tuple[datetime, datetime]], *, filled: bool) -> str:
        reach = (
            f"event.\"timestamp\" >= timestamptz '{grid[0][0]}'"
            if filled
            else f"event.date >= cast(bucket as date) - {self.carry_days}"
        )
        buckets = ", ".join(f"(timestamptz '{start}', timestamptz '{end}')" for start, end in grid)
        key = ", ".join(f'"{name}"' for name in ["subject", *self.series])
        dimensions = ", ".join(f'"{name}"' for name in NAMES)
        attributes = ", ".join(f'"{name}" desc nulls last' for name in NAMES if name not in self.series)
        latest = f'"timestamp" desc, received_at desc, quantity desc{", " + attributes if attributes else ""}'
        same = " and ".join(
            f'other."{name}" is not distinct from event."{name}"' for name in ["subject", *self.series]
        )
        carried = (
            f"""
            select bucket, subject, {dimensions}, billionths as level, 0 as events
            from grid join chosen as event on event."timestamp" < bucket
                and {reach}
                and not exists (from chosen as other where {same}
                    and other."timestamp" >= bucket and other."timestamp" < bucket_end)
            qualify row_number() over (partition by bucket, {key} order by {latest}) = 1 and (billionths <> 0 or {filled})
            """
            if self.carry_days or filled
            else "from own where false"
        )
        level = {
            "avg": """sum(billionths) // count(*) + case
                when 2 * (sum(billionths) % count(*)) > count(*) then 1
                when 2 * (sum(billionths) % count(*)) = count(*) then (sum(billionths) // count(*)) % 2
                else 0 end""",
            "min": "min(billionths)",
            "max": "max(billionths)",
            "first": """arg_min(billionths, {'at': "timestamp", 'received': received_at, 'q': billionths})""",
            "last": """arg_max(billionths, {'at': "timestamp", 'received': received_at, 'q': billionths})""",
        }[self.aggregation]
        return f"""grid(bucket, bucket_end) as (values {buckets}),
        placed as (select grid.bucket, event.* from grid join chosen as event
            on event."timestamp" >= bucket and event."timestamp" < bucket_end),
        latest as (select bucket, {dimensions}, subject from placed
            qualify row_number() over (partition by bucket, {key} order by {latest}) = 1),
        measured as (select bucket as b, {", ".join(f'"{n}" as "k_{n}"' for n in ["subject", *self.series])},
            {level} as level, count(*) as events from placed group by bucket, {key}),
        own as (select bucket, subject, {dimensions}, level, events from latest join measured on bucket = b
            and {" and ".join(f'"{n}" is not distinct from "k_{n}"' for n in ["subject", *self.series])}),
        levels as (from own union all {carried})"""


def billionths(quantity: Decimal) -> int:
    """A quantity of nine places as a whole number."""
    return int(quantity.scaleb(9))
