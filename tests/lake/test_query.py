"""Questions about usage: every answer against SQL over the raw events, and every refusal with its reason."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from jobs.aggregate import aggregate
from jobs.report import reported
from lake import Lake
from lake.meters import save_meter
from lake.query import Question, explain, instant, make_plan
from oracle.generate import AGGREGATIONS, Spec, generate, meter_body, write_lake
from oracle.tables import QUANTITY, UNPACKED, Oracle
from schemas.errors import BadInputError, RefusedError
from schemas.meter import parse_meter
from support import DAY, a_lake, aggregated, event, put, retained

SINCE, UNTIL = dt.date(2026, 1, 29), dt.date(2026, 2, 4)
SPEC = Spec(events=1_500, dates=8, first_date=dt.date(2026, 1, 28), subjects=25, seed=6, zeros=0.0)
GAUGES = Spec(**{**SPEC.__dict__, "zeros": 0.2})
GROUPINGS = [(), ("subject",), ("plan",), ("service.tier", "seats", "trial"), ("seats", "subject")]
# What the filter says, and the same in SQL.
FILTERS = {
    None: "true",
    "plan = 'pro' or plan in ('équipe', 'Zürich')": "plan = 'pro' or plan in ('équipe', 'Zürich')",
    "not (seats > 1.5 or trial = true) and service.tier != 'gold'": (
        "not (seats > 1.5 or trial = true) and \"service.tier\" != 'gold'"
    ),
    "subject not in ('acct-00000', 'Acct.00001') and seats is null": (
        "subject not in ('acct-00000', 'Acct.00001') and seats is null"
    ),
    "quantity >= 0.2 and not quantity in (1, 482.7)": (
        "quantity >= decimal '0.2' and not quantity in (decimal '1', decimal '482.7')"
    ),
}
BUCKETS = ("hour", "day", "month", "none")
# Each filter meets each grouping in some test; every combination of all four only in the deep profile.
DEEP = os.environ.get("METERLAKE_HYPOTHESIS_PROFILE") == "deep"


class Answers:
    """A lake with one meter per aggregation over the same events, and the answers of SQL about it."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake.init(str(folder))
        self._connections: dict[str, duckdb.DuckDBPyConnection] = {}
        for aggregation in AGGREGATIONS:
            body = meter_body(aggregation, aggregation)
            save_meter(self.lake.storage, parse_meter(json.dumps(body).encode(), "test"))
            gauge = aggregation not in ("sum", "count", "rate")
            write_lake(folder, aggregation, generate(GAUGES if gauge else SPEC), 2, 1)
            connection = duckdb.connect()
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"create table winning as {Oracle(folder, body).winners_sql()}")
            self._connections[aggregation] = connection
        with reported(self.lake, "aggregate") as report:
            aggregate(self.lake, report)

    def sql(  # noqa: PLR0913, PLR0917 - a question has this many parts
        self,
        aggregation: str,
        since: dt.date,
        until: dt.date,
        bucket: str,
        by: Sequence[str],
        where: str,
        zone: str = "UTC",
    ) -> pl.DataFrame:
        """The answer of SQL over the winners, with every measure."""
        bounds = [f"(timestamp '{day} 00:00:00' at time zone '{zone}')" for day in (since, until)]
        local = f"date_trunc('{bucket}', \"timestamp\" at time zone '{zone}')"
        start, end = {
            "hour": ("date_trunc('hour', \"timestamp\")", "bucket_start + interval 1 hour"),
            "none": bounds,
        }.get(
            bucket,
            (
                f"{local} at time zone '{zone}'",
                f"((bucket_start at time zone '{zone}') + interval 1 {bucket}) at time zone '{zone}'",
            ),
        )
        names = [f'"{name}"' for name in by]
        quantity = QUANTITY[aggregation].replace("$seconds", "epoch(bucket_end - bucket_start)")
        frame: pl.DataFrame = (
            self._connections[aggregation]
            .sql(f"""
            with chosen as (
                select *, {start} as bucket_start from winning
                where "timestamp" >= {bounds[0]} and "timestamp" < {bounds[1]} and ({where})
            ), measured as (
                select {", ".join(["bucket_start", *names])}, count(*) as events,
                    cast(sum(quantity) as decimal(38, 9)) as quantity_sum,
                    min(quantity) as quantity_min, max(quantity) as quantity_max,
                    min({{'at': "timestamp", 'received_at': received_at, 'quantity': quantity}}) as "#first",
                    max({{'at': "timestamp", 'received_at': received_at, 'quantity': quantity}}) as "#last"
                from chosen group by all
            )
            select {", ".join(["bucket_start", f"{end} as bucket_end", *names])},
                {quantity} as quantity, {UNPACKED}
            from measured order by {", ".join(f"{name} nulls first" for name in ["bucket_start", *names])}
            """)
            .pl()
        )
        return frame


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(tmp_path_factory.mktemp("lake"))


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_answers_equal_sql_over_the_raw_events(answers: Answers, aggregation: str, bucket: Any) -> None:
    turn = AGGREGATIONS.index(aggregation) + BUCKETS.index(bucket)
    for (i, by), (j, where) in itertools.product(enumerate(GROUPINGS), enumerate(FILTERS)):
        if not DEEP and (i + j + turn) % len(FILTERS):
            continue
        found = answers.lake.query(
            aggregation, SINCE, UNTIL, bucket=bucket, by=by, where=where, measures=True
        ).collect()
        expected = answers.sql(aggregation, SINCE, UNTIL, bucket, by, FILTERS[where])
        assert found.height > 0
        assert_frame_equal(found, expected, check_exact=True)
