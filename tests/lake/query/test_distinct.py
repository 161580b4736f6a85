"""Distinct values of a field, by bucket and in rolling windows: every answer against SQL over the raw events."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake import Lake
from lake.meters import save_meter
from lake.query.answer import explain
from lake.query.plan import make_plan
from lake.query.question import Question
from lake.query.time_buckets import instant
from oracle.activity import FIRST, ActivityOracle, activity, body, drop_events
from oracle.generate import write_lake
from schemas.errors import BadInputError, RefusedError
from schemas.meter import parse_meter
from support import DAY, a_lake, aggregated, event, put

METER = "people"
SINCE, UNTIL = FIRST + dt.timedelta(days=5), FIRST + dt.timedelta(days=43)
RANGE = (SINCE, UNTIL)
FIELDS = ["user", "subject", "workspace", "seats", "trial", "plan"]
GROUPINGS: list[tuple[str, ...]] = [(), ("plan",), ("subject",), ("workspace", "trial"), ("user",)]
# The same in both languages.
FILTERS = ["plan = 'pro' or workspace = 'shared'", "user is null", "subject != 'org_1' and seats = 0"]
BUCKETS = ["day", "week", "month", "none"]


class People:
    """A lake with the usage of people, and what SQL says of its events."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake.init(str(folder))
        meter = body(METER, "max")
        save_meter(self.lake.storage, parse_meter(json.dumps(meter).encode(), "test"))
        write_lake(folder, METER, activity(3, 2_500, zeros=True), 2, 1)
        self.oracle = ActivityOracle(folder, meter)
        aggregated(self.lake)

    def ask(self, **options: Any) -> pl.DataFrame:
        """The answer without what is the same in every answer."""
        found = self.lake.query(METER, SINCE, UNTIL, **options).collect()
        assert found.columns[:2] == ["bucket_start", "bucket_end"]
        return found.drop("bucket_end")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module", params=["raw events kept", "raw events dropped"])
def anytime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> People:
    found = People(tmp_path_factory.mktemp("anytime"))
    if request.param == "raw events dropped":
        drop_events(found.lake, METER, SINCE)
    return found


@pytest.mark.parametrize("bucket", BUCKETS)
def test_distinct_values_of_aggregates_equal_sql_over_the_raw_events(anytime: People, bucket: Any) -> None:
    filters = itertools.cycle([None, *FILTERS])
    for field, by in itertools.product(FIELDS, GROUPINGS):
        where = next(filters)
        found = anytime.ask(bucket=bucket, distinct=field, by=by, where=where)
        expected = anytime.oracle.distinct(field, bucket, by, RANGE, where or "true")
        assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize(
    "options",
    [
        {"bucket": "hour"},
        {"bucket": "day", "zone": "America/New_York"},
        {"bucket": "week", "zone": "Asia/Kolkata"},
        {"bucket": "none", "where": "quantity >= 1 and quantity < 5"},
        {"bucket": "month", "zone": "Europe/Berlin", "where": "quantity = 0"},
    ],
)
def test_distinct_values_of_events_equal_sql_over_the_raw_events(
    people: People, options: dict[str, Any]
) -> None:
    for field, by in zip(FIELDS, itertools.cycle(GROUPINGS), strict=False):
        found = people.ask(distinct=field, by=by, **options)
        expected = people.oracle.distinct(field, by=by, dates=RANGE, **options)
        assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("days", [1, 2, 7, 28, 366])
def test_rolling_windows_equal_sql_over_the_raw_events(anytime: People, days: int) -> None:
    filters = itertools.cycle([None, *FILTERS])
    for field, by in zip(FIELDS, itertools.cycle(GROUPINGS), strict=False):
        where = next(filters)
        found = anytime.ask(distinct=field, rolling=days, by=by, where=where)
        expected = anytime.oracle.rolling(field, days, by, RANGE, where or "true")
        assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_rolling_windows_of_a_zone_are_days_of_it(people: People, zone: str) -> None:
    for by, where in (((), "quantity > 0"), (("plan",), "true")):
        options: dict[str, Any] = {"by": by, "zone": zone} | ({"where": where} if where != "true" else {})
        found = people.lake.query(METER, SINCE, UNTIL, distinct="user", rolling=7, **options).collect()
        expected = people.oracle.rolling("user", 7, by, RANGE, where, zone)
        assert_frame_equal(found.drop("bucket_end"), expected, check_exact=True)


@pytest.mark.parametrize("rolling", [None, 5])
def test_top_ranks_by_distinct_values_of_the_whole_range(people: People, rolling: int | None) -> None:
    found = people.ask(bucket="day", distinct="user", rolling=rolling, by=["workspace"], top=3)
    totals = people.oracle.distinct("user", "none", ["workspace"], RANGE)
    best = totals.sort("distinct", "workspace", descending=[True, False]).head(3).with_row_index("rank")
    every = people.ask(bucket="day", distinct="user", rolling=rolling, by=["workspace"])
    kept = every.join(best.select("workspace", "rank"), on="workspace", nulls_equal=True)
    assert_frame_equal(found, kept.sort("bucket_start", "rank").drop("rank"))
    # Days add up to another order, or there would be nothing to tell here.
    added = every.group_by("workspace").agg(pl.col("distinct").sum()).sort("distinct", descending=True)
    assert added["workspace"].head(3).to_list() != best["workspace"].to_list()


@pytest.mark.parametrize("rolling", [None, 3])
def test_fill_gives_0_where_nobody_was_active(people: People, rolling: int | None) -> None:
    options: dict[str, Any] = {"distinct": "user", "rolling": rolling, "by": ["user"]}
    found, sparse = people.ask(fill=True, **options), people.ask(**options)
    days = (UNTIL - SINCE).days
    assert found.height == days * sparse["user"].n_unique() > sparse.height
    rest = found.join(sparse, on=["bucket_start", "user"], how="anti", nulls_equal=True)
    assert rest.select("distinct", "events").unique().rows() == [(0, 0)]
    there = found.join(sparse, on=["bucket_start", "user"], how="semi", nulls_equal=True)
    assert_frame_equal(there, sparse)


def test_measures_stand_beside_the_count(people: People) -> None:
    found = people.ask(bucket="month", distinct="user", by=["plan"], measures=True)
    plain = people.ask(bucket="month", by=["plan"], measures=True)
    counted = people.ask(bucket="month", distinct="user", by=["plan"])
    assert_frame_equal(found.drop("distinct"), plain.drop("quantity"))
    assert_frame_equal(found.select(counted.columns), counted)
    with pytest.raises(BadInputError, match="no measures but their events"):
        people.ask(distinct="user", rolling=2, measures=True)


def test_subjects_are_counted_in_the_table_of_subjects(people: People) -> None:
    meter = people.lake.meter(METER)

    def source(**asked: Any) -> tuple[str, int]:
        question = Question(**{"since": instant(SINCE), "until": instant(UNTIL)} | asked)
        found = explain(people.lake.storage, meter, make_plan(meter, question))
        return found.table, found.partitions

    assert source(distinct="subject", bucket="month") == ("usage_by_subject", 38)
    assert source(distinct="subject", by=("plan",)) == ("usage", 38)
    assert source(distinct="user") == ("usage", 38)
    assert source(distinct="subject", where="quantity > 0") == ("events", 38)
    # What is read before the range is named too.
    assert source(distinct="user", rolling=3) == ("usage", 40)
    assert source(distinct="user", rolling=366) == ("usage", 43)
    # Of this zone the days in the range are those of UTC, and the one before is not.
    since = instant(dt.date(2026, 10, 26))
    winter: dict[str, Any] = {"since": since, "until": since + dt.timedelta(days=2), "zone": "Europe/London"}
    assert source(distinct="user", **winter)[0] == "usage"
    assert source(distinct="user", rolling=2, **winter)[0] == "events"


def test_what_only_dropped_events_could_answer_is_refused(anytime: People) -> None:
    options: dict[str, Any] = {"distinct": "user", "bucket": "hour"}
    if (Path(anytime.lake.url) / f"events/meter={METER}/date={SINCE}").exists():
        assert anytime.ask(**options).height
        return
    for asked in (options, {"distinct": "user", "rolling": 2, "zone": "Asia/Kolkata"}):
        with pytest.raises(RefusedError, match="only raw events can answer"):
            anytime.ask(**asked)


# Small lakes, where every number can be seen


def small(folder: Path) -> Lake:
    """Ada is active on two days and for two customers, somebody unknown on one, and Bo with a quantity of 0."""
    dimensions = [
        {"name": name, "type": "string", "required": False} for name in ("plan", "user", "distinct")
    ]
    lake, meter = a_lake(folder, aggregation="max", dimensions=dimensions)
    put(
        lake,
        meter,
        "a.parquet",
        event("1", user="ada", distinct="x"),
        event("2", "org_2", user="ada"),
        event("3", user=None),
    )
    day = DAY + dt.timedelta(days=3)
    put(
        lake,
        meter,
        "b.parquet",
        event("4", user="ada", day=day),
        event("5", "org_2", "0", day, user="bo"),
        day=day,
    )
    aggregated(lake)
    return lake


def asked(lake: Lake, *, days: int = 6, **options: Any) -> list[tuple[Any, ...]]:
    found = lake.query(
        "active_users", DAY, DAY + dt.timedelta(days=days), distinct="user", **options
    ).collect()
    return (
        found.with_columns((pl.col("bucket_start").dt.date() - DAY).dt.total_days()).drop("bucket_end").rows()
    )


def test_people_of_two_customers_count_once(tmp_path: Path) -> None:
    lake = small(tmp_path)
    assert asked(lake, bucket="none") == [(0, 2, 5)]
    assert asked(lake, bucket="none", by=["subject"]) == [(0, "org_1", 1, 3), (0, "org_2", 2, 2)]
    assert asked(lake) == [(0, 1, 3), (3, 2, 2)]
    assert asked(lake, where="user is null") == [(0, 0, 1)]


def test_a_row_for_every_day_whose_window_has_events(tmp_path: Path) -> None:
    lake = small(tmp_path)
    assert asked(lake, rolling=2) == [(0, 1, 3), (1, 1, 3), (3, 2, 2), (4, 2, 2)]
    assert asked(lake, rolling=2, fill=True) == [
        (0, 1, 3),
        (1, 1, 3),
        (2, 0, 0),
        (3, 2, 2),
        (4, 2, 2),
        (5, 0, 0),
    ]
    assert asked(lake, rolling=4) == [(0, 1, 3), (1, 1, 3), (2, 1, 3), (3, 2, 5), (4, 2, 2), (5, 2, 2)]
    # Nobody in it is known, and there are events.
    assert asked(lake, rolling=2, where="user is null") == [(0, 0, 1), (1, 0, 1)]


def test_windows_reach_back_before_the_range(tmp_path: Path) -> None:
    lake = small(tmp_path)
    day = DAY + dt.timedelta(days=3)
    found = lake.query(
        "active_users", day, day + dt.timedelta(days=1), distinct="user", rolling=4, by=["subject"]
    )
    assert found.drop("bucket_start", "bucket_end").collect().rows() == [("org_1", 1, 3), ("org_2", 2, 2)]


def test_a_group_of_the_days_before_alone_ranks_behind_all_others(tmp_path: Path) -> None:
    lake = small(tmp_path)
    options: dict[str, Any] = {"distinct": "user", "rolling": 4, "by": ["user"]}
    day = DAY + dt.timedelta(days=3)
    for top, expected in ((3, ["ada", "bo", None]), (2, ["ada", "bo"])):
        found = lake.query("active_users", day, day + dt.timedelta(days=1), top=top, **options).collect()
        assert found["user"].to_list() == expected


def test_a_range_that_begins_within_a_day_reads_the_days_before_from_the_same_time_on(tmp_path: Path) -> None:
    lake = small(tmp_path)
    noon = dt.datetime.combine(DAY + dt.timedelta(days=3), dt.time(12), dt.UTC)
    # All events of both days are of noon.
    for seconds, events in ((0, 5), (1, 2)):
        since = noon + dt.timedelta(seconds=seconds)
        found = lake.query("active_users", since, noon + dt.timedelta(hours=1), distinct="user", rolling=4)
        assert found.select("distinct", "events").collect().rows() == [(2, events)]


def test_a_zone_that_skips_a_date_has_no_row_for_it(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    day = dt.date(2011, 12, 29)
    put(lake, meter, "a.parquet", event("1", day=day), day=day)
    since, until = dt.date(2011, 12, 28), dt.date(2012, 1, 3)
    found = lake.query(meter.name, since, until, distinct="subject", rolling=3, zone="Pacific/Apia").collect()
    # Noon of UTC is two o'clock there; the 30th of December never was.
    local = found["bucket_start"].dt.convert_time_zone("Pacific/Apia").dt.date().to_list()
    assert local == [dt.date(2011, 12, 29), dt.date(2011, 12, 31)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"distinct": "team"},
            "no field 'team'.*expected one of subject, plan, user, distinct, found 'team'",
        ),
        ({"distinct": ""}, "no field ''"),
        ({"distinct": "user", "by": ["distinct"]}, "can't be grouped by 'distinct'.*none of .*distinct"),
        ({"distinct": "user", "rolling": 0}, "expected 1 to 366 days, found 0 days"),
        ({"distinct": "user", "rolling": 367}, "expected 1 to 366 days, found 367 days"),
        (
            {"distinct": "user", "rolling": 7, "bucket": "month"},
            "expected buckets of a day, found bucket month",
        ),
        (
            {"rolling": 7},
            "rolling windows are for distinct values.*or a meter of unique_count, found .*of max",
        ),
        ({"distinct": "user", "top": 3}, "nothing to rank"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    lake = small(tmp_path)
    with pytest.raises(BadInputError, match=f"(?s){message}"):
        lake.query("active_users", DAY, DAY + dt.timedelta(days=1), **options)


def test_a_dimension_named_distinct_collides_in_that_question_only(tmp_path: Path) -> None:
    lake = small(tmp_path)
    until = DAY + dt.timedelta(days=1)
    assert lake.query("active_users", DAY, until, by=["distinct"]).collect()["events"].to_list() == [2, 1]
    found = lake.query("active_users", DAY, until, distinct="distinct").collect()
    assert found["distinct"].to_list() == [1]


# What is shown beside an answer

WEEKS = (dt.date(2026, 3, 2), dt.date(2026, 3, 23))


def test_shares_are_parts_of_the_distinct_values_of_all(people: People) -> None:
    options: dict[str, Any] = {"distinct": "user", "bucket": "week"}
    found = people.lake.query(METER, *WEEKS, by=["plan"], share=True, **options).collect()
    totals = dict(people.oracle.distinct("user", "week", [], WEEKS).select("bucket_start", "distinct").rows())
    for start, distinct, share in found.select("bucket_start", "distinct", "share").iter_rows():
        assert share == round(Decimal(distinct) / totals[start], 9)
    # Some people have two plans in a week.
    assert found.group_by("bucket_start").agg(pl.col("share").sum())["share"].max() > 1


@pytest.mark.parametrize("rolling", [None, 3])
def test_comparisons_tell_new_from_returned_by_distinct_values(people: People, rolling: int | None) -> None:
    size, bucket = (dt.timedelta(days=1), "day") if rolling else (dt.timedelta(days=7), "week")
    options: dict[str, Any] = {"distinct": "workspace", "bucket": bucket, "by": ["user"], "rolling": rolling}
    found = people.lake.query(METER, *WEEKS, compare="previous", **options).collect()
    days = (FIRST - dt.timedelta(days=7), WEEKS[1])
    if rolling:
        every = people.oracle.rolling("workspace", rolling, ["user"], days)
    else:
        every = people.oracle.distinct("workspace", "week", ["user"], days)
    counts = {(start, name): count for start, name, count, _ in every.iter_rows() if count}
    expected = set()
    for start, name in {*counts, *((start + size, name) for start, name in counts)}:
        now, before = counts.get((start, name), 0), counts.get((start - size, name), 0)
        earlier = any(name == other and moment < start for moment, other in counts)
        state = ("active" if before else "returned" if earlier else "new") if now else "lost"
        if WEEKS[0] <= start.date() < WEEKS[1]:
            expected.add((start, name, now, before, now - before, state))
    columns = ["bucket_start", "user", "distinct", "usage_before", "usage_change", "usage_state"]
    # Who had no workspace is in a row, and was nowhere.
    assert set(found.filter(found["usage_state"].is_not_null()).select(columns).rows()) == expected
    assert found["usage_state"].n_unique() >= 2


def test_ratios_are_to_the_own_quantity_of_the_other_meter(people: People) -> None:
    options: dict[str, Any] = {"bucket": "week", "by": ["subject"]}
    found = people.lake.query(METER, *WEEKS, distinct="user", over=METER, **options).collect()
    quantities = people.lake.query(METER, *WEEKS, **options).collect()
    assert found["over_quantity"].to_list() == quantities["quantity"].to_list()
    for distinct, quantity, ratio in found.select("distinct", "over_quantity", "ratio").iter_rows():
        assert ratio == (round(Decimal(distinct) / quantity, 9) if quantity else None)
    rolling = people.lake.query(METER, *WEEKS, distinct="user", rolling=7, over=METER).collect()
    assert (
        rolling["over_quantity"].to_list() == people.lake.query(METER, *WEEKS).collect()["quantity"].to_list()
    )
