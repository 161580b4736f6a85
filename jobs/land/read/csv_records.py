"""Split a CSV file into the records of RFC 4180, and resume after text that is none.

A line that begins no record of RFC 4180 (text after a closing quote, a quote within an unquoted field, a quote that is
never closed) becomes a row of its own, which is rejected; reading resumes with the next line, so that one stray quote
costs one row. All other records may contain line ends in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from jobs.land.read.byte_values import byte_values
from jobs.land.read.compression import ByteStream
from jobs.land.read.line_batches import BYTE_ORDER_MARK, MAX_LINE_BYTES

BLOCK_BYTES = 8 * 2**20
# A quote that is not closed within this many bytes is a stray one.
MAX_QUOTED_BYTES = MAX_LINE_BYTES + BLOCK_BYTES
_QUOTED = rb'"(?:[^"]++|"")*+"'
_FIELD = rb"(?:" + _QUOTED + rb'|[^",\r\n]*+)'
_LINE_END = rb"(\r\n|\r|\n|\Z)"
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+" + _LINE_END)
_LINE = re.compile(rb"[^\r\n]*+" + _LINE_END)
_UNCLOSED = re.compile(rb"(?:" + _FIELD + rb',)*+"(?:[^"]++|"")*+\Z')
_FIELDS = re.compile(rb"(?:\A|,)(" + _FIELD + rb")")
_QUOTE = ord('"')
# The characters allowed before an opening and after a closing quote: a second quote makes both an escaped one.
_BESIDE_QUOTES = list(b',\r\n"')


class Record(NamedTuple):
    """A record, or a line that is none: its text without the line end, and whether it is RFC 4180."""

    text: bytes
    legal: bool


class Chunk(NamedTuple):
    """The text of complete records of a file, in order.

    Either all of them are RFC 4180, and `multiline` are the texts of those that contain line ends; or `records` are the
    records that the text was split into.
    """

    text: bytes
    multiline: list[bytes]
    records: list[Record] | None = None


def csv_chunks(stream: ByteStream) -> Iterator[Chunk]:
    """Yield the records of a stream without its byte order mark: at a time, those that end in one block.

    A record that has no end within MAX_LINE_BYTES is cut, and the rest of its line is skipped.
    """
    rest = stream.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
    size = BLOCK_BYTES - len(BYTE_ORDER_MARK)
    while block := stream.read(size):
        chunk, rest = _whole_records(rest + block)
        while chunk.text:
            yield chunk
            if chunk.records and not rest and not chunk.text.endswith((b"\n", b"\r")):
                rest = _skip_line(stream)
            chunk, rest = _whole_records(rest)
        size = BLOCK_BYTES
    while rest:
        chunk, rest = _whole_records(rest, last=True)
        yield chunk


def split_records(text: bytes, size: int, *, last: bool = True) -> tuple[list[Record], int]:
    """Return the records that begin in the first `size` bytes of a text, without blank lines, and where they end.

    An incomplete record at the end is not returned, unless this is the `last` text of the file.
    """
    records: list[Record] = []
    at = 0
    while at < min(len(text), size):
        match = _RECORD.match(text, at)
        legal = match is not None
        if not match:
            if not last and len(text) - at <= MAX_QUOTED_BYTES and _UNCLOSED.match(text, at):
                break
            match = _LINE.match(text, at)
        start, end = at, match.start(1) if match else len(text)
        if end == len(text) and not last and end - start <= MAX_LINE_BYTES:
            break
        at = match.end() if match else end
        if end > start:
            records.append(Record(text[start:end], legal))
    return records, at


def first_record(text: bytes) -> tuple[Record | None, int]:
    """Return the first record of a text (None if all lines are blank), and where the next line begins."""
    at = len(text) - len(text.lstrip(b"\r\n"))
    match = _RECORD.match(text, at)
    whole = match or _LINE.match(text, at)
    if not whole or at == len(text):
        return None, at
    return Record(text[at : whole.start(1)], legal=match is not None), whole.end()


def field_texts(record: bytes) -> list[bytes]:
    """Return the fields of a record of RFC 4180, without their quotes."""
    return [
        field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field
        for field in _FIELDS.findall(record)
    ]


def _whole_records(text: bytes, *, last: bool = False) -> tuple[Chunk, bytes]:
    """Return the complete records at the start of a text, and the rest of it."""
    codes = byte_values(text)
    quotes = (codes == _QUOTE).arg_true() if b'"' in text else pl.Series(dtype=pl.UInt32)
    end = len(text) if last else _end_of_records(text, quotes)
    if len(text) <= MAX_LINE_BYTES and _are_legal(codes, quotes.filter(quotes < end), end):
        whole = text[:end]
        return Chunk(whole, _multiline(whole, codes[:end], quotes)), text[end:]
    records, end = split_records(text, BLOCK_BYTES, last=last)
    return Chunk(text[:end], [], records), text[end:]


def _end_of_records(text: bytes, quotes: pl.Series) -> int:
    """Return the end of the last line end outside quotes, if all quotes are as in RFC 4180; 0 if there is none."""
    number = len(quotes)
    for after in range(number - number % 2, -1, -2):
        start = quotes[after - 1] if after else 0
        stop = quotes[after] if after < number else len(text)
        last_end = max(text.rfind(b"\n", start, stop), text.rfind(b"\r", start, stop))
        if last_end >= 0:
            return last_end + 1
    return 0


def _are_legal(codes: pl.Series, quotes: pl.Series, end: int) -> bool:
    """Return whether quotes open and close in turn, at the edges of fields."""
    if len(quotes) % 2:
        return False
    before = quotes.gather_every(2).cast(pl.Int64) - 1
    behind = quotes.gather_every(2, offset=1) + 1
    beside = pl.concat([codes.gather(before.filter(before >= 0)), codes.gather(behind.filter(behind < end))])
    return bool(beside.is_in(_BESIDE_QUOTES).all())


def _multiline(text: bytes, codes: pl.Series, quotes: pl.Series) -> list[bytes]:
    """Return the records that have a line end in quotes."""
    if quotes.is_empty():
        return []
    ends = ((codes == ord("\n")) | (codes == ord("\r"))).arg_true()
    quoted = quotes.search_sorted(ends) % 2 == 1
    if not quoted.any():
        return []
    bounds = pl.concat([ends.filter(~quoted), pl.Series([len(text)], dtype=ends.dtype)])
    numbers = bounds.search_sorted(ends.filter(quoted)).unique(maintain_order=True).to_list()
    starts = [bounds[number - 1] if number else 0 for number in numbers]
    return [text[start : bounds[number]] for start, number in zip(starts, numbers, strict=True)]


def _skip_line(stream: ByteStream) -> bytes:
    """Skip to the end of a line; return the bytes that were read after it."""
    while block := stream.read(BLOCK_BYTES):
        match = re.search(rb"[\r\n]", block)
        if match:
            return bytes(block[match.end() :])
    return b""
