"""Buckets of time: every size in every zone against SQL, and what people call them."""

from __future__ import annotations

import datetime as dt
import random
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pytest

from lake.aggregates.silence import BUCKET
from lake.query.time_buckets import UTC, Size, bucket_label, bucket_of_instant, buckets
from schemas.columns import INSTANT
from schemas.errors import RefusedError

FIRST, LAST = dt.datetime(1991, 7, 3, 5, tzinfo=dt.UTC), dt.datetime(2027, 3, 1, 11, tzinfo=dt.UTC)
# Behind and before UTC, by halves of an hour, and with clocks that change at midnight.
ZONES = [UTC, "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati", "America/Havana", "Europe/London"]
LONGER: tuple[Size, ...] = ("week", "quarter", "year")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("size", ["day", "month", *LONGER])
def test_every_moment_lies_in_the_bucket_that_sql_puts_it_in(size: Size, zone: str) -> None:
    draw = random.Random(zone + size)
    seconds = int((LAST - FIRST).total_seconds())
    moments = [FIRST + dt.timedelta(seconds=draw.randrange(seconds)) for _ in range(400)]
    rows = pl.LazyFrame({"timestamp": moments}, schema={"timestamp": INSTANT})
    keyed = rows.with_columns(bucket_of_instant(size, zone)).collect()
    grid = buckets(size, FIRST, LAST, zone)
    found = keyed.join(grid, on=BUCKET, how="left").sort("timestamp")
    assert found.filter(pl.col("timestamp").is_between("bucket_start", "bucket_end", "left")).height == 400
    # Where clocks skip midnight, the local hour of a bucket's begin is not 0, but the local date is right.
    local = pl.col("bucket_start").dt.convert_time_zone(zone).dt.date()
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        sql = f"""select cast(date_trunc('{size}', "timestamp" at time zone '{zone}') as date) as first
            from keyed order by "timestamp" """
        assert found.select(local.alias("first")).equals(connection.sql(sql).pl())


@pytest.mark.parametrize("size", LONGER)
@pytest.mark.parametrize("zone", ["Pacific/Apia", "Pacific/Kiritimati", "America/Havana", "Africa/Cairo"])
def test_buckets_follow_each_other_without_a_gap(size: Size, zone: str) -> None:
    grid = buckets(size, FIRST, LAST, zone)
    assert grid["bucket_start"].to_list()[1:] == grid["bucket_end"].to_list()[:-1]
    assert grid["bucket_start"][0] <= FIRST < grid["bucket_end"][0]
    assert grid["bucket_start"][-1] < LAST <= grid["bucket_end"][-1]
    assert (grid["bucket_start"] < grid["bucket_end"]).all()


def test_labels_are_what_people_write() -> None:
    berlin, midnight = ZoneInfo("Europe/Berlin"), dt.datetime(2026, 5, 31, 22, tzinfo=dt.UTC)
    sizes: list[Size] = ["hour", "day", "week", "month", "quarter", "year", "none"]
    assert [bucket_label(size, midnight, berlin) for size in sizes] == [
        *("2026-05-31 22:00", "2026-06-01", "2026-W23", "2026-06", "2026-Q2", "2026", "")
    ]
    # The last days of a year lie in the first week of the next one where its Thursday does.
    for date, label in [("2025-12-29", "2026-W01"), ("2027-01-01", "2026-W53"), ("0002-01-01", "0002-W01")]:
        moment = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC)
        assert bucket_label("week", moment, dt.UTC) == label


def test_a_week_skipped_in_part_is_labelled_by_its_week() -> None:
    """Apia had no Friday 30 December 2011."""
    apia = ZoneInfo("Pacific/Apia")
    since, until = (
        dt.datetime(*day, tzinfo=apia).astimezone(dt.UTC) for day in ((2011, 12, 26), (2012, 1, 2))
    )
    grid = buckets("week", since, until, "Pacific/Apia")
    assert grid["bucket_end"][0] - grid["bucket_start"][0] == dt.timedelta(days=6)
    assert bucket_label("week", grid["bucket_start"][0], apia) == "2011-W52"


def test_a_million_days_are_refused_and_their_weeks_are_not() -> None:
    since, until = dt.datetime(2, 1, 1, tzinfo=dt.UTC), dt.datetime(9998, 12, 31, tzinfo=dt.UTC)
    with pytest.raises(RefusedError, match="at most 1,000,000"):
        buckets("day", since, until, UTC)
    counts = [buckets(size, since, until, UTC).height for size in ("quarter", "year")]
    assert counts == [9997 * 4, 9997]
