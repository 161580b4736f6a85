"""Rows of a table that have a value twice: in a column of its own, and in the column `metadata`.

As one object of metadata they would be JSON with a key twice; with their columns beside the metadata they are what they
are, a conflict, and the careful way names it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

_METADATA = b'"metadata":{'


def conflicting_rows(metadata: pl.Series, columns: pl.DataFrame) -> list[int]:
    """Return the rows with a value in one of these columns that their metadata, JSON as text, has as well."""
    found: set[int] = set()
    for name in columns.columns:
        # The name is looked for as text first, so that few rows are decoded; a backslash may hide it.
        root = msgspec.json.encode(name.split(".")[0]).decode()[:-1]
        likely = metadata.str.contains(root, literal=True) | metadata.str.contains("\\", literal=True)
        rows = (likely & columns[name].is_not_null()).fill_null(value=False).arg_true()
        found.update(row for row in rows if _has(metadata[row], name))
    return sorted(found)


def side_by_side(with_metadata: bytes, with_columns: bytes) -> bytes:
    """Return one line of the fields of a row with its column `metadata`, and of its further columns as metadata."""
    members = with_columns.split(_METADATA, 1)[1].removesuffix(b"}}")
    return with_metadata.removesuffix(b"}") + b"," + members + b"}"


def _has(metadata: str, name: str) -> bool:
    """Whether the metadata has a member of this name, or a value at the path that it is."""
    try:
        value: Any = msgspec.json.decode(metadata)
    except (msgspec.DecodeError, RecursionError):
        return False
    if isinstance(value, dict) and name in value:
        return True
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value is not None
