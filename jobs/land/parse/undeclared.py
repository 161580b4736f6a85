"""Undeclared metadata of many lines at once, where all of them say it in the same plain way."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import polars as pl
import pyarrow as pa

# So much of the start of a batch shows what its lines have; a name that comes later makes the batch a slower one.
START_BYTES = 2**16
# A column for each of very many names would be mostly empty.
MAX_NAMES = 32
# In metadata, the name of a field could not be told from the field.
_FIELDS = frozenset(
    {"idempotency_key", "subject", "meter", "quantity", "timestamp", "received_at", "metadata"}
)
_ARROW = {b'"': pa.string(), b"t": pa.bool_(), b"f": pa.bool_()}
_NOT_PLAIN = frozenset({b"{", b"[", b"n"})
_NUMBER = r"\s*(-?[0-9][0-9.eE+-]*)"


class _Body(msgspec.Struct):
    metadata: dict[str, msgspec.Raw] | None = None


_BODIES = msgspec.json.Decoder(_Body)


def likely_metadata(lines: bytes) -> dict[str, pa.DataType]:
    """Types of the metadata's members in the first lines, in their order; none if these are not all plain.

    Without backslashes a quoted name before a colon is a name wherever it stands, and a text is its own JSON.
    """
    start, line_end, _ = lines[:START_BYTES].rpartition(b"\n")
    if not line_end and len(lines) <= START_BYTES:
        start = lines
    if not start or b"\\" in lines:
        return {}
    try:
        bodies = _BODIES.decode_lines(start)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    firsts = {name: bytes(raw)[:1] for body in bodies for name, raw in (body.metadata or {}).items()}
    plain = len(firsts) <= MAX_NAMES and _FIELDS.isdisjoint(firsts) and _NOT_PLAIN.isdisjoint(firsts.values())
    return {name: _ARROW.get(first, pa.float64()) for name, first in firsts.items()} if plain else {}


def metadata_texts(df: pl.DataFrame, names: Mapping[str, pa.DataType], lines: bytes) -> pl.Series | None:
    """These members of the column `metadata` of each line as compact JSON, null where there is none of them.

    Numbers are as they were written. None if names stand in another order anywhere, or with space before the colon.
    """
    if not names:
        return pl.repeat(None, df.height, dtype=pl.String, eager=True)
    given = pl.DataFrame({"line": lines.decode().split("\n")}).hstack([df.get_column("metadata")])
    values = {name: pl.col("metadata").struct.field(name) for name in names}
    texts = {name: _text(name, value, names[name]) for name, value in values.items()}
    odd = [texts[name].is_null() & value.is_not_null() for name, value in values.items()]
    odd += [~value.is_finite() for name, value in values.items() if names[name] == pa.float64()]
    if given.select(pl.any_horizontal(*odd, *_out_of_order(values)).any()).item():
        return None
    members = [pl.concat_str(pl.lit(f'"{name}":'), text) for name, text in texts.items()]
    inner = pl.concat_str(members, separator=",", ignore_nulls=True)
    return given.select(pl.when(inner != "").then(pl.concat_str(pl.lit("{"), inner, pl.lit("}")))).to_series()


def _text(name: str, value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    if dtype == pa.string():
        return pl.concat_str(pl.lit('"'), value, pl.lit('"'))
    if dtype == pa.bool_():
        return value.cast(pl.String)
    return pl.col("line").str.extract(pl.escape_regex(f'"{name}":') + _NUMBER)


def _out_of_order(values: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """Where a name that a line has is not found in it, or stands before one that should precede it."""
    odd: list[pl.Expr] = []
    last = pl.lit(0, pl.UInt32)
    for name, value in values.items():
        place = pl.col("line").str.find(f'"{name}":', literal=True)
        odd += [value.is_not_null() & place.is_null(), place < last]
        last = pl.coalesce(place, last)
    return odd
