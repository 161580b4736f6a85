"""Meters of `unique_count`: every answer against SQL over the raw events, before and after retention."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake import Lake
from lake.meters import save_meter
from oracle.activity import FIRST, ActivityOracle, activity, body, drop_events
from oracle.generate import write_lake
from schemas.columns import QUANTITY
from schemas.meter import parse_meter
from support import DAY, a_lake, aggregated, event, put

METER = "people"
SINCE, UNTIL = FIRST + dt.timedelta(days=5), FIRST + dt.timedelta(days=43)
RANGE = (SINCE, UNTIL)
GROUPINGS: list[tuple[str, ...]] = [(), ("plan",), ("subject",), ("workspace", "trial"), ("user", "plan")]
FILTERS = [None, "plan = 'pro' or workspace = 'shared'", "user is null", "subject != 'org_1' and seats = 0"]


class People:
    """A lake that counts users, and what SQL says of its events."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake.init(str(folder))
        meter = body(METER, "unique_count", unique="user")
        save_meter(self.lake.storage, parse_meter(json.dumps(meter).encode(), "test"))
        write_lake(folder, METER, activity(4, 2_000), 2, 1)
        self.oracle = ActivityOracle(folder, meter)
        aggregated(self.lake)

    def users(
        self, bucket: str, by: tuple[str, ...], where: str | None = None, dates: Any = RANGE
    ) -> pl.DataFrame:
        """The answer of SQL as one of the meter."""
        found = self.oracle.distinct("user", bucket, by, dates, where or "true")
        return found.with_columns(pl.col("distinct").cast(QUANTITY)).rename({"distinct": "quantity"})


@pytest.fixture(scope="module", params=["raw events kept", "raw events dropped"])
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> People:
    found = People(tmp_path_factory.mktemp("people"))
    if request.param == "raw events dropped":
        drop_events(found.lake, METER, SINCE)
    return found


@pytest.mark.parametrize("bucket", ["day", "week", "month", "quarter", "none"])
def test_answers_equal_sql_over_the_raw_events(people: People, bucket: Any) -> None:
    for by, where in zip(GROUPINGS, itertools.cycle(FILTERS), strict=False):
        found = people.lake.query(METER, *RANGE, bucket=bucket, by=by, where=where).collect()
        assert_frame_equal(found.drop("bucket_end"), people.users(bucket, by, where), check_exact=True)


def test_rolling_windows_equal_sql_over_the_raw_events(people: People) -> None:
    for by, where in zip(GROUPINGS, itertools.cycle(FILTERS), strict=False):
        found = people.lake.query(METER, *RANGE, rolling=7, by=by, where=where).collect()
        expected = people.oracle.rolling("user", 7, by, RANGE, where or "true")
        expected = expected.with_columns(pl.col("distinct").cast(QUANTITY)).rename({"distinct": "quantity"})
        assert_frame_equal(found.drop("bucket_end"), expected, check_exact=True)


def test_totals_equal_sql_over_the_raw_events(people: People) -> None:
    for by in GROUPINGS:
        found = people.lake.totals(METER, by, *RANGE).select(*by, "quantity", "events").collect()
        assert_frame_equal(found, people.users("none", by).drop("bucket_start"), check_exact=True)


def test_the_tables_of_a_day_count_its_users(people: People) -> None:
    dated = pl.col("bucket_start").dt.date().alias("date")
    subjects = people.lake.usage_by_subject(METER, *RANGE).select("date", "subject", "quantity", "events")
    expected = people.users("day", ("subject",)).select(dated, pl.exclude("bucket_start"))
    assert_frame_equal(subjects.collect(), expected, check_exact=True)
    table = people.lake.usage_by_dimension(METER, *RANGE).collect()
    for name in ("plan", "workspace", "user"):
        rows = table.filter(pl.col("dimension") == name).select("date", "value", "quantity", "events")
        expected = people.users("day", (name,)).select(
            dated, pl.col(name).alias("value"), "quantity", "events"
        )
        assert_frame_equal(rows, expected, check_exact=True)
    every = people.lake.usage(METER, *RANGE).select("quantity", pl.col("user").is_null()).unique().collect()
    assert sorted(every.rows()) == [(0, True), (1, False)]


def test_top_ranks_by_users_of_the_whole_range(people: People) -> None:
    found = people.lake.query(METER, *RANGE, bucket="week", by=["workspace"], top=3).collect()
    best = people.users("none", ("workspace",)).sort("quantity", "workspace", descending=[True, False])
    first = found.filter(found["bucket_start"] == found["bucket_start"].min())
    assert first["workspace"].to_list() == best["workspace"].head(3).to_list()


def test_another_field_can_be_counted(people: People) -> None:
    found = people.lake.query(METER, *RANGE, bucket="month", distinct="workspace").collect()
    assert_frame_equal(found.drop("bucket_end"), people.oracle.distinct("workspace", "month", (), RANGE))


# Small lakes, where every number can be seen


def test_days_are_not_added_up(tmp_path: Path) -> None:
    dimensions = [{"name": "user", "type": "string", "required": False}]
    lake, meter = a_lake(tmp_path, aggregation="unique_count", unique="user", dimensions=dimensions)
    for number, user in enumerate(["ada", "ada", None, "bo"]):
        day = DAY + dt.timedelta(days=number)
        put(lake, meter, "a.parquet", event(None, f"org_{number % 2}", "3", day, user=user), day=day)
    aggregated(lake)

    def asked(**options: Any) -> list[Any]:
        return (
            lake.query(meter.name, DAY, DAY + dt.timedelta(days=5), **options).collect()["quantity"].to_list()
        )

    assert asked() == [1, 1, 0, 1]
    assert asked(fill=True) == [1, 1, 0, 1, 0]
    assert asked(bucket="none") == [2]
    assert asked(bucket="none", by=["subject"]) == [1, 2]
    assert asked(rolling=2) == [1, 1, 1, 1, 1]
    assert lake.totals(meter.name, ["subject"]).collect()["quantity"].to_list() == [1, 2]
    assert lake.totals(meter.name).collect()["quantity"].to_list() == [2]
    # What the meter does not count is there all the same.
    assert lake.totals(meter.name).collect()["quantity_sum"].to_list() == [12]
