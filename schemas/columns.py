"""Columns and types of every table in the lake, defined once, as plain data that needs only Polars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from schemas.meter import Meter

Types = dict[str, pl.DataType]

# The position of an event's row in its partition.
ROW = "row"
QUANTITY = pl.Decimal(38, 9)
# The type of `quantity` of avg and rate in tables and exports of earlier versions.
EARLIER_QUOTIENT = pl.Float64()
INSTANT = pl.Datetime("us", "UTC")
_TEXT, _COUNT = pl.String(), pl.Int64()

# One landed usage fact; the declared dimensions stand between `received_at` and `metadata`.
EVENT_TYPES: Types = {
    "idempotency_key": _TEXT,
    "subject": _TEXT,
    "quantity": QUANTITY,
    "timestamp": INSTANT,
    "received_at": INSTANT,
    "metadata": _TEXT,
}
# Columns of aggregate rows: `quantity` is billed, the others merge exactly. `first` is the event with the smallest
# (timestamp, received_at, quantity), `last` the one with the greatest.
MEASURE_TYPES: Types = {
    "quantity": QUANTITY,
    "events": _COUNT,
    "quantity_sum": QUANTITY,
    "quantity_min": QUANTITY,
    "quantity_max": QUANTITY,
    "quantity_first": QUANTITY,
    "first_at": INSTANT,
    "first_received_at": INSTANT,
    "quantity_last": QUANTITY,
    "last_at": INSTANT,
    "last_received_at": INSTANT,
}
# Keys of `usage_by_subject`, and of `usage`, where the declared dimensions follow; then the measures.
SUBJECT_TYPES: Types = {"subject": _TEXT}
# Keys of `usage_by_dimension` and the number of distinct subjects; the measures follow.
DIMENSION_TYPES: Types = {"dimension": _TEXT, "value": _TEXT, "subjects": _COUNT}
# Bounds of an answer's bucket; the fields that it is grouped by follow, then the measures.
ANSWER_TYPES: Types = {"bucket_start": INSTANT, "bucket_end": INSTANT}
# The first columns of an export's rows; the subject, the chosen dimensions and the measures follow.
BILLED_TYPES: Types = {
    "period_start": INSTANT,
    "period_end": INSTANT,
    "meter": _TEXT,
    "unit": _TEXT,
    "aggregation": _TEXT,
}
# The columns of an export's `adjustments` after the same keys; null for a row that is missing before or after.
ADJUSTMENT_TYPES: Types = dict.fromkeys(("quantity_before", "quantity_after", "quantity_change"), QUANTITY)
# One rejected row: why, what was wrong in words, its original text, and where it came from.
QUARANTINE_TYPES: Types = {
    "reason": _TEXT,
    "detail": _TEXT,
    "raw": _TEXT,
    "source": _TEXT,
    "position": _COUNT,
    "landed_at": INSTANT,
}

MEASURES = list(MEASURE_TYPES)
# The column of answers that add levels: how many series were added.
SERIES_COUNT = "series_count"
# Columns of the event and aggregate tables, which a dimension would collide with; meter and date are in the path.
RESERVED_NAMES = frozenset(
    {*EVENT_TYPES, *MEASURE_TYPES, *SUBJECT_TYPES, *DIMENSION_TYPES} | {"meter", "date"}
)


def event_columns(meter: Meter) -> Types:
    """Return columns and types of a meter's event files: those of an event, with the dimensions before `metadata`."""
    columns = dict(EVENT_TYPES)
    metadata = columns.pop("metadata")
    return columns | meter.dimension_dtypes | {"metadata": metadata}


def aggregate_columns(meter: Meter, table: str) -> Types:
    """Return columns and types of one aggregate table of a meter, in order."""
    keys = {
        "usage": SUBJECT_TYPES | meter.dimension_dtypes,
        "usage_by_subject": SUBJECT_TYPES,
        "usage_by_dimension": DIMENSION_TYPES,
    }
    return keys[table] | MEASURE_TYPES
