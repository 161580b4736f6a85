"""Convert rows of CSV to lines of JSON, so that the same rules apply to them as to every other event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain, groupby
from operator import attrgetter
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.csv

from jobs.land.read.compression import ByteStream
from jobs.land.read.csv_header import Header, read_header
from jobs.land.read.csv_records import Chunk, Record, csv_chunks, field_texts, split_records
from jobs.land.read.line_batches import (
    BYTE_ORDER_MARK,
    KEPT_OF_LONG_LINE_BYTES,
    MAX_LINE_BYTES,
    TOO_LONG,
    Batch,
    Refused,
)
from jobs.land.read.tabular import json_lines, replace_lines
from lake.events.arrow_json import quoted
from schemas.meter import Meter

# Of very short rows there are millions in a chunk.
ROWS_AT_ONCE = 50_000
_JSON_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_BOOLEANS = ["true", "false"]
_QUOTES = "a quote within an unquoted field, text after a closing quote, or a quote that is not closed"
_HAS_ROWS = "rows of this file within quotes: a quote is missing, or there is one too many"


class _Row(NamedTuple):
    """A row that is no event, with its number."""

    number: int
    refused: Refused


class _Rows(NamedTuple):
    """The rows of a chunk: those that may be events, as text with their numbers, and the refused ones.

    `next_number` is the number of the first row of the next chunk.
    """

    fields: pl.DataFrame
    numbers: Sequence[int]
    refused: list[_Row]
    next_number: int


def csv_batches(stream: ByteStream, name: str, meters: Mapping[str, Meter]) -> Iterator[Batch]:
    """Yield the rows of a CSV file with a header: fields of events, and further columns as metadata.

    An empty field is no value, and a row of empty fields is skipped. The text of a further column is a number or a
    boolean where the row's meter declares such a dimension. A row that is not RFC 4180 or does not fit the header is
    refused with its own text. Raises BadInputError if there is no header with the columns of an event, each once.
    """
    chunks = csv_chunks(stream)
    header, first = read_header(chunks, name, meters)
    number, refused = 1, list[_Row]()
    for chunk in chain([first], chunks):
        rows = _plain_rows(chunk, header, meters, number) or _checked_rows(chunk, header, meters, number)
        number, refused = rows.next_number, refused + rows.refused
        for start in range(0, len(rows.numbers), ROWS_AT_ONCE):
            numbers = rows.numbers[start : start + ROWS_AT_ONCE]
            lines = _lines(rows.fields.slice(start, ROWS_AT_ONCE), meters)
            is_last = start + ROWS_AT_ONCE >= len(rows.numbers)
            yield from Batch(lines, numbers[0], positions=numbers, ends_block=is_last).in_pieces()
        # Bounds of batches decide which rows each landed file has: rows after the last event go with the next batch.
        last = rows.numbers[-1] if rows.numbers else number
        yield from _refused_batches([row for row in refused if row.number < last])
        refused = [row for row in refused if row.number >= last]
    yield from _refused_batches(refused)


def _plain_rows(chunk: Chunk, header: Header, meters: Mapping[str, Meter], first: int) -> _Rows | None:
    """Return the rows of a chunk if all of them can be read at once; else None."""
    if chunk.records is not None or any(_has_rows(text, header, meters) for text in chunk.multiline):
        return None
    try:
        fields = _fields(chunk.text, header)
    except pa.ArrowInvalid:
        return None
    next_number = first + fields.height
    return _Rows(fields, range(first, next_number), [], next_number)


def _checked_rows(chunk: Chunk, header: Header, meters: Mapping[str, Meter], first: int) -> _Rows:
    """Return the rows of a chunk, each of which is checked by itself."""
    records = split_records(chunk.text, len(chunk.text))[0] if chunk.records is None else chunk.records
    numbers, texts, refused = list[int](), list[bytes](), list[_Row]()
    for number, record in enumerate(records, first):
        why = _check(record, header, meters)
        if why:
            refused.append(_Row(number, why))
        elif record.text.strip(b',"'):
            numbers.append(number)
            texts.append(record.text)
    return _Rows(_fields(b"\n".join(texts), header), numbers, refused, first + len(records))


def _check(record: Record, header: Header, meters: Mapping[str, Meter]) -> Refused | None:
    """Return why a record can't be an event, whatever the values of its fields; else None."""
    text = record.text
    if len(text) > MAX_LINE_BYTES:
        return Refused(text[:KEPT_OF_LONG_LINE_BYTES], "too_large", TOO_LONG)
    if not record.legal:
        return Refused(text, "not_json", f"expected RFC 4180, found {_QUOTES}")
    if _has_rows(text, header, meters):
        return Refused(text, "not_json", f"expected RFC 4180, found {_HAS_ROWS}")
    number = len(field_texts(text)) if b'"' in text else text.count(b",") + 1
    if number != len(header.columns) and text.strip(b',"'):
        return Refused(text, "not_json", _wrong_number(len(header.columns), number))
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return Refused(text, "not_json", f"expected UTF-8, found {error}")
    return None


@cache
def _wrong_number(expected: int, found: int) -> str:
    """Return one text object for all such rows: a file may have very many of them."""
    return f"expected {expected} fields as in the header, found {found}"


def _has_rows(record: bytes, header: Header, meters: Mapping[str, Meter]) -> bool:
    """Return whether a further line of the record looks like a row: as many fields, and a meter in its column."""
    _, *lines = record.strip(b"\r\n").splitlines() or [b""]
    commas = len(header.columns) - 1
    named = [line.split(b",")[header.meter].strip(b'" ') for line in lines if line.count(b",") == commas]
    return any(name.decode(errors="replace") in meters for name in named)


def _fields(text: bytes, header: Header) -> pl.DataFrame:
    """Return the fields of records, as text. Raises ArrowInvalid if one is not UTF-8 or does not fit the header."""
    columns = header.columns
    if not text:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String()))
    # Without the line end, the reader would drop these bytes as a byte order mark.
    whole = b"\n" + text if text.startswith(BYTE_ORDER_MARK) else text
    table = pyarrow.csv.read_csv(
        pa.BufferReader(whole),
        # One block on one thread costs less; the other cores read other batches.
        read_options=pyarrow.csv.ReadOptions(
            column_names=columns, block_size=len(whole) + 1, use_threads=False
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )
    return pl.DataFrame(table)


def _lines(fields: pl.DataFrame, meters: Mapping[str, Meter]) -> bytes:
    """Return the rows as lines of JSON; blank where a row has no value."""
    named = fields["meter"].unique().drop_nulls().str.strip_chars().unique().sort()
    typed = partial(_typed, present=[meters[name] for name in named if name in meters])
    lines = json_lines(fields, typed)
    if fields["meter"].null_count():
        empty = fields.select(pl.all_horizontal(pl.all().is_null())).to_series().arg_true().to_list()
        lines = replace_lines(lines, dict.fromkeys(empty, b""))
    return lines


def _refused_batches(rows: list[_Row]) -> Iterator[Batch]:
    """Yield the rows in batches, one for each reason and detail."""
    why = attrgetter("refused.reason", "refused.detail")
    for (reason, detail), group in groupby(sorted(rows, key=why), why):
        alike = list(group)
        texts = [row.refused.text for row in alike]
        lines = b"\n".join(text.replace(b"\n", b" ") for text in texts)
        numbers = [row.number for row in alike]
        yield from Batch(lines, numbers[0], Refused(b"", reason, detail), numbers, texts).in_pieces()


def _typed(name: str, present: Sequence[Meter]) -> pl.Expr:
    """Return a further column as JSON: a number or boolean where the row's meter declares it so, else text."""
    text, value = pl.col(name).str.strip_chars(), quoted(pl.col(name))
    for dtype, typed in ((pl.Float64(), _as_number(text)), (pl.Boolean(), _as_boolean(text))):
        names = [meter.name for meter in present if meter.dimension_dtypes.get(name) == dtype]
        if names:
            declared = pl.col("meter").str.strip_chars().is_in(names)
            value = pl.when(declared & typed.is_not_null()).then(typed).otherwise(value)
    return value


def _as_number(text: pl.Expr) -> pl.Expr:
    """Return the JSON of a number in any form that a quantity may have, such as `.5`, `5.` or `+5`; null for others."""
    number = text.cast(pl.Float64, strict=False)
    finite = text.str.contains(_NUMBER) & number.is_finite()
    return pl.when(text.str.contains(_JSON_NUMBER)).then(text).when(finite).then(number.cast(pl.String))


def _as_boolean(text: pl.Expr) -> pl.Expr:
    """Return the JSON of `true` and `false`, in upper or lower case; null for other texts."""
    lower = text.str.to_lowercase()
    return pl.when(lower.is_in(_BOOLEANS)).then(lower)
