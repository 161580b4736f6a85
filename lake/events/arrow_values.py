"""Converts values of Arrow columns to those of events: exactly, and whole columns at once.

`to_frame` makes a frame of a batch of any types; the other functions return expressions over a column of that frame
and take the Arrow type that the column had.
"""

from __future__ import annotations

import struct
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context
from itertools import product

import polars as pl
import pyarrow as pa

from schemas.columns import INSTANT, QUANTITY

types = pa.types
# Larger than any quantity of an event: it stands for a value that is no number, such as NaN, or too large.
NOT_A_QUANTITY = "9" * 29 + "." + "9" * 9
# No quantity of 38 digits needs more characters.
MAX_QUANTITY_CHARS = 400
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
# The first and last second of the years 1 to 9999. Times beyond can't be of an event; within, no unit overflows.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799
LARGEST_HALF = 65504.0
# By unit: how many make a second, and how many microseconds each has.
_UNITS = {"s": (1, 10**6), "ms": (10**3, 10**3), "us": (10**6, 1)}


def to_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """Return the batch as a frame in which timestamps are integers of their unit, and maps lists of key and value.

    Names must be distinct. Raises pyarrow.ArrowInvalid if the batch is damaged, such as text that is not UTF-8.
    """
    batch.validate(full=True)
    # Column by column: a column of a whole batch would keep the memory of all of them.
    columns = [pl.Series(_plain(column)) for column in batch.columns]
    return pl.DataFrame(
        [column.alias(name) for column, name in zip(columns, batch.schema.names, strict=True)]
    )


def is_text(dtype: pa.DataType) -> bool:
    """Return whether a type is text, however it is encoded; a column without a single value may be text."""
    value = dtype.value_type if types.is_dictionary(dtype) else dtype
    plain = types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
    return bool(plain or types.is_null(value))


def is_number(dtype: pa.DataType) -> bool:
    """Return whether a type is one of the numbers that are read exactly."""
    narrow = types.is_decimal(dtype) and not types.is_decimal256(dtype)
    return bool(types.is_integer(dtype) or types.is_floating(dtype) or narrow or types.is_null(dtype))


def is_uuid(dtype: pa.DataType) -> bool:
    """Return whether a type is Parquet's UUID."""
    return _is_extension(dtype, "arrow.uuid")


def is_json(dtype: pa.DataType) -> bool:
    """Return whether a type is Parquet's JSON."""
    return _is_extension(dtype, "arrow.json")


def is_list(dtype: pa.DataType) -> bool:
    """Return whether a type is a list of whatever layout."""
    sized = types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype)
    return bool(sized or types.is_list_view(dtype) or types.is_large_list_view(dtype))


def as_text(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return text unchanged, JSON as its text, and a UUID as its 36 characters."""
    if is_uuid(dtype):
        digits = value.ext.storage().bin.encode("hex")
        bounds = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))
        return pl.concat_str([digits.str.slice(*bound) for bound in bounds], separator="-")
    return (value.ext.storage() if is_json(dtype) else value).cast(pl.String)


def as_number_text(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return a number as the shortest decimal text that identifies it in its own type; text is unchanged."""
    if types.is_float16(dtype):
        return value.map_batches(_half_texts, return_dtype=pl.String)
    return value.cast(pl.String)


def as_quantity(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return numbers, or texts of numbers, as quantities rounded half-even; `NOT_A_QUANTITY` for anything else."""
    number = value if types.is_integer(dtype) or types.is_decimal(dtype) else _numeric(value, dtype)
    quantity = number.cast(QUANTITY, strict=False)
    none = pl.lit(NOT_A_QUANTITY).cast(QUANTITY)
    return pl.when(value.is_not_null() & quantity.is_null()).then(none).otherwise(quantity)


def as_double(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return the double that is nearest to a number's shortest decimal text."""
    if types.is_float64(dtype) or types.is_integer(dtype) or types.is_null(dtype):
        return value.cast(pl.Float64)
    # By way of text, since casting a decimal divides, and the text of a half float is shorter than that of a double.
    return as_number_text(value, dtype).cast(pl.Float64)


def as_instant(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return timestamps of any unit in microseconds of UTC, truncated, and clipped to the years 1 to 9999."""
    if types.is_null(dtype):
        return value.cast(INSTANT)
    if dtype.unit == "ns":
        return (value // 1000).cast(INSTANT)
    per_second, factor = _UNITS[dtype.unit]
    return (value.clip(_EARLIEST * per_second, _LATEST * per_second) * factor).cast(INSTANT)


def _plain(column: pa.Array) -> pa.Array:
    dtype = _plain_type(column.type)
    return column if dtype == column.type else column.cast(dtype)


def _plain_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type in which Polars can take a column: it has neither all zones and units nor all nested types."""
    if types.is_timestamp(dtype):
        return pa.int64()
    if types.is_decimal256(dtype):
        return pa.string()
    if types.is_decimal32(dtype) or types.is_decimal64(dtype):
        # Polars takes them, but panics on casting them to text.
        return pa.decimal128(dtype.precision, dtype.scale)
    return _plain_nested(dtype) if types.is_nested(dtype) or types.is_dictionary(dtype) else dtype


def _plain_nested(dtype: pa.DataType) -> pa.DataType:
    if types.is_map(dtype):
        entry = [("key", _plain_type(dtype.key_type)), ("value", _plain_type(dtype.item_type))]
        return pa.list_(pa.struct(entry))
    if types.is_struct(dtype):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in dtype])
    if is_list(dtype):
        return pa.large_list(_plain_type(dtype.value_type))
    return _plain_type(dtype.value_type) if types.is_dictionary(dtype) else dtype


def _is_extension(dtype: pa.DataType, name: str) -> bool:
    return isinstance(dtype, pa.BaseExtensionType) and dtype.extension_name == name


def _numeric(value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    """Return the texts that are numbers; null for others."""
    text = as_number_text(value, dtype)
    if not is_text(dtype):
        return text
    trimmed = text.str.strip_chars()
    right = trimmed.str.contains(_NUMBER) & (trimmed.str.len_bytes() <= MAX_QUANTITY_CHARS)
    return pl.when(right).then(trimmed)


def _half_texts(halves: pl.Series) -> pl.Series:
    """Return the shortest decimal text of each half float; Polars' own text is that of a 32-bit float."""
    wide = halves.cast(pl.Float64)
    distinct = wide.unique().drop_nulls()
    texts = pl.Series([_shortest(value) for value in distinct], dtype=pl.String)
    return wide.replace_strict(distinct, texts, return_dtype=pl.String)


def _shortest(half: float) -> str:
    for digits, rounding in product(range(1, 6), (ROUND_HALF_EVEN, ROUND_HALF_UP)):
        number = float(Context(prec=digits, rounding=rounding).create_decimal(half))
        # Fewer digits may round beyond the largest half float.
        if abs(number) <= LARGEST_HALF and struct.unpack("e", struct.pack("e", number))[0] == half:
            return repr(number)
    return repr(half)
