"""Rows of tables as lines of JSON, so that they are held to the same rules as every other event; Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from schemas.errors import BadInputError
from schemas.fields import find_misnamed
from schemas.meter import Meter

BATCH_ROWS = 50_000
FIELDS = ("idempotency_key", "subject", "meter", "quantity", "timestamp", "received_at")
REQUIRED = ("subject", "meter", "quantity")
_INSTANT = "%Y-%m-%dT%H:%M:%S%.6fZ"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)
# What readers raise of a damaged file; names in it that are not Unicode are ValueErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def parquet_lines(source: BinaryIO, name: str, meters: Mapping[str, Meter]) -> Iterator[bytes]:
    """The rows of a Parquet file: event fields, `metadata` (JSON text or a struct), other columns are metadata.

    Raises BadInputError if it can't be read, or if a column that an event needs is missing or of a wrong type.
    """
    try:
        file = pyarrow.parquet.ParquetFile(source)
        schema = pl.DataFrame(file.schema_arrow.empty_table()).schema
    except DAMAGE as error:
        raise unreadable(name, "a Parquet file", error) from error
    check_columns(schema, name, meters)
    try:
        for batch in file.iter_batches(BATCH_ROWS):
            if batch.num_rows:
                yield json_lines(pl.DataFrame(pa.Table.from_batches([batch])), _value)
    except DAMAGE as error:
        raise unreadable(name, "a Parquet file that can be read to its end", error) from error


def check_columns(schema: pl.Schema, name: str, meters: Mapping[str, Meter]) -> None:
    """Raise BadInputError if a column that an event needs is missing, misnamed or of a wrong type.

    The quantity may be missing in a lake with a meter whose events do not need one.
    """
    _check_names(schema.names(), name, meters)
    for column in ("idempotency_key", "subject", "meter"):
        _check_type(schema, name, column, isinstance(schema.get(column, pl.String()), _TEXTS), "text")
    quantity = schema.get("quantity", pl.String())
    _check_type(
        schema, name, "quantity", quantity.is_numeric() or isinstance(quantity, _TEXTS), "a number or text"
    )
    for column in ("timestamp", "received_at"):
        dtype = schema.get(column, pl.String())
        zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
        right = zoned or isinstance(dtype, _TEXTS)
        _check_type(schema, name, column, right, "a timestamp with a zone, or RFC 3339 text")
    metadata = schema.get("metadata", pl.String())
    _check_type(schema, name, "metadata", isinstance(metadata, (*_TEXTS, pl.Struct)), "JSON text or a struct")
    for column, dtype in schema.items():
        right = dtype == pl.Binary() or not _has_bytes(dtype)
        _check_type(schema, name, column, right, "a type that JSON has")


def _check_names(columns: list[str], name: str, meters: Mapping[str, Meter]) -> None:
    # All meters are looked at only where a name is odd, or one is missing.
    misnamed = find_misnamed(columns) and find_misnamed(columns, _declared(meters))
    if misnamed:
        raise BadInputError(
            f"column {misnamed[0]!r} is no field of an event",
            where=name,
            expected=repr(misnamed[1]),
            found=repr(misnamed[0]),
            hint=f"did you mean {misnamed[1]!r}? rename the column",
        )
    optional = "quantity" not in columns and any(not meter.needs_quantity for meter in _readable(meters))
    required = [column for column in REQUIRED if not (optional and column == "quantity")]
    for column in required:
        if column not in columns:
            raise BadInputError(
                f"column {column!r} is missing",
                where=name,
                expected=f"columns {', '.join(required)}, and where there are: idempotency_key, timestamp, metadata",
                found=", ".join(columns)[:200] or "no columns",
            )


def _readable(meters: Mapping[str, Meter]) -> list[Meter]:
    """Return all meters that are in the mapping; one that is listed only may be broken."""
    return [meters[name] for name in meters if name in meters]


def _declared(meters: Mapping[str, Meter]) -> set[str]:
    return {dimension for meter in _readable(meters) for dimension in meter.dimension_names}


def _has_bytes(dtype: pl.DataType) -> bool:
    """Whether bytes lie anywhere in it, for which Polars has no JSON."""
    if isinstance(dtype, pl.Struct):
        return any(_has_bytes(field.dtype) for field in dtype.fields if isinstance(field.dtype, pl.DataType))
    if isinstance(dtype, pl.List | pl.Array):
        return isinstance(dtype.inner, pl.DataType) and _has_bytes(dtype.inner)
    return isinstance(dtype, pl.Binary | pl.Object)


def _check_type(schema: pl.Schema, name: str, column: str, right: bool, expected: str) -> None:  # noqa: FBT001
    if not right:
        raise BadInputError(
            f"column {column!r} is of a wrong type", where=name, expected=expected, found=str(schema[column])
        )


def json_lines(df: pl.DataFrame, value: Callable[[str, pl.DataType], pl.Expr]) -> bytes:
    """Return one line of JSON for each row; `value` makes the JSON of a column that is no field of an event."""
    fields = [_field(name, dtype) for name, dtype in df.schema.items() if name in FIELDS]
    further = [name for name in df.columns if name not in (*FIELDS, "metadata", "date")]
    rows = df.select(*fields, metadata=_metadata(df, further, value))
    # Fields are put together as text: a struct would quote the metadata, which is JSON already.
    quoted = [_member(name, as_json(pl.col(name))) for name in rows.columns if name != "metadata"]
    members = pl.concat_str(
        [*quoted, _member("metadata", pl.col("metadata"))], separator=",", ignore_nulls=True
    )
    lines = rows.select(line=pl.concat_str(pl.lit("{"), members, pl.lit("}")))["line"]
    return "\n".join(lines.to_list()).encode()


def _field(name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).dt.convert_time_zone("UTC").dt.cast_time_unit("us").dt.strftime(_INSTANT)
    # The shortest decimal text of a float is what counts, and Polars writes that.
    return pl.col(name).cast(pl.String)


def _metadata(df: pl.DataFrame, further: list[str], value: Callable[[str, pl.DataType], pl.Expr]) -> pl.Expr:
    columns = [_member(name, value(name, df.schema[name])) for name in further]
    given = df.schema.get("metadata", pl.Null())
    if isinstance(given, pl.Struct):
        columns.append(pl.col("metadata").struct.json_encode().str.slice(1).str.head(-1))
    elif given != pl.Null():
        text = df.get_column("metadata").cast(pl.String).str.strip_chars()
        whole = pl.Series([_is_object(each) for each in text], dtype=pl.Boolean)
        # Line ends of whole JSON lie between its tokens, and would make two lines of one row.
        inner = text.set(~whole, None).str.slice(1).str.head(-1).str.replace_all(r"[\r\n]", " ")
        columns.append(pl.lit(inner.set(inner.str.strip_chars() == "", None)))
        # What is no object stays what it is, and is rejected as such.
        odd = text.set(whole | text.is_in(["", "null"]), None).alias("t")
        return pl.coalesce(as_json(pl.lit(odd)), _object(columns))
    return _object(columns)


def _is_object(text: str | None) -> bool:
    """Whether this is one JSON object and nothing behind it, which might pass for further fields of the event."""
    try:
        return text is not None and _OBJECT.decode(text) is not None
    except (msgspec.DecodeError, RecursionError):
        return False


def _object(members: list[pl.Expr]) -> pl.Expr:
    if not members:
        return pl.lit("{}")
    inner = pl.concat_str(members, separator=",", ignore_nulls=True)
    return pl.concat_str(pl.lit("{"), inner, pl.lit("}"))


def _member(name: str, value: pl.Expr) -> pl.Expr:
    """`"name":value`; null where the value is."""
    key = pl.select(as_json(pl.lit(name))).item()
    return pl.concat_str(pl.lit(f"{key}:"), value)


def _value(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, _TEXTS):
        return as_json(column.cast(pl.String))
    if dtype == pl.Binary():
        return as_json(column.bin.encode("base64"))
    if dtype.is_float():
        # JSON has no such number; as text it is kept, and is no value of a dimension that is one.
        return (
            pl.when(column.is_finite())
            .then(column.cast(pl.String))
            .otherwise(as_json(column.cast(pl.String)))
        )
    if dtype.is_numeric() or dtype == pl.Boolean():
        return column.cast(pl.String)
    return as_json(column)


def as_json(value: pl.Expr) -> pl.Expr:
    """Text as a JSON string, anything else as its JSON; null stays null."""
    encoded = pl.struct(value.alias("t")).struct.json_encode().str.slice(5).str.head(-1)
    return pl.when(value.is_not_null()).then(encoded)


def unreadable(name: str, expected: str, error: Exception) -> BadInputError:
    """Return the error for an input that a reader refused."""
    return BadInputError(
        "could not read this input",
        where=name,
        expected=expected,
        found=(str(error) or type(error).__name__).splitlines()[0],
    )
