"""Parse lines with undeclared metadata: declared columns as in `by_column`, undeclared members as their own text."""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

import msgspec
import polars as pl

from jobs.land.parse.by_column import Table, columns, odd_values, read_typed
from jobs.land.parse.by_line import parse_by_line
from jobs.land.parse.guard import has_spaced_name
from jobs.land.parse.parsed import LINE, Parsed, at_lines, concat
from schemas.meter import Meter

_REST = "#rest"


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """A usage body; members of its metadata are their own text."""

    meter: str
    subject: str | msgspec.UnsetType | None = msgspec.UNSET
    idempotency_key: str | msgspec.UnsetType | None = msgspec.UNSET
    quantity: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timestamp: str | msgspec.UnsetType | None = msgspec.UNSET
    received_at: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: dict[str, msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_BODIES = msgspec.json.Decoder(_Body)


def parse_rest(lines: bytes, meters: Mapping[str, Meter]) -> Parsed | None:
    """Return the events of the lines by meter, in the columns of `parsed_columns`; None if the block is doubtful.

    Single doubtful lines (escapes, nested metadata, another meter) are parsed one by one.
    """
    # Members are counted by the end of their names.
    table = None if has_spaced_name(lines) else read_typed(lines, meters, "ignore", {})
    if table is None:
        return None
    try:
        bodies = _BODIES.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    texts = lines.split(b"\n")
    if len(bodies) != len(texts):
        return None
    rest = _rests(texts, bodies, table.present)
    odd = [number for number, each in enumerate(rest) if each is False]
    careful = _careful(texts, odd, meters)
    taken = table.df.with_columns(pl.Series(_REST, [each or None for each in rest], pl.String))
    if odd:
        taken = taken.filter(~pl.col(LINE).is_in(pl.Series(odd, dtype=pl.UInt32).implode()))
    plain = _plain(taken, table)
    return None if plain is None else concat([plain, careful])


def _rests(texts: list[bytes], bodies: list[_Body], present: list[Meter]) -> list[str | bool | None]:
    """Return the undeclared metadata of each line as compact JSON, None if it has none, False if it is doubtful."""
    # The only loop over lines of this parser; it only sorts texts that msgspec has split and checked.
    own = {meter.name: frozenset(meter.dimension_names) for meter in present}
    roots = {m.name: frozenset(n.split(".")[0] for n in m.dimension_names if "." in n) for m in present}
    keys: dict[str, bytes] = {}
    return [_rest(text, body, own, roots, keys) for text, body in zip(texts, bodies, strict=True)]


def _rest(
    text: bytes,
    body: _Body,
    own: Mapping[str, frozenset[str]],
    roots: Mapping[str, frozenset[str]],
    keys: dict[str, bytes],
) -> str | bool | None:
    mine = own.get(body.meter)
    metadata: dict[str, Any] = body.metadata or {}
    # More names than members: one is duplicated, or nested; a backslash may hide one.
    if mine is None or b"\\" in text or text.count(b'":') != _members(body) + len(metadata):
        return False
    if not roots[body.meter].isdisjoint(metadata):
        return False
    found: list[bytes] = []
    for name, raw in metadata.items():
        if name in mine:
            continue
        value = bytes(raw)
        if value[0] in b"{[":
            return False
        key = keys.get(name)
        if key is None:
            key = keys[name] = encode_basestring(name).encode() + b":"
        found.append(key + value)
    return (b"{" + b",".join(found) + b"}").decode() if found else None


def _members(body: _Body) -> int:
    unset = msgspec.UNSET
    return 7 - (
        (body.subject is unset)
        + (body.idempotency_key is unset)
        + (body.quantity is unset)
        + (body.timestamp is unset)
        + (body.received_at is unset)
        + (body.metadata is unset)
    )


def _careful(texts: list[bytes], numbers: list[int], meters: Mapping[str, Meter]) -> Parsed:
    return at_lines(parse_by_line(b"\n".join(texts[number] for number in numbers), meters), numbers)


def _plain(taken: pl.DataFrame, table: Table) -> Parsed | None:
    events = []
    for meter in table.present:
        group = taken.filter(pl.col("meter") == meter.name)
        odd = [pl.lit(value=False), *odd_values(meter)]
        if group.select(pl.any_horizontal(odd).any()).item():
            return None
        if group.height:
            events.append((meter, columns(group, meter, pl.col(_REST).alias("metadata"))))
    return Parsed(events, [])
