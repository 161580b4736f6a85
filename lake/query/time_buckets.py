"""Time buckets, pure: where the hours, days, weeks and longer buckets of a zone begin and end, and which a row is in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from lake.aggregates.silence import BUCKET
from lake.calendar import DAY
from schemas.columns import INSTANT
from schemas.errors import BadInputError, RefusedError

Size = Literal["hour", "day", "week", "month", "quarter", "year", "none"]
SIZES: tuple[str, ...] = get_args(Size)
UTC = "UTC"
MAX_BUCKETS = 1_000_000
HOUR = dt.timedelta(hours=1)
# The fewest days of a bucket of these sizes, and how Polars names their length.
_DAYS = {"day": 1, "week": 7, "month": 28, "quarter": 90, "year": 365}
_LENGTHS = {"day": "1d", "week": "1w", "month": "1mo", "quarter": "1q", "year": "1y"}


def zone_of(name: str) -> dt.tzinfo:
    """Return the time zone of an IANA name. Raises BadInputError if there is none."""
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


def instant(moment: dt.date | dt.datetime, zone: str = UTC) -> dt.datetime:
    """Return a date's midnight in the zone, or a time, which is in the zone where it names none itself.

    Raises BadInputError for an unknown zone, and for the first and last years of the calendar, where a zone's clocks
    may leave it.
    """
    if not 1 < moment.year < 9999:
        raise BadInputError("a time out of range", expected="a year from 2 to 9998", found=moment.isoformat())
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.combine(moment, dt.time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone_of(zone))
    return moment.astimezone(dt.UTC)


def buckets(size: Size, since: dt.datetime, until: dt.datetime, zone: str) -> pl.DataFrame:
    """Return all buckets that overlap since <= time < until: their key, `bucket_start` and `bucket_end`, in order.

    Hours begin at full hours of UTC, longer buckets at midnight in the zone, and weeks on Mondays; they are whole, also
    where the range holds only a part of them. `none` is one bucket: the range. Raises RefusedError for over a million
    buckets, and BadInputError where one leaves the calendar.
    """
    try:
        rows = list(_edges(size, since, until, zone_of(zone)))
    except (ValueError, OverflowError):
        raise BadInputError(
            f"a {size} of this range leaves the calendar",
            expected=f"a range whose {size}s lie within the years 1 to 9999",
            found=f"{since.isoformat()} to {until.isoformat()}",
        ) from None
    schema = {BUCKET: _key_dtype(size), "bucket_start": INSTANT, "bucket_end": INSTANT}
    return pl.DataFrame(rows, schema=schema, orient="row")


def same_time_before(moment: dt.datetime, days: int, zone: str) -> dt.datetime:
    """Return the moment `days` dates of the zone earlier, as long after midnight."""
    tz = zone_of(zone)
    date = moment.astimezone(tz).date()
    # Not before what any zone's clocks can show.
    before = max(date - DAY * days, dt.date.min + DAY)
    return moment - (_midnight(date, tz) - _midnight(before, tz))


def by_bucket(size: Size, frames: Mapping[dt.date, pl.LazyFrame]) -> dict[dt.date, pl.LazyFrame]:
    """Return the rows of dates by the key of their bucket, of a day or longer."""
    parts: dict[dt.date, list[pl.LazyFrame]] = {}
    for date, frame in frames.items():
        parts.setdefault(_first_date(size, date), []).append(frame)
    return {key: pl.concat(part) for key, part in parts.items()}


def bucket_label(size: Size, start: dt.datetime, zone: dt.tzinfo) -> str:
    """Return the usual name of the bucket that begins at `start`: 2026-W25, 2026-Q2; empty for `none`.

    Hours are those of UTC, weeks those of ISO 8601, which begin on Mondays.
    """
    if size == "hour":
        return f"{start.astimezone(dt.UTC):%Y-%m-%d %H:%M}"
    date = start.astimezone(zone).date()
    year, week, _ = date.isocalendar()
    labels = {
        "day": date.isoformat(),
        "week": f"{year:04}-W{week:02}",
        "month": f"{date:%Y-%m}",
        "quarter": f"{date.year:04}-Q{(date.month + 2) // 3}",
        "year": f"{date.year:04}",
    }
    return labels.get(size, "")


def bucket_of_instant(size: Size, zone: str) -> pl.Expr:
    """Return the key of the bucket of a row's `timestamp`."""
    timestamp = pl.col("timestamp")
    if size == "hour":
        return timestamp.dt.truncate("1h").alias(BUCKET)
    return bucket_of_date(size, timestamp.dt.convert_time_zone(zone).dt.date())


def bucket_of_date(size: Size, date: pl.Expr) -> pl.Expr:
    """Return the key of the bucket, of a day or longer, of a date in the buckets' zone."""
    key = pl.lit(None, pl.Date) if size == "none" else date.dt.truncate(_LENGTHS[size])
    return key.alias(BUCKET)


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
    _check_count((until - since) / (DAY * _DAYS[size]))
    date = _first_date(size, since.astimezone(zone).date())
    start = _midnight(date, zone)
    while start < until:
        after = _next(size, date)
        end = _midnight(after, zone)
        # A zone that crosses the date line skips a whole date, which then is no bucket.
        if end > start:
            yield date, start, end
        date, start = after, end


def _first_date(size: Size, date: dt.date) -> dt.date:
    """Return the first date of a date's bucket."""
    first = {
        "week": date - DAY * date.weekday(),
        "month": date.replace(day=1),
        "quarter": date.replace(month=(date.month - 1) // 3 * 3 + 1, day=1),
        "year": date.replace(month=1, day=1),
    }
    return first.get(size, date)


def _next(size: Size, first: dt.date) -> dt.date:
    """Return the first date of the bucket after the one that begins with `first`."""
    if size in ("day", "week"):
        return first + DAY * _DAYS[size]
    # More days than one bucket of this size has, and fewer than two.
    return _first_date(size, first + DAY * (_DAYS[size] + 10))


def _midnight(date: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """Return the instant at which a date begins; where clocks skip midnight, the instant of the skip."""
    return dt.datetime.combine(date, dt.time(), zone).astimezone(dt.UTC)


def _check_count(count: float) -> None:
    if count > MAX_BUCKETS:
        raise RefusedError(
            "the range holds too many buckets",
            expected=f"at most {MAX_BUCKETS:,}",
            found=f"{count:,.0f}",
            hint="ask for larger buckets or a shorter range",
        )
