"""Buckets of time, pure: where hours, days and months of a zone begin and end, and in which of them a row lies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from schemas.errors import BadInputError, RefusedError
from schemas.tables import INSTANT

Size = Literal["hour", "day", "month", "none"]
SIZES: tuple[str, ...] = get_args(Size)
# The key of a bucket, in rows on their way to an answer; no dimension's name has such a sign.
BUCKET = "#bucket"
UTC = "UTC"
MAX_BUCKETS = 1_000_000
HOUR = dt.timedelta(hours=1)


def zone_of(name: str) -> dt.tzinfo:
    """The time zone of an IANA name. Raises BadInputError if there is none."""
    if name == UTC:
        return dt.UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInputError(
            f"no time zone {name!r}",
            expected="an IANA name like Europe/Berlin, and a time zone database on this machine",
            found=repr(name),
        ) from None


def buckets(size: Size, since: dt.datetime, until: dt.datetime, zone: str) -> pl.DataFrame:
    """All buckets that overlap since <= time < until: their key, `bucket_start` and `bucket_end`, in order.

    Hours begin at full hours of UTC, days and months at midnight in the zone; they are whole, also where the range
    holds only a part of them. `none` is one bucket: the range. Raises RefusedError for over a million buckets.
    """
    rows = list(_edges(size, since, until, zone_of(zone)))
    schema = {BUCKET: _key_dtype(size), "bucket_start": INSTANT, "bucket_end": INSTANT}
    return pl.DataFrame(rows, schema=schema, orient="row")


def bucket_of_instant(size: Size, zone: str) -> pl.Expr:
    """The key of the bucket that a row's `timestamp` lies in."""
    timestamp = pl.col("timestamp")
    if size == "hour":
        return timestamp.dt.truncate("1h").alias(BUCKET)
    return bucket_of_date(size, timestamp.dt.convert_time_zone(zone).dt.date())


def bucket_of_date(size: Size, date: pl.Expr) -> pl.Expr:
    """The key of the bucket, of a day or longer, that a date of the buckets' zone lies in."""
    keys = {"day": date, "month": date.dt.truncate("1mo"), "none": pl.lit(None, pl.Date)}
    return keys[size].alias(BUCKET)


def _key_dtype(size: Size) -> pl.DataType:
    return INSTANT if size == "hour" else pl.Date()


def _edges(
    size: Size, since: dt.datetime, until: dt.datetime, zone: dt.tzinfo
) -> Iterator[tuple[dt.date | None, dt.datetime, dt.datetime]]:
    if size == "none":
        yield None, since, until
        return
    if size == "hour":
        start = since.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
        _check_count((until - start) / HOUR)
        while start < until:
            yield start, start, start + HOUR
            start += HOUR
        return
    _check_count((until - since) / (HOUR * 24 if size == "day" else HOUR * 24 * 28))
    date = since.astimezone(zone).date()
    date = date.replace(day=1) if size == "month" else date
    start = _midnight(date, zone)
    while start < until:
        after = _next(size, date)
        end = _midnight(after, zone)
        # A zone that crosses the date line skips a whole date, which then is no bucket.
        if end > start:
            yield date, start, end
        date, start = after, end


def _next(size: Size, date: dt.date) -> dt.date:
    if size == "day":
        return date + dt.timedelta(days=1)
    return (date.replace(day=1) + dt.timedelta(days=32)).replace(day=1)


def _midnight(date: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """The instant at which a date begins; where clocks skip midnight, the instant of the skip."""
    return dt.datetime.combine(date, dt.time(), zone).astimezone(dt.UTC)


def _check_count(count: float) -> None:
    if count > MAX_BUCKETS:
        raise RefusedError(
            "the range holds too many buckets",
            expected=f"at most {MAX_BUCKETS:,}",
            found=f"{count:,.0f}",
            hint="ask for larger buckets or a shorter range",
        )
