"""Read the header of a CSV file, and refuse a file whose columns are not those of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jobs.land.read.csv_records import Chunk, field_texts, first_record
from jobs.land.read.line_batches import MAX_LINE_BYTES
from jobs.land.read.tabular import check_names
from schemas.errors import BadInputError
from schemas.meter import Meter

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_EXPECTED = "a header in RFC 4180 and UTF-8"


class Header(NamedTuple):
    """The columns of a file, and the index of `meter` among them."""

    columns: list[str]
    meter: int


def read_header(chunks: Iterator[Chunk], name: str, meters: Mapping[str, Meter]) -> tuple[Header, Chunk]:
    """Return the header, which is the first line that is not blank, and the rest of its chunk.

    Raises BadInputError if the line is not CSV, or if a column is duplicated, misnamed or missing.
    """
    first = next((chunk for chunk in chunks if chunk.text.strip(b"\r\n")), Chunk(b"", []))
    record, end = first_record(first.text)
    text = record.text if record else b""
    try:
        columns = [field.decode() for field in field_texts(text)] if text else []
    except UnicodeDecodeError as error:
        raise BadInputError(
            "could not read this input", where=name, expected=_EXPECTED, found=str(error)
        ) from None
    if record and not (record.legal and len(text) <= MAX_LINE_BYTES):
        found = repr(text[:200].decode(errors="replace"))
        raise BadInputError("the header is not CSV", where=name, expected=_EXPECTED, found=found)
    _check(columns, name, meters)
    multiline = first.multiline[1:] if b"\n" in text or b"\r" in text else first.multiline
    behind = Chunk(first.text[end:], multiline, first.records and first.records[1:])
    return Header(columns, columns.index("meter")), behind


def _check(columns: list[str], name: str, meters: Mapping[str, Meter]) -> None:
    for separator, names in _OTHER_SEPARATORS.items():
        if len(columns) == 1 and {"subject", "meter"} <= {
            part.strip('" ').lower() for part in columns[0].split(separator)
        }:
            raise BadInputError(
                f"the columns are separated by {names}",
                where=name,
                expected="commas (RFC 4180)",
                found=repr(columns[0][:200]),
                hint="save the file with commas between its columns; numbers have a point, not a comma",
            )
    check_names(columns, name, meters)
