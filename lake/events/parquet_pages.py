"""How much memory the pages of a Parquet file need once they are decoded, from the headers of all pages.

A footer has the uncompressed size of a column chunk, but not the size of its dictionary's values, each of which may
repeat in millions of rows, and it may be wrong. Readers go by the header of each page.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# The types of fields in compact Thrift.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_HEADER_BYTES, _MAX_HEADER_BYTES = 2**10, 2**20
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_BY_DICTIONARY, _BY_PREFIX = (2, 8), 7
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
# What a reader needs for each value of text besides its bytes.
_TEXT_BYTES = 16
_CODECS = {"ZSTD": "zstd", "SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "LZ4": "lz4_raw"}
# Longer dictionaries are not searched for their longest value.
_MAX_DICTIONARY_BYTES = 2**25
# Before each value of a dictionary of text.
_LENGTH = struct.Struct("<I")


class ColumnSize(NamedTuple):
    """Bytes of one column of a row group: of its largest pages, and of its decoded values.

    `row_bytes` is the size of a row: for a flat column in the page with the largest rows, else on average.
    `scanned_bytes` is `decoded_bytes` for a reader that keeps the text of a dictionary once.
    """

    name: str
    page_bytes: int
    row_bytes: float
    decoded_bytes: int
    scanned_bytes: int
    repeated: bool


class _Page(NamedTuple):
    """The header of a page, and where its content begins."""

    kind: int
    uncompressed_bytes: int
    compressed_bytes: int
    values: int
    encoding: int
    start: int


def column_sizes(
    metadata: pq.FileMetaData, source: BinaryIO, row_group: int, columns: Collection[str] | None
) -> Iterator[ColumnSize]:
    """Yield the sizes of the leaves of these columns, or of all. Raises ValueError for invalid headers."""
    group = metadata.row_group(row_group)
    rows = max(group.num_rows, 1)
    for number, leaf in column_leaves(metadata.schema, columns):
        yield _column_size(source, group.column(number), leaf, rows)


def column_leaves(
    schema: pq.ParquetSchema, columns: Collection[str] | None
) -> Iterator[tuple[int, pq.ColumnSchema]]:
    """Yield the leaves of these columns, or of all, each with its number in every row group."""
    for number in range(len(schema)):
        leaf = schema.column(number)
        if columns is None or leaf.path in columns or leaf.path.split(".")[0] in columns:
            yield number, leaf


def fixed_width(leaf: pq.ColumnSchema) -> int | None:
    """Return the bytes of each decoded value of a leaf; None for text, whose values have any length."""
    if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return int(leaf.length)
    return _WIDTHS.get(leaf.physical_type)


def _column_size(source: BinaryIO, chunk: Any, leaf: Any, rows: int) -> ColumnSize:
    width = fixed_width(leaf)
    dictionary, largest, longest = 0, 0, 0
    decoded, dense, shared = 0, 0.0, 0
    for page in _pages(source, chunk):
        if page.kind == _DICTIONARY:
            dictionary = page.uncompressed_bytes
            longest = width or _longest(source, page, chunk.compression) + _TEXT_BYTES
            continue
        largest = max(largest, page.uncompressed_bytes)
        size = _decoded_bytes(page, width, longest)
        decoded += size
        if width is None and page.encoding in _BY_DICTIONARY:
            shared += size - page.values * _TEXT_BYTES
        dense = max(dense, size / max(page.values, 1))
    repeated = leaf.max_repetition_level > 0
    row_bytes, scanned = decoded / rows if repeated else dense, decoded - shared + dictionary
    return ColumnSize(leaf.path, dictionary + largest, row_bytes, decoded, scanned, repeated)


def _decoded_bytes(page: _Page, width: int | None, longest: int) -> int:
    if width is not None:
        return page.values * width
    if page.encoding in _BY_DICTIONARY:
        return page.values * longest
    # Each value may repeat the whole content of the page.
    each = page.uncompressed_bytes if page.encoding == _BY_PREFIX else 0
    return page.uncompressed_bytes + page.values * (each + _TEXT_BYTES)


def _pages(source: BinaryIO, chunk: Any) -> Iterator[_Page]:
    """Yield the pages of a column chunk, until all of its values are in them."""
    starts = [start for start in (chunk.dictionary_page_offset, chunk.data_page_offset) if start]
    position, remaining = min(starts, default=0), chunk.num_values
    while remaining > 0:
        page = _page_at(source, position)
        yield page
        if page.kind != _DICTIONARY:
            remaining -= page.values
        position = page.start + page.compressed_bytes


def _page_at(source: BinaryIO, position: int) -> _Page:
    size = _HEADER_BYTES
    while True:
        source.seek(position)
        body = source.read(size)
        try:
            fields, length = _struct(body, 0)
        except IndexError:
            if size >= _MAX_HEADER_BYTES or len(body) < size:
                raise ValueError(f"no header of a page at byte {position}") from None
            size = _MAX_HEADER_BYTES
            continue
        return _page(fields, position, position + length)


def _page(fields: dict[int, Any], position: int, start: int) -> _Page:
    kind = fields.get(1)
    inner = fields.get(5 if kind == _DATA else 7 if kind == _DICTIONARY else 8, {})
    numbers = [kind, fields.get(2), fields.get(3), inner.get(1), inner.get(4 if kind == _DATA_V2 else 2)]
    valid = [number for number in numbers if isinstance(number, int) and number >= 0]
    # A page without any byte would be read forever.
    if len(valid) < len(numbers) or start <= position:
        raise ValueError(f"no header of a page at byte {position}")
    kind, uncompressed, compressed, values, encoding = valid
    return _Page(kind, uncompressed, compressed, values, encoding, start)


def _longest(source: BinaryIO, page: _Page, compression: str) -> int:
    """Return the length of the longest text in a dictionary; the dictionary's own if it can't be searched."""
    codec = _CODECS.get(compression)
    if page.uncompressed_bytes > _MAX_DICTIONARY_BYTES or not (codec or compression == "UNCOMPRESSED"):
        return page.uncompressed_bytes
    source.seek(page.start)
    body = source.read(page.compressed_bytes)
    if codec:
        body = pa.decompress(body, page.uncompressed_bytes, codec, asbytes=True)
    longest, position, last = 0, 0, len(body) - _LENGTH.size
    while position <= last:
        (length,) = _LENGTH.unpack_from(body, position)
        if length > longest:  # noqa: PLR1730 - a call would double the time, of some hundred thousand values
            longest = length
        position += _LENGTH.size + length
    return longest


def _struct(body: bytes, position: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct of compact Thrift by number, and where it ends. Raises IndexError if it is cut off."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := body[position]) != 0:
        position += 1
        if head >> 4:
            number += head >> 4
        else:
            number, position = _integer(body, position)
        fields[number], position = _value(body, position, head & 15)
    return fields, position + 1


def _value(body: bytes, position: int, kind: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, position
    if kind == _STRUCT:
        return _struct(body, position)
    if kind == _BINARY:
        length, position = _varint(body, position)
        # The next byte is read, so that a text that is cut off is noticed.
        return None, position + length
    if kind in (_BYTE, _DOUBLE):
        return None, position + (1 if kind == _BYTE else 8)
    if kind in (_LIST, _SET, _MAP):
        raise ValueError("a list in the header of a page")
    return _integer(body, position)


def _integer(body: bytes, position: int) -> tuple[int, int]:
    raw, position = _varint(body, position)
    return (raw >> 1) ^ -(raw & 1), position


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
