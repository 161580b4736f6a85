"""Rows of CSV and Parquet as lines of JSON, so that they are held to the same rules as every other event."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from schemas.errors import BadInputError
from schemas.meter import Meter

BATCH_ROWS = 50_000
BLOCK_BYTES = 8 * 2**20
FIELDS = ("idempotency_key", "subject", "meter", "quantity", "timestamp", "received_at")
REQUIRED = ("subject", "meter", "quantity")
_INSTANT = "%Y-%m-%dT%H:%M:%S%.6fZ"
_NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$"
_TRUTH = ["true", "false"]


def parquet_lines(path: Path, name: str) -> Iterator[bytes]:
    """The rows of a Parquet file: event fields, `metadata` (JSON text or a struct), other columns are metadata.

    Raises BadInputError if it can't be read, or if a column that an event needs is missing or of a wrong type.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = pl.DataFrame(file.schema_arrow.empty_table()).schema
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(name, "a Parquet file", error) from error
    _check_columns(schema, name)
    try:
        for batch in file.iter_batches(BATCH_ROWS):
            yield _lines(pl.DataFrame(pa.Table.from_batches([batch])))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(name, "a Parquet file that can be read to its end", error) from error


def csv_lines(stream: pa.NativeFile, name: str, meters: Mapping[str, Meter]) -> Iterator[bytes]:
    """The rows of a CSV file with a header: event fields, and further columns as metadata by their names.

    An empty field is no value. The text of a further column is a number or a truth value where the row's meter
    declares such a dimension. A row that does not fit the header comes as its own text. Raises BadInputError if there
    is no header with the columns of an event.
    """
    start = stream.read(BLOCK_BYTES)
    header = next(csv.reader(io.StringIO(start.decode("utf-8-sig", errors="replace"))), [])
    _check_columns(pl.Schema(dict.fromkeys(header, pl.String())), name)
    misfits: list[bytes] = []

    def misfit(row: pa.csv.InvalidRow) -> str:
        misfits.append(row.text.replace("\n", " ").encode())
        return "skip"

    source = pa.PythonFile(_Chained(start, stream), mode="r")
    try:
        reader = pyarrow.csv.open_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=misfit),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
        for batch in reader:
            if batch.num_rows:
                yield _lines(pl.DataFrame(pa.Table.from_batches([batch])), meters)
        if misfits:
            yield b"\n".join(misfits)
    except pa.ArrowInvalid as error:
        raise _unreadable(name, "CSV in UTF-8", error) from error


class _Chained(io.RawIOBase):
    """What has been read already, then the rest of the stream."""

    def __init__(self, start: bytes, rest: pa.NativeFile) -> None:
        self._start, self._rest = io.BytesIO(start), rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._start.read(size) or bytes(self._rest.read(size if size >= 0 else None))


def _check_columns(schema: pl.Schema, name: str) -> None:
    for column in REQUIRED:
        if column not in schema:
            raise BadInputError(
                f"column {column!r} is missing",
                where=name,
                expected=f"columns {', '.join(REQUIRED)}, and where there are: idempotency_key, timestamp, metadata",
                found=", ".join(schema)[:200] or "no columns",
            )
    for column in ("idempotency_key", "subject", "meter"):
        _check_type(schema, name, column, schema.get(column, pl.String()) == pl.String(), "text")
    quantity = schema["quantity"]
    _check_type(
        schema, name, "quantity", quantity.is_numeric() or quantity == pl.String(), "a number or text"
    )
    for column in ("timestamp", "received_at"):
        dtype = schema.get(column, pl.String())
        zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
        _check_type(
            schema, name, column, zoned or dtype == pl.String(), "a timestamp with a zone, or RFC 3339 text"
        )


def _check_type(schema: pl.Schema, name: str, column: str, right: bool, expected: str) -> None:  # noqa: FBT001
    if not right:
        raise BadInputError(
            f"column {column!r} is of a wrong type", where=name, expected=expected, found=str(schema[column])
        )


def _lines(df: pl.DataFrame, meters: Mapping[str, Meter] | None = None) -> bytes:
    fields = [_field(name, dtype) for name, dtype in df.schema.items() if name in FIELDS]
    further = [name for name in df.columns if name not in (*FIELDS, "metadata", "date")]
    rows = df.select(*fields, metadata=_metadata(df, further, meters))
    # Fields are put together as text: a struct would quote the metadata, which is JSON already.
    quoted = [_member(name, _json(pl.col(name))) for name in rows.columns if name != "metadata"]
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


def _metadata(df: pl.DataFrame, further: list[str], meters: Mapping[str, Meter] | None) -> pl.Expr:
    values = [_value(name, df.schema[name]) if meters is None else _typed(name, meters) for name in further]
    columns = [_member(name, value) for name, value in zip(further, values, strict=True)]
    given = df.schema.get("metadata", pl.Null())
    if given == pl.String():
        text = pl.col("metadata").str.strip_chars()
        inner = pl.when(text.str.starts_with("{")).then(text.str.slice(1).str.head(-1).str.strip_chars())
        # What is no object stays what it is, and is rejected as such.
        odd = pl.when(~text.str.starts_with("{")).then(_json(text))
        columns.append(pl.when(inner != "").then(inner))
        return pl.coalesce(odd, _object(columns))
    if isinstance(given, pl.Struct):
        columns.append(pl.col("metadata").struct.json_encode().str.slice(1).str.head(-1))
    return _object(columns)


def _object(members: list[pl.Expr]) -> pl.Expr:
    if not members:
        return pl.lit("{}")
    inner = pl.concat_str(members, separator=",", ignore_nulls=True)
    return pl.concat_str(pl.lit("{"), inner, pl.lit("}"))


def _member(name: str, value: pl.Expr) -> pl.Expr:
    """`"name":value`; null where the value is."""
    key = pl.select(_json(pl.lit(name))).item()
    return pl.concat_str(pl.lit(f"{key}:"), value)


def _value(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String():
        return _json(pl.col(name))
    if dtype.is_numeric() or dtype == pl.Boolean():
        return pl.col(name).cast(pl.String)
    return pl.struct(name).struct.json_encode().str.slice(len(name) + 4).str.head(-1)


def _typed(name: str, meters: Mapping[str, Meter]) -> pl.Expr:
    def declared(dtype: pl.DataType) -> pl.Expr:
        return pl.col("meter").is_in(
            [m.name for m in meters.values() if m.dimension_dtypes.get(name) == dtype]
        )

    text = pl.col(name).str.strip_chars()
    number = declared(pl.Float64()) & text.str.contains(_NUMBER)
    truth = declared(pl.Boolean()) & text.is_in(_TRUTH)
    return pl.when(number | truth).then(text).otherwise(_json(pl.col(name)))


def _json(text: pl.Expr) -> pl.Expr:
    """Text as a JSON string; null stays null."""
    encoded = pl.struct(text.alias("t")).struct.json_encode().str.slice(5).str.head(-1)
    return pl.when(text.is_not_null()).then(encoded)


def _unreadable(name: str, expected: str, error: Exception) -> BadInputError:
    return BadInputError(
        "could not read this input", where=name, expected=expected, found=str(error).splitlines()[0]
    )
