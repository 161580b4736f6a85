"""Reads Parquet files of any program batch by batch, in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lake.events.parquet_pages import column_sizes

# The rows and bytes of a batch, whichever is reached first once it is decoded.
BATCH_ROWS = 50_000
BATCH_BYTES = 2**24
READ_BYTES = 2**20
# Limits of the pages in memory at once, of all lists and maps in a row group, and of one row.
MAX_PAGES_BYTES, MAX_REPEATED_BYTES, MAX_ROW_BYTES = 2**28, 2**29, 2**26
# Deeper than any event may be nested; without a limit, a footer could exhaust the stack.
MAX_DEPTH = 80
# What pyarrow raises for a damaged file; names in it that are not Unicode are ValueErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError)


class Rows(NamedTuple):
    """Some rows of a file, without dictionary types; `ends_block` after each `BATCH_ROWS` rows of the file."""

    batch: pa.RecordBatch
    ends_block: bool


class FileSchema:
    """The columns of a Parquet file: as Arrow names their types, and as they are stored. Equal where both are."""

    def __init__(self, arrow: pa.Schema, stored: pq.ParquetSchema) -> None:
        """Take both, as a reader of the file has them."""
        self.stored = stored
        self._arrow = arrow

    @property
    def arrow(self) -> pa.Schema:
        """The columns as Arrow names their types; one of INT96 is one of moments of UTC."""
        columns = [self.stored.column(number) for number in range(len(self.stored))]
        ancient = {column.path for column in columns if column.physical_type == "INT96"}
        moment = pa.timestamp("us", "UTC")
        return pa.schema(
            [field.with_type(moment) if field.name in ancient else field for field in self._arrow]
        )

    def __eq__(self, other: object) -> bool:
        """Return whether columns and types are the same."""
        if not isinstance(other, FileSchema):
            return NotImplemented
        return bool(self._arrow.equals(other._arrow) and self.stored.equals(other.stored))

    def __hash__(self) -> int:
        """Return a hash of the columns' names."""
        return hash(tuple(self._arrow.names))


class Footer(NamedTuple):
    """The footer of a Parquet file: its columns, and the metadata of its row groups."""

    schema: FileSchema
    metadata: pq.FileMetaData


def read_footer(source: Path | BinaryIO) -> Footer:
    """Return the footer of a Parquet file. Raises one of `DAMAGE` if it has none."""
    with _opened(source) as file:
        return Footer(FileSchema(file.schema_arrow, file.schema), file.metadata)


def read_batches(
    source: Path | Callable[[], BinaryIO], columns: Sequence[str] | None = None
) -> Iterator[Rows]:
    """Yield the rows of these columns, or of all, in order, in pieces of a bounded size.

    `source` is a path, or a function that opens the file, which is read in two places by turns. Raises one of `DAMAGE`,
    also for a row that would not fit into a few hundred megabytes.
    """
    content = source if isinstance(source, Path) else source()
    with source.open("rb") if isinstance(source, Path) else source() as pages, _opened(content) as file:
        parts = (
            part
            for group in range(file.num_row_groups)
            for part in file.iter_batches(
                _rows_at_once(file.metadata, pages, group, columns), row_groups=[group], columns=columns
            )
        )
        # A name with dots may also be that of a nested column.
        names = file.schema_arrow.names if columns is None else list(columns)
        yield from _as_blocks(_decode_dictionaries(part.select(names)) for part in parts)


def _opened(source: Path | BinaryIO) -> pq.ParquetFile:
    """Return a Parquet file that is read in pieces, as they are decoded."""
    # INT96 has a larger range than nanoseconds, which would wrap.
    options: dict[str, Any] = {"coerce_int96_timestamp_unit": "us", "schema_depth_limit": MAX_DEPTH}
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BYTES, **options)


def _rows_at_once(
    metadata: pq.FileMetaData, source: BinaryIO, group: int, columns: Sequence[str] | None
) -> int:
    """Return how many rows of a row group may be decoded at once. Raises ValueError if not even one fits."""
    sizes = list(column_sizes(metadata, source, group, columns))
    row_bytes = sum(size.row_bytes for size in sizes)
    limits = {
        "pages": (sum(size.page_bytes for size in sizes), MAX_PAGES_BYTES),
        "lists and maps": (sum(size.decoded_bytes for size in sizes if size.repeated), MAX_REPEATED_BYTES),
        "a row": (row_bytes, MAX_ROW_BYTES),
    }
    for what, (found, limit) in limits.items():
        if found > limit:
            raise ValueError(f"{what} of {found / 2**20:,.0f} MiB in row group {group}, {_TOO_LARGE[what]}")
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(row_bytes, 1))))


_TOO_LARGE = {
    "pages": f"which needs more memory than {MAX_PAGES_BYTES >> 20} MiB at once; write smaller pages",
    "lists and maps": f"which are at most {MAX_REPEATED_BYTES >> 20} MiB; write smaller row groups",
    "a row": f"which is at most {MAX_ROW_BYTES >> 20} MiB",
}


def _decode_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch without dictionaries. Raises ValueError if it is too large then, since values may be long."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    decoded = pa.record_batch(columns, names=batch.schema.names)
    if decoded.nbytes > max(4 * BATCH_BYTES, MAX_ROW_BYTES):
        raise ValueError(f"{decoded.num_rows} rows of {decoded.nbytes >> 20} MiB; {_TOO_LARGE['a row']}")
    return decoded


def _as_blocks(parts: Iterable[pa.RecordBatch]) -> Iterator[Rows]:
    """Yield the same rows in blocks of `BATCH_ROWS` rows, or in smaller parts of `BATCH_BYTES`."""
    waiting, rows, size = list[pa.RecordBatch](), 0, 0
    for part in parts:
        start = 0
        while start < part.num_rows:
            waiting.append(part.slice(start, BATCH_ROWS - rows))
            start, rows, size = start + len(waiting[-1]), rows + len(waiting[-1]), size + waiting[-1].nbytes
            if rows == BATCH_ROWS or size >= BATCH_BYTES:
                yield Rows(_concat(waiting), rows == BATCH_ROWS)
                waiting, rows, size = [], rows % BATCH_ROWS, 0
    if waiting:
        yield Rows(_concat(waiting), ends_block=True)


def _concat(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    # Concatenating copies, so it is avoided.
    return parts[0] if len(parts) == 1 else pa.concat_batches(parts)
