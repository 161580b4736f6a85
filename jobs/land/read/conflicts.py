"""Rows of a table that have a value twice: in a column of its own, and in the column `metadata`."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

_METADATA = b'"metadata":{'
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def find_conflicts(metadata: pl.Series, columns: pl.DataFrame) -> tuple[pl.Series, list[int]]:
    """Return the metadata, JSON as text, and the rows in which it has a value of a column that has one, too.

    A null in it is no value: it is taken out where its column has one.
    """
    texts: dict[int, str] = {}
    found: set[int] = set()
    for name in columns.columns:
        # The name is looked for as text first, so that few rows are decoded; a backslash may hide it.
        root = msgspec.json.encode(name.split(".")[0]).decode()[:-1]
        likely = metadata.str.contains(root, literal=True) | metadata.str.contains("\\", literal=True)
        for row in (likely & columns[name].is_not_null()).fill_null(value=False).arg_true():
            text = texts.get(row, metadata[row])
            texts[row] = _without_null(text, name)
            if _has(texts[row], name):
                found.add(row)
    changed = [row for row, text in texts.items() if text != metadata[row]]
    settled = metadata.scatter(changed, [texts[row] for row in changed]) if changed else metadata
    return settled, sorted(found)


def side_by_side(with_metadata: bytes, with_columns: bytes) -> bytes:
    """Return one line of the fields of a row with its column `metadata`, and of its further columns as metadata."""
    members = with_columns.split(_METADATA, 1)[1].removesuffix(b"}}")
    return with_metadata.removesuffix(b"}") + b"," + members + b"}"


def _without_null(metadata: str, name: str) -> str:
    """Return a JSON object without the member of this name, if that is null; any other text as it is."""
    try:
        members = _OBJECT.decode(metadata)
    except (msgspec.DecodeError, RecursionError):
        return metadata
    if name not in members or bytes(members.pop(name)) != b"null":
        return metadata
    return msgspec.json.encode(members).decode()


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
