"""JSON of Arrow columns of any type, as expressions over the frames of `lake.events.arrow_values.to_frame`."""

from __future__ import annotations

from typing import Literal

import polars as pl
import pyarrow as pa

from lake.events.arrow_values import as_number_text, as_text, is_json, is_list, is_text, is_uuid

types = pa.types


def as_json(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return the JSON of each value of a column of this Arrow type; null for null, `null` for a nested null.

    A number is its shortest decimal text, bytes are base64, a UUID is its 36 characters. Numbers that JSON lacks, such
    as NaN, are text.
    """
    if is_text(dtype) or is_json(dtype) or is_uuid(dtype):
        return quoted(as_text(value, dtype))
    if types.is_floating(dtype):
        text = as_number_text(value, dtype)
        return pl.when(value.is_finite()).then(text).otherwise(quoted(text))
    if types.is_integer(dtype) or types.is_decimal(dtype) or types.is_boolean(dtype):
        return value.cast(pl.String)
    return _nested(value, dtype) if types.is_nested(dtype) else _other(value, dtype)


def has_json(dtype: pa.DataType) -> bool:
    """Return whether values of this type have a JSON: all of Parquet's types, except structs with duplicate field names."""
    if isinstance(dtype, pa.BaseExtensionType):
        return has_json(dtype.storage_type)
    if types.is_struct(dtype):
        names = [field.name for field in dtype]
        return len(set(names)) == len(names) and all(has_json(field.type) for field in dtype)
    if types.is_map(dtype):
        return (is_text(dtype.key_type) or types.is_primitive(dtype.key_type)) and has_json(dtype.item_type)
    if is_list(dtype) or types.is_dictionary(dtype):
        return has_json(dtype.value_type)
    return not (types.is_nested(dtype) or types.is_interval(dtype))


def quoted(text: pl.Expr) -> pl.Expr:
    """Return text as a JSON string, and other values as Polars' JSON of them; null stays null."""
    encoded = pl.struct(text.alias("t")).struct.json_encode().str.slice(5).str.head(-1)
    return pl.when(text.is_not_null()).then(encoded)


def member(name: str, value: pl.Expr) -> pl.Expr:
    """Return `"name":value` of a value that is JSON; null where that is null."""
    key = pl.select(quoted(pl.lit(name))).item()
    return pl.concat_str(pl.lit(f"{key}:"), value)


def _other(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    if isinstance(dtype, pa.BaseExtensionType):
        return as_json(value.ext.storage(), dtype.storage_type)
    if types.is_dictionary(dtype):
        return as_json(value, dtype.value_type)
    if types.is_timestamp(dtype):
        # Polars has no unit of seconds.
        unit: Literal["ms", "us", "ns"] = "ms" if dtype.unit == "s" else dtype.unit
        moments = value * 1000 if dtype.unit == "s" else value
        return quoted(moments.cast(pl.Datetime(unit, "UTC" if dtype.tz else None)))
    return quoted(value.bin.encode("base64")) if _is_bytes(dtype) else quoted(value)


def _is_bytes(dtype: pa.DataType) -> bool:
    varying = types.is_binary(dtype) or types.is_large_binary(dtype) or types.is_binary_view(dtype)
    return bool(varying or types.is_fixed_size_binary(dtype))


def _nested(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    if types.is_struct(dtype):
        fields = [member(field.name, _or_null(value.struct.field(field.name), field.type)) for field in dtype]
        inner = pl.concat_str(fields, separator=",") if fields else pl.lit("")
        return pl.when(value.is_not_null()).then(_between("{", inner, "}"))
    element = pl.element()
    if types.is_map(dtype):
        key = quoted(as_text(element.struct.field("key"), dtype.key_type))
        item = _or_null(element.struct.field("value"), dtype.item_type)
        return _between("{", value.list.eval(pl.concat_str(key, pl.lit(":"), item)).list.join(","), "}")
    # Any other nested type has no JSON here, and raises.
    items = _or_null(element, dtype.value_type) if is_list(dtype) else element
    return _between("[", value.list.eval(items).list.join(","), "]")


def _or_null(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    return as_json(value, dtype).fill_null("null")


def _between(start: str, inner: pl.Expr, end: str) -> pl.Expr:
    return pl.concat_str(pl.lit(start), inner, pl.lit(end))
