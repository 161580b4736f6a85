"""Limit the number of values in one JSON text: decoded, each takes up to hundreds of bytes of memory."""

from __future__ import annotations

import polars as pl

from jobs.land.read.byte_values import byte_values

MAX_VALUES = 2**20
TOO_MANY = f"more than {MAX_VALUES:,} commas, colons and opening brackets"
_MARKS = list(b",:[{")


def count_marks(text: bytes) -> int:
    """Return the number of commas, colons and opening brackets, including those within JSON texts."""
    return int(_are_marks(byte_values(text)).sum())


def _are_marks(values: pl.Series) -> pl.Series:
    return values.is_in(_MARKS)


def _count_outside_texts(text: bytes) -> int:
    # Without escaped characters, texts begin at every other quote.
    values = byte_values(text.replace(b"\\\\", b"").replace(b'\\"', b""))
    is_outside = (values == ord('"')).cum_sum() % 2 == 0
    return int((_are_marks(values) & is_outside).sum())


def has_too_many_values(text: bytes) -> bool:
    """Return whether a JSON text has more than `MAX_VALUES` of these marks outside its texts."""
    if len(text) <= MAX_VALUES or count_marks(text) <= MAX_VALUES:
        return False
    return _count_outside_texts(text) > MAX_VALUES
