"""Questions about usage: every answer against SQL over the raw events, and every refusal with its reason."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from depth import DEEP
from jobs.aggregate.job import aggregate
from jobs.run_report import reported
from lake import Lake
from lake.meters import save_meter
from lake.query.answer import explain
from lake.query.plan import make_plan
from lake.query.question import Question
from lake.query.time_buckets import instant
from oracle.generate import AGGREGATIONS, UNIQUE, Spec, generate, meter_body, write_lake
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
BUCKETS = ("hour", "day", "month", "none", "week", "year")
# Each filter meets each grouping in some test; every combination of all four only in the deep profile.


class Answers:
    """A lake with one meter per aggregation over the same events, and the answers of SQL about it."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake.init(str(folder))
        self._connections: dict[str, duckdb.DuckDBPyConnection] = {}
        for aggregation in AGGREGATIONS:
            body = meter_body(aggregation, aggregation)
            save_meter(self.lake.storage, parse_meter(json.dumps(body).encode(), "test"))
            gauge = aggregation not in ("sum", "count", "rate", "unique_count")
            write_lake(folder, aggregation, generate(GAUGES if gauge else SPEC), 2, 1)
            connection = duckdb.connect()
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"create table winning as {Oracle(folder, body).winners_sql()}")
            self._connections[aggregation] = connection
        with reported(self.lake, "aggregate") as report:
            aggregate(self.lake, report)

    def sql(
        self, aggregation: str, bucket: str, by: Sequence[str], where: str = "true", zone: str = "UTC"
    ) -> pl.DataFrame:
        """The answer of SQL over the winners from SINCE to UNTIL, with every measure."""
        bounds = [f"(timestamp '{day} 00:00:00' at time zone '{zone}')" for day in (SINCE, UNTIL)]
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
        quantity = QUANTITY[aggregation].replace(
            "$microseconds", "epoch_us(bucket_end) - epoch_us(bucket_start)"
        )
        frame: pl.DataFrame = (
            self._connections[aggregation]
            .sql(f"""
            with chosen as (
                select *, {start} as bucket_start from winning
                where "timestamp" >= {bounds[0]} and "timestamp" < {bounds[1]} and ({where})
            ), measured as (
                select {", ".join(["bucket_start", *names])}, count(*) as events,
                    count(distinct "{UNIQUE}") as "#unique",
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
        expected = answers.sql(aggregation, bucket, by, FILTERS[where])
        assert found.height > 0
        assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Apia"])
@pytest.mark.parametrize("aggregation", ["sum", "rate", "last"])
def test_days_and_months_of_a_zone_begin_at_its_midnight(
    answers: Answers, aggregation: str, zone: str
) -> None:
    for bucket, by in itertools.product(("day", "week", "month", "none"), [(), ("plan",)]):
        found = answers.lake.query(
            aggregation, SINCE, UNTIL, bucket=bucket, by=by, zone=zone, measures=True
        ).collect()
        expected = answers.sql(aggregation, bucket, by, zone=zone)
        assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize(
    ("aggregation", "by", "bucket"),
    [
        ("sum", ("plan",), "day"),
        ("max", ("subject",), "day"),
        ("avg", ("seats",), "none"),
        ("rate", ("plan",), "hour"),
    ],
)
def test_top_keeps_the_groups_with_the_greatest_quantity_over_the_whole_range(
    answers: Answers, aggregation: str, by: tuple[str, ...], bucket: Any
) -> None:
    found = answers.lake.query(aggregation, SINCE, UNTIL, bucket=bucket, by=by, top=2).collect()
    totals = answers.sql(aggregation, "none", by)
    best = totals.sort("quantity", descending=True).head(2).select(by)
    every = answers.sql(aggregation, bucket, by).select(found.columns)
    kept = every.join(best.with_row_index("rank"), on=by, nulls_equal=True).sort("bucket_start", "rank")
    assert_frame_equal(found, kept.drop("rank"), check_exact=True)


def test_explain_tells_what_was_used_and_why(answers: Answers) -> None:
    meter = answers.lake.meter("sum")

    def source(**asked: Any) -> tuple[str, str]:
        question = Question(**{"since": instant(SINCE), "until": instant(UNTIL)} | asked)
        found = explain(answers.lake.storage, meter, make_plan(meter, question))
        assert (found.partitions, found.sealed, found.out_of_date) == (6, 0, {})
        return found.table, " ".join(found.why)

    assert source() == ("usage_by_subject", "")
    assert source(by=("subject",), where="subject != 'x'", bucket="month") == ("usage_by_subject", "")
    assert source(by=("plan",)) == ("usage", "")
    assert source(where="trial = true") == ("usage", "")
    assert source(zone="Africa/Abidjan") == ("usage_by_subject", "")
    assert source(bucket="hour")[1] == "hours are smaller than the dates of the aggregates"
    assert source(since=instant(SINCE) + dt.timedelta(seconds=1))[1].startswith("the range does not begin")
    assert source(where="quantity > 1")[1] == "the filter looks at the quantity of single events"
    # The range is whole dates of UTC, and its days are not.
    assert source(zone="Europe/Berlin")[1] == "days of Europe/Berlin are not dates of UTC"
    assert source(zone="Europe/Berlin", bucket="none") == ("usage_by_subject", "")
    # London's winter has the midnights of UTC; a longer bucket is one of UTC's dates wherever it begins within the range.
    assert source(zone="Europe/London", bucket="week") == ("usage_by_subject", "")
    assert source(zone="Europe/Berlin", bucket="quarter") == ("usage_by_subject", "")
    assert source(zone="Europe/Berlin", bucket="week")[1] == "days of Europe/Berlin are not dates of UTC"


# Small lakes, where every number can be seen


def test_a_day_of_a_zone_has_23_or_25_hours_when_its_clocks_change(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="rate")
    day = dt.date(2026, 3, 29)
    put(lake, meter, "a.parquet", event(None, day=day), event(None, day=day), day=day)
    found = lake.query(meter.name, day, day + dt.timedelta(days=1), zone="Europe/Berlin").collect()
    assert found["bucket_start"].to_list() == [dt.datetime(2026, 3, 28, 23, tzinfo=dt.UTC)]
    assert found["bucket_end"].to_list() == [dt.datetime(2026, 3, 29, 22, tzinfo=dt.UTC)]
    assert found["quantity"].to_list() == [Decimal("0.000024155")]


def test_a_zone_may_skip_midnight_or_a_whole_date(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    # In Havana the clocks go from midnight to 1 o'clock; Apia had no 30 December 2011 at all.
    for zone, since, until in [
        ("America/Havana", dt.date(2026, 3, 7), dt.date(2026, 3, 10)),
        ("Pacific/Apia", dt.date(2011, 12, 29), dt.date(2012, 1, 1)),
    ]:
        grid = lake.query(meter.name, since, until, zone=zone, fill=True).collect()
        assert grid["bucket_start"].to_list()[1:] == grid["bucket_end"].to_list()[:-1]
        assert grid["bucket_start"][0] == instant(since, zone)
        assert grid["bucket_end"][-1] == instant(until, zone)
    assert grid.height == 2


def filled(lake: Lake, meter: str, **asked: Any) -> list[tuple[Any, ...]]:
    found = lake.query(meter, DAY, DAY + dt.timedelta(days=4), fill=True, **asked).collect()
    return found.drop("bucket_start", "bucket_end").rows()


def test_fill_gives_0_for_what_adds_up(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    assert filled(lake, meter.name) == [(0, 0)] * 4
    second = DAY + dt.timedelta(days=1)
    put(lake, meter, "a.parquet", event("x", quantity="2.5", plan=None, day=second), day=second)
    put(lake, meter, "b.parquet", event("y"))
    aggregated(lake)
    assert filled(lake, meter.name) == [(1, 1), (Decimal("2.5"), 1), (0, 0), (0, 0)]
    assert filled(lake, meter.name, by=["plan"]) == [
        *((None, 0, 0), ("pro", 1, 1)),
        *((None, Decimal("2.5"), 1), ("pro", 0, 0)),
        *((None, 0, 0), ("pro", 0, 0)) * 2,
    ]


@pytest.mark.parametrize("aggregation", ["avg", "min", "max", "first", "last"])
def test_fill_carries_what_a_gauge_said_last(tmp_path: Path, aggregation: str) -> None:
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    second = DAY + dt.timedelta(days=1)
    later = dt.datetime.combine(second, dt.time(13), dt.UTC)
    put(
        lake,
        meter,
        "a.parquet",
        event("x", quantity="9", day=second),
        event("y", quantity="7", day=second, timestamp=later),
        day=second,
    )
    aggregated(lake)
    said = {"avg": 8, "min": 7, "max": 9, "first": 9, "last": 7}[aggregation]
    # Before the first event of the range nothing is known, and after the last one what it said holds.
    assert filled(lake, meter.name) == [(None, 0), (said, 2), (7, 0), (7, 0)]
    assert filled(lake, meter.name, by=["plan"]) == [
        ("pro", None, 0),
        ("pro", said, 2),
        ("pro", 7, 0),
        ("pro", 7, 0),
    ]


def test_sealed_dates_answer_from_their_aggregates_and_refuse_what_needs_their_events(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    next_day = DAY + dt.timedelta(days=1)
    put(lake, meter, "a.parquet", event("x", quantity="3"))
    put(
        lake,
        meter,
        "b.parquet",
        event("x", quantity="3", day=next_day),
        event("y", day=next_day),
        day=next_day,
    )
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    end = DAY + dt.timedelta(days=2)
    assert lake.query(meter.name, DAY, end).collect()["quantity"].to_list() == [3, 1]
    for asked in ({"bucket": "hour"}, {"where": "quantity > 1"}, {"zone": "Europe/Berlin"}):
        with pytest.raises(RefusedError, match=f"1 sealed, from {DAY} to {DAY}") as refused:
            lake.query(meter.name, DAY, end, **asked)
        assert "only raw events can answer this, since" in str(refused.value)
        assert str(next_day) in refused.value.hint
    # The copy of a sealed event does not count in the open date either.
    found = lake.query(meter.name, next_day, end, bucket="hour").collect()
    assert found["events"].to_list() == [1]


def test_what_has_landed_since_the_aggregation_is_told(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    question = Question(since=instant(DAY), until=instant(DAY + dt.timedelta(days=1)))
    plan = make_plan(meter, question)
    assert explain(lake.storage, meter, plan).out_of_date == {DAY: "new"}
    assert lake.query(meter.name, DAY, DAY + dt.timedelta(days=1)).collect().is_empty()
    by_hour = Question(since=question.since, until=question.until, bucket="hour")
    assert explain(lake.storage, meter, make_plan(meter, by_hour)).out_of_date == {}
    assert lake.query(meter.name, DAY, DAY + dt.timedelta(days=1), bucket="hour").collect().height == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"since": DAY, "until": DAY}, "the range is empty"),
        ({"until": dt.date(9999, 12, 31)}, "a time out of range"),
        ({"bucket": "weeks"}, "no bucket 'weeks': expected hour, day, week, month, quarter, year, none"),
        (
            {
                "since": dt.datetime(9998, 12, 31, 12, tzinfo=dt.UTC),
                "until": dt.datetime(9998, 12, 31, 13, tzinfo=dt.UTC),
                "zone": "Pacific/Kiritimati",
                "bucket": "year",
            },
            "a year of this range leaves the calendar",
        ),
        ({"by": ["plam"]}, "can't be grouped by 'plam': expected some of subject, plan"),
        ({"by": ["plan", "plan"]}, "can't be grouped by 'plan'"),
        ({"top": 3}, "there is nothing to rank"),
        ({"top": 0, "by": ["plan"]}, "there is nothing to rank"),
        ({"zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"zone": "../etc/passwd"}, "no time zone"),
        ({"where": "plan = 1"}, "filter is wrong at character 8: expected text in quotes"),
    ],
)
def test_a_wrong_question_is_refused_with_what_is_wrong(tmp_path: Path, asked: Any, message: str) -> None:
    lake, meter = a_lake(tmp_path)
    bounds = {"since": DAY, "until": DAY + dt.timedelta(days=1)}
    with pytest.raises(BadInputError) as raised:
        lake.query(meter.name, **bounds | asked)
    assert message in str(raised.value)


def test_a_range_of_too_many_buckets_is_refused(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    with pytest.raises(RefusedError, match="at most 1,000,000"):
        lake.query(meter.name, dt.date(2, 1, 1), dt.date(2026, 1, 1), bucket="hour")
    found = lake.query(
        meter.name, dt.date(9900, 1, 1), dt.date(9998, 12, 31), bucket="month", fill=True
    ).collect()
    assert found.height == 99 * 12


def test_values_are_counted_over_all_dates(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"), event("y", plan=None, subject="b"), event("z", plan="a"))
    next_day = DAY + dt.timedelta(days=1)
    put(lake, meter, "b.parquet", event("v", plan="a", day=next_day), day=next_day)
    aggregated(lake)
    assert lake.values(meter.name, "plan").collect().rows() == [("a", 2), (None, 1), ("pro", 1)]
    assert lake.values(meter.name, "plan", next_day).collect().rows() == [("a", 1)]
    assert lake.values(meter.name, "subject").collect().rows() == [("org_1", 3), ("b", 1)]
    with pytest.raises(BadInputError, match="expected some of subject, plan"):
        lake.values(meter.name, "region")
