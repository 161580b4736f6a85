"""Find rows of a table that have a value twice: in a column of its own, and in the column `metadata`."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

_METADATA = b'"metadata":{'
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def find_conflicts(metadata: pl.Series, columns: pl.DataFrame) -> tuple[pl.Series, list[int]]:
    """Return the metadata (JSON as text) and the numbers of the rows that have a value both in it and in a column.

    A null in the metadata is no value: it is removed where the column has one.
    """
    texts: dict[int, str] = {}
    conflicts: set[int] = set()
    for name in columns.columns:
        # Search the name as text first, so that few rows are decoded; a backslash may hide it.
        root = msgspec.json.encode(name.split(".")[0]).decode()[:-1]
        likely = metadata.str.contains(root, literal=True) | metadata.str.contains("\\", literal=True)
        for row in (likely & columns[name].is_not_null()).fill_null(value=False).arg_true():
            text = texts.get(row, metadata[row])
            texts[row] = _without_null(text, name)
            if _has(texts[row], name):
                conflicts.add(row)
    changed = [row for row, text in texts.items() if text != metadata[row]]
    cleaned = metadata.scatter(changed, [texts[row] for row in changed]) if changed else metadata
    return cleaned, sorted(conflicts)


def side_by_side(with_metadata: bytes, with_columns: bytes) -> bytes:
    """Return one line with a row's fields and column `metadata`, and a second `metadata` with its further columns."""
    members = with_columns.split(_METADATA, 1)[1].removesuffix(b"}}")
    return with_metadata.removesuffix(b"}") + b"," + members + b"}"


def _without_null(metadata: str, name: str) -> str:
    """Return a JSON object without the member of this name, if that is null; other texts unchanged."""
    try:
        members = _OBJECT.decode(metadata)
    except (msgspec.DecodeError, RecursionError):
        return metadata
    if name not in members or bytes(members.pop(name)) != b"null":
        return metadata
    return msgspec.json.encode(members).decode()


def _has(metadata: str, name: str) -> bool:
    """Return whether the metadata has a member of this name, or a value at this dotted path."""
    try:
        value: Any = msgspec.json.decode(metadata)
    except (msgspec.DecodeError, RecursionError):
        return False
    if isinstance(value, dict) and name in value:
        return True
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value is not None
