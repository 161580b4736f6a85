"""Move metadata that is beside the fields of usage bodies into `metadata`, so that the fast parsers read them.

A doubtful body stays as it is, for the careful parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from schemas.fields import FIELDS, find_misnamed
from schemas.meter import Meter

_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Declared(NamedTuple):
    """The names that the dimensions of a meter may have in a body, and whether one of them is a path."""

    names: frozenset[str]
    dotted: bool


def with_nested_metadata(lines: bytes, meters: Mapping[str, Meter]) -> bytes | None:
    """Return the lines with flat members moved into `metadata`; None if the first line has none, or a line is no object."""
    try:
        if not _flat_names(tuple(_BODY.decode(lines.split(b"\n", 1)[0]))):
            return None
        lines.decode()
        bodies = _BODY.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    texts = lines.split(b"\n")
    if len(bodies) != len(texts):
        return None
    named = {_text(bytes(body["meter"])) for body in bodies if "meter" in body}
    declared = {name: _declared(meters[name]) for name in sorted(named) if name in meters}
    shapes: dict[tuple[str, ...], list[str]] = {}
    # Like the loop of parse_rest: it only joins texts that msgspec has split and checked.
    nested = [_nested(text, body, declared, shapes) for text, body in zip(texts, bodies, strict=True)]
    return None if nested == texts else b"\n".join(nested)


def _declared(meter: Meter) -> _Declared:
    names = frozenset(meter.dimension_names)
    roots = frozenset(name.split(".")[0] for name in names)
    return _Declared(names | roots, any("." in name for name in names))


def _flat_names(names: tuple[str, ...]) -> list[str]:
    """Return the names that are no fields; none if one may be a misspelt field, or for a CloudEvent."""
    flat = [name for name in names if name not in FIELDS]
    return [] if "specversion" in flat or find_misnamed(flat) else flat


def _nested(
    text: bytes,
    body: dict[str, msgspec.Raw],
    declared: Mapping[str, _Declared],
    shapes: dict[tuple[str, ...], list[str]],
) -> bytes:
    names = tuple(body)
    flat = shapes.get(names)
    if flat is None:
        flat = shapes[names] = _flat_names(names)
    # A backslash may hide a name.
    if not flat or b"\\" in text:
        return text
    values = {name: bytes(value) for name, value in body.items()}
    own = declared.get(_text(values.get("meter")))
    # More names than members: a name is duplicated.
    members = len(values) + sum(value.count(b'":') for value in values.values() if value[0] in b"{[")
    if own is None or text.count(b'":') != members:
        return text
    if not _text(values.get("idempotency_key")) and not own.names.issuperset(flat):
        return text
    metadata = values.pop("metadata", b"null")
    inner = _inner(metadata, flat, own)
    if inner is None:
        return text
    parts = [inner] if inner else []
    parts += [b'"%b":%b' % (name.encode(), values.pop(name)) for name in flat]
    fields = [b'"%b":%b,' % (name.encode(), value) for name, value in values.items()]
    return b'{%b"metadata":{%b}}' % (b"".join(fields), b",".join(parts))


def _inner(metadata: bytes, flat: list[str], own: _Declared) -> bytes | None:
    """Return the text of the metadata's members; None if one might be a flat member too, or if it is no object."""
    if metadata == b"null":
        return b""
    if not metadata.startswith(b"{"):
        return None
    names = _BODY.decode(metadata).keys()
    if not names.isdisjoint(flat) or (names and own.dotted):
        return None
    return metadata[1:-1].strip()


def _text(value: bytes | None) -> str:
    """Return the content of a JSON text without escapes, trimmed; empty for other values."""
    return value[1:-1].decode().strip() if value and value.startswith(b'"') else ""
