"""Read undeclared metadata of many lines at once, where all of them have plain members in the same order."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import polars as pl
import pyarrow as pa

# The names in this many bytes at the start of a batch; a name that occurs only later slows the batch down.
START_BYTES = 2**16
# A column for each of very many names would be mostly empty.
MAX_NAMES = 32
# In metadata, the name of a field could not be distinguished from the field.
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
    """Return the types of the metadata's members in the first lines, in their order; none unless all are plain.

    Without backslashes, a quoted text before a colon is always a name, and a text is its own JSON.
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
    """Return these members of the column `metadata` as compact JSON for each line, null where a line has none.

    Numbers are as they were written. None if any line has names in another order, or space before a colon.
    """
    if not names:
        return pl.repeat(None, df.height, dtype=pl.String, eager=True)
    rows = pl.DataFrame({"line": lines.decode().split("\n")}).hstack([df.get_column("metadata")])
    values = {name: pl.col("metadata").struct.field(name) for name in names}
    texts = {name: _text(name, value, names[name]) for name, value in values.items()}
    odd = [texts[name].is_null() & value.is_not_null() for name, value in values.items()]
    odd += [~value.is_finite() for name, value in values.items() if names[name] == pa.float64()]
    if rows.select(pl.any_horizontal(*odd, *_out_of_order(values)).any()).item():
        return None
    members = [pl.concat_str(pl.lit(f'"{name}":'), text) for name, text in texts.items()]
    inner = pl.concat_str(members, separator=",", ignore_nulls=True)
    return rows.select(pl.when(inner != "").then(pl.concat_str(pl.lit("{"), inner, pl.lit("}")))).to_series()


def _text(name: str, value: pl.Expr, dtype: pa.DataType) -> pl.Expr:
    if dtype == pa.string():
        return pl.concat_str(pl.lit('"'), value, pl.lit('"'))
    if dtype == pa.bool_():
        return value.cast(pl.String)
    return pl.col("line").str.extract(pl.escape_regex(f'"{name}":') + _NUMBER)


def _out_of_order(values: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """Return conditions for lines in which a name is not found as text, or precedes one that should come before it."""
    odd: list[pl.Expr] = []
    last = pl.lit(0, pl.UInt32)
    for name, value in values.items():
        place = pl.col("line").str.find(f'"{name}":', literal=True)
        odd += [value.is_not_null() & place.is_null(), place < last]
        last = pl.coalesce(place, last)
    return odd
