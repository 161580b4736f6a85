"""From parsed events to valid events and rejected rows; pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import NamedTuple

import polars as pl

from jobs.land.parse.parsed import LINE
from schemas.columns import INSTANT, event_columns
from schemas.event_rules import Rule, detail, event_rules, keeps, normalised, reason
from schemas.meter import Meter

# RFC 3339: date, T or a space, time, a fraction if any, and a zone.
TIMESTAMP = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$"
# chrono fails on the year 0, which is before 1970 anyway.
_YEAR_0 = "0000-"
_TEXT, _INVALID = "#text_", "#invalid_"


class Validated(NamedTuple):
    """Events in the columns of the meter's files with `#line`, and rejected lines with `reason` and `detail`."""

    events: pl.DataFrame
    rejected: pl.DataFrame


def validate(
    parsed: pl.DataFrame, meter: Meter, landed_at: dt.datetime, sealed: Collection[dt.date]
) -> Validated:
    """Return the rows that keep the rules of events and those that break one, both in their order.

    `parsed` has the columns of `parsed_columns`. An absent received_at becomes the landing time.
    """
    times = ("timestamp", "received_at")
    texts = parsed.with_columns(pl.col(name).alias(_TEXT + name) for name in times)
    read = texts.with_columns(_instant(name) for name in times).with_columns(
        _is_invalid(name) for name in times
    )
    # An unreadable received_at is rejected; until then the rules compare the timestamp with some time.
    filled = read.with_columns(pl.col("received_at").fill_null(pl.lit(landed_at, INSTANT)))
    rules = [
        *(_time_rule(name) for name in times),
        _calendar_rule(),
        *event_rules(meter),
        _sealed_rule(sealed),
    ]
    rows = filled.with_columns(normalised(meter))
    if rows.select(keeps(rules).all()).item():
        # The usual case: computing no reasons saves time.
        return Validated(rows.select(LINE, *event_columns(meter)), _nothing_rejected())
    explained = rows.with_columns(reason(rules), detail(rules))
    events = explained.filter(pl.col("reason").is_null()).select(LINE, *event_columns(meter))
    rejected = explained.filter(pl.col("reason").is_not_null()).select(LINE, "reason", "detail")
    return Validated(events, rejected)


def _nothing_rejected() -> pl.DataFrame:
    return pl.DataFrame(schema={LINE: pl.UInt32, "reason": pl.String, "detail": pl.String})


def _instant(name: str) -> pl.Expr:
    text = pl.col(name).str.to_uppercase().str.replace(" ", "T", literal=True)
    right = pl.col(name).str.contains(TIMESTAMP) & ~pl.col(name).str.starts_with(_YEAR_0)
    return (
        pl.when(right)
        .then(text)
        .str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False)
        .alias(name)
    )


def _is_invalid(name: str) -> pl.Expr:
    """Return whether the text of a time is present and not readable."""
    return (pl.col(_TEXT + name).is_not_null() & pl.col(name).is_null()).alias(_INVALID + name)


def _time_rule(name: str) -> Rule:
    text = pl.col(_TEXT + name)
    return Rule(f"{name}_invalid", pl.col(_INVALID + name), "RFC 3339 with a zone", text)


def _calendar_rule() -> Rule:
    # A zone west of UTC may lead beyond the last date that a partition can have.
    timestamp = pl.col("timestamp")
    last = dt.datetime.max.replace(tzinfo=dt.UTC)
    return Rule("timestamp_out_of_range", timestamp > last, "a year up to 9999", timestamp.cast(pl.String))


def _sealed_rule(sealed: Collection[dt.date]) -> Rule:
    date = pl.col("timestamp").dt.date()
    return Rule(
        "sealed_partition", date.is_in(list(sealed)), "a date whose aggregates are not final yet", date
    )
