"""Finds Parquet files of producers that need too much memory once they are decoded.

Polars decodes a column of a row group as a whole. The footer has its size, but not the size of text in a dictionary,
where a few bytes stand for a long value in each of many rows: that is found in the pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from lake import paths
from lake.events.parquet_batches import read_batches
from lake.events.parquet_pages import column_leaves, column_sizes, fixed_width
from lake.storage import Storage, StoredFile

# Row groups of more bytes are not decoded at once: a million events with metadata have less.
MAX_GROUP_BYTES = 2**29
# A column with more text than this may have at most `MAX_MEAN_TEXT` bytes a row. All columns but metadata stay in memory
# while a partition is aggregated, for all its files together.
MAX_METADATA_BYTES, MAX_TEXT_BYTES, MAX_MEAN_TEXT = 2**28, 2**25, 2**14
_OUR_OWN = (paths.LANDED_EVENTS, paths.COMPACTED)


class Leaf(NamedTuple):
    """A leaf of a column: its number in every row group, and the bytes of each value, None for text."""

    number: int
    column: str
    width: int | None


class Size(NamedTuple):
    """Whether a row group is too large to be decoded at once, and a column with more text than events have, if any."""

    is_large: bool = False
    dense_column: str | None = None


def leaves_of(schema: pq.ParquetSchema, columns: Collection[str]) -> tuple[Leaf, ...]:
    """Return the leaves of these columns in files of this schema."""
    return tuple(
        Leaf(number, _column_of(leaf.path, columns), fixed_width(leaf))
        for number, leaf in column_leaves(schema, columns)
    )


def decoded_size(
    storage: Storage,
    file: StoredFile,
    metadata: pq.FileMetaData,
    columns: Collection[str],
    leaves: Sequence[Leaf],
) -> Size:
    """Return whether these columns of a file need too much memory once they are decoded.

    `metadata` is from its footer, `leaves` are those of the columns. The lake's own files have small row groups and are
    not checked. Reads the headers of pages only if the footer does not rule it out, and text only if the headers don't.
    Raises one of `DAMAGE` for a file that can't be read.
    """
    is_own = file.path.rsplit("/", 1)[-1].startswith(_OUR_OWN)
    if is_own or not _may_be_large(metadata, leaves):
        return Size()
    local = storage.local(file)
    groups, text = _bounds(metadata, local, columns)
    suspects = [name for name, size in text.items() if _is_dense(name, size, metadata.num_rows)]
    dense = (name for name in suspects if _has_dense_text(local, name, metadata.num_rows))
    return Size(max(groups, default=0) > MAX_GROUP_BYTES or bool(suspects), next(dense, None))


def _bounds(
    metadata: pq.FileMetaData, local: Path, columns: Collection[str]
) -> tuple[list[int], dict[str, int]]:
    """Return the bytes of each row group, with the text of dictionaries once, and an upper bound for each column."""
    text = dict.fromkeys(columns, 0)
    groups = []
    with local.open("rb") as pages:
        for group in range(metadata.num_row_groups):
            sizes = list(column_sizes(metadata, pages, group, columns))
            groups.append(sum(size.scanned_bytes for size in sizes))
            for size in sizes:
                text[_column_of(size.name, columns)] += size.decoded_bytes
    return groups, text


def _has_dense_text(local: Path, column: str, rows: int) -> bool:
    total = 0
    for batch, _ in read_batches(local, [column]):
        total += batch.nbytes
        if _is_dense(column, total, rows):
            return True
    return False


def _is_dense(column: str, text_bytes: int, rows: int) -> bool:
    """Return whether a column has more text than events have, for its number of rows."""
    enough = MAX_METADATA_BYTES if column == "metadata" else MAX_TEXT_BYTES
    return text_bytes > max(enough, rows * MAX_MEAN_TEXT)


def _may_be_large(metadata: pq.FileMetaData, leaves: Sequence[Leaf]) -> bool:
    """Return whether these leaves may need much memory once they are decoded, by the footer alone."""
    text = Counter[str]()
    largest = 0
    for number in range(metadata.num_row_groups):
        group, group_bytes = metadata.row_group(number), 0
        for leaf in leaves:
            chunk = group.column(leaf.number)
            # Each text is at most as long as the whole chunk.
            bound = max(chunk.num_values, 1) * (leaf.width or chunk.total_uncompressed_size)
            text[leaf.column] += bound
            group_bytes += bound
        largest = max(largest, group_bytes)
    return max(text.values(), default=0) > MAX_TEXT_BYTES or largest > MAX_GROUP_BYTES


def _column_of(leaf: str, columns: Collection[str]) -> str:
    """Return the column of a leaf; a name with dots may be the column's own."""
    return leaf if leaf in columns else leaf.split(".", maxsplit=1)[0]
