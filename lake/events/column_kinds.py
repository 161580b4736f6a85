"""The types that columns of events may have in Parquet files, and their conversion to the lake's own types."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from lake.events.arrow_json import as_json
from lake.events.arrow_values import (
    as_double,
    as_instant,
    as_quantity,
    as_text,
    is_json,
    is_number,
    is_text,
    is_uuid,
)

types = pa.types


class Kind(NamedTuple):
    """The types of a column of events: the lake's own, others that are readable, and the conversion to the own type."""

    own: Callable[[pa.DataType], bool]
    readable: Callable[[pa.DataType], bool]
    expected: str
    convert: Callable[[pl.Expr, pa.DataType], pl.Expr]


def is_own_text(dtype: pa.DataType) -> bool:
    """Return whether a type is text as in the lake's own files."""
    return bool(types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype))


def _is_text(dtype: pa.DataType) -> bool:
    return is_text(dtype) or is_uuid(dtype)


def _is_instant(dtype: pa.DataType) -> bool:
    return bool((types.is_timestamp(dtype) and dtype.tz) or types.is_null(dtype))


def _is_metadata(dtype: pa.DataType) -> bool:
    return is_text(dtype) or is_json(dtype) or types.is_struct(dtype) or types.is_map(dtype)


def _is_bool(dtype: pa.DataType) -> bool:
    return bool(types.is_boolean(dtype) or types.is_null(dtype))


def _as_metadata(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    return as_text(value, dtype) if is_text(dtype) or is_json(dtype) else as_json(value, dtype)


TEXT = Kind(is_own_text, _is_text, "string", as_text)
MOMENT = Kind(
    pa.timestamp("us", "UTC").equals,
    _is_instant,
    "timestamp[us, tz=UTC], or another unit and zone",
    as_instant,
)
QUANTITY = Kind(
    pa.decimal128(38, 9).equals,
    lambda dtype: is_number(dtype) or is_text(dtype),
    "decimal128(38, 9), another number, or numeric text",
    as_quantity,
)
METADATA = Kind(is_own_text, _is_metadata, "string of JSON, a struct or a map", _as_metadata)
# By name, and dimensions by the type of their column.
FIELDS = {
    "idempotency_key": TEXT,
    "subject": TEXT,
    "quantity": QUANTITY,
    "timestamp": MOMENT,
    "received_at": MOMENT,
    "metadata": METADATA,
}
DIMENSIONS = {
    pl.String(): TEXT,
    pl.Float64(): Kind(types.is_float64, is_number, "double, or another number", as_double),
    pl.Boolean(): Kind(types.is_boolean, _is_bool, "bool", lambda value, _: value.cast(pl.Boolean)),
}
