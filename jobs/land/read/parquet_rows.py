"""Convert rows of Parquet to lines of JSON, so that the same rules apply to them as to every other event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import polars as pl
import pyarrow as pa

from jobs.land.read.line_batches import Batch
from jobs.land.read.tabular import DAMAGE, FIELDS, check_names, json_lines, unreadable
from lake.events.arrow_json import as_json, has_json
from lake.events.arrow_values import as_instant, as_number_text, as_text, is_text, to_frame
from lake.events.column_kinds import METADATA, MOMENT, QUANTITY, TEXT
from lake.events.parquet_batches import read_batches, read_footer
from schemas.errors import BadInputError
from schemas.meter import Meter

# The size of rows that are converted to text at once.
TEXT_BYTES = 4 * 2**20
_INSTANT = "%Y-%m-%dT%H:%M:%S%.6fZ"


def parquet_batches(
    opened: Callable[[], BinaryIO], name: str, meters: Mapping[str, Meter]
) -> Iterator[Batch]:
    """Yield the rows of a Parquet file: fields of events, `metadata`, and further columns of any type as metadata.

    `opened` opens the file. Raises BadInputError if it can't be read, or if a column that an event needs is missing or
    of a wrong type.
    """
    try:
        schema = read_footer(opened()).schema.arrow
    except DAMAGE as error:
        raise unreadable(name, "a Parquet file", error) from error
    check_names(schema.names, name, meters)
    for field in schema:
        _check_type(field, name)
    try:
        yield from _batches(opened)
    except DAMAGE as error:
        raise unreadable(name, "a Parquet file that can be read to its end", error) from error


def _batches(opened: Callable[[], BinaryIO]) -> Iterator[Batch]:
    position = 1
    for rows, ends_block in read_batches(opened):
        # The text takes many times the bytes of the rows.
        number = max(1, rows.num_rows * TEXT_BYTES // max(rows.nbytes, 1))
        for start in range(0, rows.num_rows, number):
            ends = ends_block and start + number >= rows.num_rows
            lines = _lines(rows.slice(start, number))
            yield from Batch(lines, position + start, ends_block=ends).in_pieces()
        position += rows.num_rows


def _check_type(field: pa.Field, name: str) -> None:
    readable, expected = _READABLE.get(field.name, (has_json, "a type that JSON has"))
    if not readable(field.type) or not has_json(field.type):
        raise BadInputError(
            f"column {field.name!r} is of a wrong type",
            where=name,
            expected=expected,
            found=str(field.type),
        )


def _lines(rows: pa.RecordBatch) -> bytes:
    dtypes = dict(zip(rows.schema.names, rows.schema.types, strict=True))
    texts = [
        _field(name, dtype).alias(name) for name, dtype in dtypes.items() if name in (*FIELDS, "metadata")
    ]
    df = to_frame(rows).with_columns(texts)
    return json_lines(df, lambda name: as_json(pl.col(name), dtypes[name]))


def _field(name: str, dtype: pa.DataType) -> pl.Expr:
    if name == "quantity":
        return as_number_text(pl.col(name), dtype)
    if name == "metadata":
        return METADATA.convert(pl.col(name), dtype)
    if pa.types.is_timestamp(dtype):
        return as_instant(pl.col(name), dtype).dt.strftime(_INSTANT)
    return as_text(pl.col(name), dtype)


def _is_moment(dtype: pa.DataType) -> bool:
    return MOMENT.readable(dtype) or is_text(dtype)


_Readable = tuple[Callable[[pa.DataType], bool], str]
_READABLE: dict[str, _Readable] = {
    **dict.fromkeys(("idempotency_key", "subject", "meter"), (TEXT.readable, TEXT.expected)),
    **dict.fromkeys(("timestamp", "received_at"), (_is_moment, f"{MOMENT.expected}, or RFC 3339 text")),
    "quantity": (QUANTITY.readable, QUANTITY.expected),
    "metadata": (METADATA.readable, METADATA.expected),
}
