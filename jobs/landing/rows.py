"""Rows of CSV and Parquet as lines of JSON, so that they are held to the same rules as every other event."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from jobs.landing.batches import Batch, Refused
from schemas.errors import BadInputError
from schemas.meter import Meter

BATCH_ROWS = 50_000
BLOCK_BYTES = 8 * 2**20
FIELDS = ("idempotency_key", "subject", "meter", "quantity", "timestamp", "received_at")
REQUIRED = ("subject", "meter", "quantity")
_INSTANT = "%Y-%m-%dT%H:%M:%S%.6fZ"
_NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$"
_TRUTH = ["true", "false"]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)
MISFIT = "the row has not as many fields as the header"
# What readers raise of a damaged file; names in it that are not Unicode are ValueErrors.
_DAMAGE = (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def parquet_lines(path: Path, name: str) -> Iterator[bytes]:
    """The rows of a Parquet file: event fields, `metadata` (JSON text or a struct), other columns are metadata.

    Raises BadInputError if it can't be read, or if a column that an event needs is missing or of a wrong type.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = pl.DataFrame(file.schema_arrow.empty_table()).schema
    except _DAMAGE as error:
        raise _unreadable(name, "a Parquet file", error) from error
    _check_columns(schema, name)
    try:
        for batch in file.iter_batches(BATCH_ROWS):
            if batch.num_rows:
                yield _lines(pl.DataFrame(pa.Table.from_batches([batch])))
    except _DAMAGE as error:
        raise _unreadable(name, "a Parquet file that can be read to its end", error) from error


def csv_batches(stream: pa.NativeFile, name: str, meters: Mapping[str, Meter]) -> Iterator[Batch]:
    """The rows of a CSV file with a header: event fields, and further columns as metadata by their names.

    An empty field is no value. The text of a further column is a number or a truth value where the row's meter
    declares such a dimension. A row that does not fit the header is refused, as its own text. Raises BadInputError if
    there is no header with the columns of an event, each once.
    """
    start = stream.read(BLOCK_BYTES)
    header = _header(start, name)
    misfits: dict[int, bytes] = {}

    def misfit(row: pa.csv.InvalidRow) -> str:
        # The header is row 1 to the reader.
        misfits[row.number - 1] = row.text.replace("\n", " ").encode()
        return "skip"

    source = pa.PythonFile(_Chained(start, stream), mode="r")
    position = 1
    try:
        reader = pyarrow.csv.open_csv(
            source,
            # Rows have numbers only where one thread reads them.
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=misfit),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
        for batch in reader:
            if batch.num_rows:
                lines = _lines(pl.DataFrame(pa.Table.from_batches([batch])), meters)
                positions = _positions(position, batch.num_rows, misfits)
                yield Batch(lines, position, positions=positions)
                position = positions[-1] + 1
                yield from _misfits(misfits, position)
        yield from _misfits(misfits, None)
    except _DAMAGE as error:
        raise _unreadable(name, "CSV in UTF-8", error) from error


def _header(start: bytes, name: str) -> list[str]:
    text = start.decode("utf-8-sig", errors="replace")
    try:
        header = next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error as error:
        raise _unreadable(name, "CSV with a header", error) from error
    twice = [column for number, column in enumerate(header) if column in header[:number]]
    if twice:
        raise BadInputError(
            f"column {twice[0]!r} stands twice", where=name, expected="each column once", found="two alike"
        )
    _check_columns(pl.Schema(dict.fromkeys(header, pl.String())), name)
    return header


def _positions(first: int, rows: int, misfits: Mapping[int, bytes]) -> list[int]:
    """The numbers of rows that fit, of which the first may be this one."""
    if not misfits:
        return list(range(first, first + rows))
    found = (number for number in count(first) if number not in misfits)
    return list(islice(found, rows))


def _misfits(misfits: dict[int, bytes], before: int | None) -> Iterator[Batch]:
    """The misfits so far, taken out: what the reader has read ahead differs from time to time."""
    numbers = sorted(number for number in misfits if before is None or number < before)
    if numbers:
        lines = b"\n".join(misfits.pop(number) for number in numbers)
        yield Batch(lines, numbers[0], Refused(b"", "not_json", MISFIT), numbers)


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
        _check_type(schema, name, column, isinstance(schema.get(column, pl.String()), _TEXTS), "text")
    quantity = schema["quantity"]
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
        return pl.coalesce(_json(pl.lit(odd)), _object(columns))
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
    key = pl.select(_json(pl.lit(name))).item()
    return pl.concat_str(pl.lit(f"{key}:"), value)


def _value(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, _TEXTS):
        return _json(column.cast(pl.String))
    if dtype == pl.Binary():
        return _json(column.bin.encode("base64"))
    if dtype.is_float():
        # JSON has no such number; as text it is kept, and is no value of a dimension that is one.
        return (
            pl.when(column.is_finite()).then(column.cast(pl.String)).otherwise(_json(column.cast(pl.String)))
        )
    if dtype.is_numeric() or dtype == pl.Boolean():
        return column.cast(pl.String)
    return _json(column)


def _typed(name: str, meters: Mapping[str, Meter]) -> pl.Expr:
    def declared(dtype: pl.DataType) -> pl.Expr:
        return (
            pl.col("meter")
            .str.strip_chars()
            .is_in([m.name for m in meters.values() if m.dimension_dtypes.get(name) == dtype])
        )

    text = pl.col(name).str.strip_chars()
    number = declared(pl.Float64()) & text.str.contains(_NUMBER)
    truth = declared(pl.Boolean()) & text.is_in(_TRUTH)
    return pl.when(number | truth).then(text).otherwise(_json(pl.col(name)))


def _json(value: pl.Expr) -> pl.Expr:
    """Text as a JSON string, anything else as its JSON; null stays null."""
    encoded = pl.struct(value.alias("t")).struct.json_encode().str.slice(5).str.head(-1)
    return pl.when(value.is_not_null()).then(encoded)


def _unreadable(name: str, expected: str, error: Exception) -> BadInputError:
    return BadInputError(
        "could not read this input",
        where=name,
        expected=expected,
        found=(str(error) or type(error).__name__).splitlines()[0],
    )
