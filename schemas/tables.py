"""The columns and types of every table in the lake, stated once, as pandera models."""

from __future__ import annotations

from typing import Annotated

import pandera.polars as pa
import polars as pl

Quantity = Annotated[pl.Decimal, 38, 9]
Instant = Annotated[pl.Datetime, "us", "UTC"]


class Event(pa.DataFrameModel):
    """One landed usage fact; the declared dimensions stand between `received_at` and `metadata`."""

    idempotency_key: pl.String = pa.Field(nullable=True)
    subject: pl.String
    quantity: Quantity
    timestamp: Instant
    received_at: Instant
    metadata: pl.String = pa.Field(nullable=True)


class Measures(pa.DataFrameModel):
    """What every aggregate row says of its events: `quantity` is billed, the others merge exactly.

    `first` is the event with the smallest (timestamp, received_at, quantity), `last` the greatest.
    """

    quantity: Quantity
    events: pl.Int64 = pa.Field(ge=1)
    quantity_sum: Quantity
    quantity_min: Quantity
    quantity_max: Quantity
    quantity_first: Quantity
    first_at: Instant
    first_received_at: Instant
    quantity_last: Quantity
    last_at: Instant
    last_received_at: Instant


class Usage(pa.DataFrameModel):
    """Keys of `usage`; the declared dimensions follow, then the measures."""

    subject: pl.String


class UsageBySubject(pa.DataFrameModel):
    """Keys of `usage_by_subject`; the measures follow."""

    subject: pl.String


class UsageByDimension(pa.DataFrameModel):
    """Keys of `usage_by_dimension` and the number of distinct subjects; the measures follow."""

    dimension: pl.String
    value: pl.String = pa.Field(nullable=True)
    subjects: pl.Int64 = pa.Field(ge=1)


class Answer(pa.DataFrameModel):
    """Bounds of an answer's bucket; the fields that it is grouped by follow, then the measures."""

    bucket_start: Instant
    bucket_end: Instant


class Billed(pa.DataFrameModel):
    """Keys of an export's `usage`; the subject, the chosen dimensions and the measures follow."""

    period_start: Instant
    period_end: Instant
    meter: pl.String
    unit: pl.String
    aggregation: pl.String


class Adjustment(pa.DataFrameModel):
    """What an export's `adjustments` say of a row after the same keys; a row that is not there has no quantity."""

    quantity_before: Quantity = pa.Field(nullable=True)
    quantity_after: Quantity = pa.Field(nullable=True)
    quantity_change: Quantity


class Quarantine(pa.DataFrameModel):
    """One rejected row: why, what was wrong in words, its original text, and where it came from."""

    reason: pl.String
    detail: pl.String
    raw: pl.String
    source: pl.String
    position: pl.Int64
    landed_at: Instant


def column_types(model: type[pa.DataFrameModel]) -> dict[str, pl.DataType]:
    """The model's columns, in order, with their Polars types."""
    return {name: column.dtype.type for name, column in model.to_schema().columns.items()}


QUANTITY = pl.Decimal(38, 9)
# Of `quantity` of avg and rate in tables and exports of earlier versions.
EARLIER_QUOTIENT = pl.Float64()
INSTANT = pl.Datetime("us", "UTC")
# Of answers that add levels: how many series were added.
SERIES_COUNT = "series_count"
MEASURES = list(column_types(Measures))
# Columns of the event and aggregate tables, which a dimension would collide with; meter and date are in the path.
RESERVED_NAMES = frozenset(
    {name for model in (Event, Measures, Usage, UsageByDimension) for name in column_types(model)}
    | {"meter", "date"}
)
