"""The rules of a single event, as expressions over typed columns, and the reason codes of rows that break one."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import polars as pl

from schemas.columns import QUANTITY
from schemas.meter import POSITIVE_AGGREGATIONS, Meter

SUBJECT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$"
MAX_SUBJECT_BYTES = 128
MAX_AHEAD = dt.timedelta(hours=24)
# Earlier times come from clocks that were never set: Go writes 0001-01-01 for "no time".
EARLIEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MAX_FOUND_CHARS = 120
# The smallest size of a quantity that is too large: a billion smaller ones fit one decimal(38, 9).
QUANTITY_DIGITS = 20
QUANTITY_LIMIT = 10**QUANTITY_DIGITS

REASONS = {
    "not_json": "the line is not valid JSON (or the CSV row is not RFC 4180, is not UTF-8, or does not fit its header)",
    "not_an_object": "the line is valid JSON, but not an object",
    "too_large": "the line is longer than 16 MiB, nested deeper than 64 levels, or of more than 1,048,576 values",
    "unknown_field": "a member that is no field of an event, where there is no idempotency key, or whose name is almost a field's",
    "meter_missing": "no meter is named, or its name is not text",
    "unknown_meter": "no meter of this name is defined in the lake",
    "meter_unreadable": "the meter's definition or state can't be read; once it is repaired, land the input again",
    "idempotency_key_invalid": "the idempotency key is not text",
    "subject_missing": "no subject, or an empty one",
    "subject_invalid": "the subject is not text, is over 128 bytes, or has characters other than A-Z a-z 0-9 _ . : -",
    "quantity_missing": "no quantity, and the meter's aggregation is not count, rate or unique_count",
    "quantity_invalid": "the quantity is not a finite number of at most 20 digits before the point",
    "quantity_not_positive": "the quantity is 0 or less, and the meter's aggregation is sum, count, rate or unique_count",
    "quantity_negative": "the quantity is less than 0",
    "timestamp_invalid": "the timestamp is not RFC 3339 with a zone",
    "timestamp_out_of_range": "the timestamp is before 1970, or in UTC after 9999",
    "timestamp_in_future": "the timestamp is more than 24 hours after received_at",
    "received_at_missing": "a producer's row has no received_at",
    "received_at_invalid": "received_at is not RFC 3339 with a zone",
    "metadata_invalid": "metadata is not an object",
    "metadata_conflict": "a value is both in metadata and outside it, or where the declared path of another dimension needs an object",
    "dimension_missing": "a required dimension has no value",
    "dimension_type": "a dimension's value is not of its declared type",
    "wrong_partition": "a producer's row is in the partition of another date than its timestamp's",
    "sealed_partition": "the partition's raw events have been dropped by retention; its aggregates are final",
}


class Rule(NamedTuple):
    """One rule: the code of the rows that break it, when a row does, what is expected, and what was found."""

    reason: str
    broken: pl.Expr
    expected: str
    found: pl.Expr


def event_rules(meter: Meter) -> list[Rule]:
    """Return the rules of every event of a meter; the first broken one is the row's reason. Columns: `EVENT_TYPES`."""
    return [*subject_rules(), *measured_rules(meter)]


def subject_rules() -> list[Rule]:
    """Return the rules of subjects, the most expensive ones of an event."""
    subject = pl.col("subject")
    return [
        Rule("subject_missing", subject.fill_null("") == "", "a subject", pl.lit("none")),
        Rule(
            "subject_invalid",
            (subject.str.len_bytes() > MAX_SUBJECT_BYTES) | ~subject.str.contains(SUBJECT_PATTERN),
            f"1 to {MAX_SUBJECT_BYTES} bytes like {SUBJECT_PATTERN}",
            subject,
        ),
    ]


def measured_rules(meter: Meter) -> list[Rule]:
    """Return the rules of events of a meter, except those of subjects."""
    quantity = pl.col("quantity")
    timestamp, received_at = pl.col("timestamp"), pl.col("received_at")
    rules = [
        Rule("quantity_missing", quantity.is_null(), "a quantity", pl.lit("none")),
        _size_rule(),
        _sign_rule(meter),
        Rule("received_at_missing", received_at.is_null(), "received_at", pl.lit("none")),
        Rule("timestamp_out_of_range", timestamp < EARLIEST, "1970 or later", timestamp.cast(pl.String)),
        Rule(
            "timestamp_in_future",
            timestamp > received_at + MAX_AHEAD,
            "at most 24 h after received_at",
            timestamp.cast(pl.String),
        ),
    ]
    return rules + _dimension_rules(meter)


def partition_rule(date: dt.date) -> Rule:
    """Return the rule that an event is in the partition of its timestamp's UTC date."""
    timestamp = pl.col("timestamp")
    # Comparing timestamps costs a tenth of computing the date of each.
    first, last = (dt.datetime.combine(date, time, dt.UTC) for time in (dt.time.min, dt.time.max))
    within = timestamp.is_between(first, last)
    return Rule("wrong_partition", ~within, date.isoformat(), timestamp.cast(pl.String))


def keeps(rules: list[Rule]) -> pl.Expr:
    """Return whether a row keeps all rules; much cheaper than whether `reason` is null."""
    return ~pl.any_horizontal(rule.broken for rule in rules).fill_null(value=False)


def reason(rules: list[Rule]) -> pl.Expr:
    """Return the code of the first broken rule as column `reason`; null where the row keeps them all."""
    return pl.coalesce(pl.when(rule.broken).then(pl.lit(rule.reason)) for rule in rules).alias("reason")


def detail(rules: list[Rule]) -> pl.Expr:
    """Return what the first broken rule expected and what it found, as column `detail`."""
    texts = [
        pl.when(rule.broken).then(
            pl.format(
                "expected {}, found {}",
                pl.lit(rule.expected),
                rule.found.cast(pl.String).fill_null("null").str.slice(0, MAX_FOUND_CHARS),
            )
        )
        for rule in rules
    ]
    return pl.coalesce(texts).alias("detail")


def normalised(meter: Meter) -> list[pl.Expr]:
    """Return the columns of an event that can have equivalent values, normalised.

    Key and subject are trimmed, an empty key becomes null; the rest are those of `normalised_measured`.
    """
    key = pl.col("idempotency_key").str.strip_chars()
    return [
        pl.when(key != "").then(key).alias("idempotency_key"),
        pl.col("subject").str.strip_chars(),
        *normalised_measured(meter),
    ]


def normalised_measured(meter: Meter) -> list[pl.Expr]:
    """Return the normalised columns other than text.

    A missing timestamp is received_at, -0.0 is 0.0, and a missing quantity is 1 where the meter allows it.
    """
    one = pl.col("quantity").fill_null(pl.lit(1).cast(QUANTITY))
    return [
        *([] if meter.needs_quantity else [one]),
        pl.coalesce("timestamp", "received_at").alias("timestamp"),
        *(pl.col(d.name) + 0.0 for d in meter.dimensions if d.type == "number"),
    ]


def _size_rule() -> Rule:
    quantity, limit = pl.col("quantity"), pl.lit(QUANTITY_LIMIT, QUANTITY)
    too_large = (quantity >= limit) | (quantity <= -limit)
    return Rule("quantity_invalid", too_large, f"a quantity below 10^{QUANTITY_DIGITS}", quantity)


def _sign_rule(meter: Meter) -> Rule:
    quantity = pl.col("quantity")
    if meter.aggregation in POSITIVE_AGGREGATIONS:
        return Rule("quantity_not_positive", quantity <= 0, "more than 0", quantity)
    return Rule("quantity_negative", quantity < 0, "0 or more", quantity)


def _dimension_rules(meter: Meter) -> list[Rule]:
    missing = [
        Rule("dimension_missing", pl.col(d.name).is_null(), f"a value of dimension {d.name}", pl.lit("none"))
        for d in meter.dimensions
        if d.needs_value
    ]
    infinite = [
        Rule("dimension_type", ~pl.col(d.name).is_finite(), f"a finite number in {d.name}", pl.col(d.name))
        for d in meter.dimensions
        if d.type == "number"
    ]
    return missing + infinite
