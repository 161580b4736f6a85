"""The careful way from lines of JSON to typed columns, line by line, for batches that the fast way refuses.

It alone knows what is wrong with a line, keeps undeclared metadata as it was written, and reads CloudEvents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

import polars as pl

from jobs.land.parse.cloudevents import is_cloudevent, usage_body
from jobs.land.parse.parsed import LINE, Parsed, Rejected, parsed_columns
from schemas.event_rules import QUANTITY_DIGITS
from schemas.fields import FIELDS, find_misnamed, is_likely_key
from schemas.meter import Dimension, Meter

MAX_DEPTH = 64
MAX_FOUND_CHARS = 120
_NUMERIC = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SCALE = Decimal("1e-9")
# A text as JSON, with all but control characters, quotes and backslashes as they are; `json.dumps` is slower by far.
_quoted = encode_basestring
_EXACT = Context(prec=38, rounding=ROUND_HALF_EVEN)
# No quantity of 38 digits needs more, and the time to read longer ones is no longer linear.
MAX_QUANTITY_CHARS = 400
_CONSTANTS = {None: "null", True: "true", False: "false"}


class Number(str):
    """A JSON number as its text."""

    __slots__ = ()


class NotAnEvent(Exception):  # noqa: N818 - it is no error, but the answer for a line
    """Why a line is no event: a reason code and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep both parts; the detail is cut."""
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail[: MAX_FOUND_CHARS * 3]


def parse_by_line(lines: bytes, meters: Mapping[str, Meter]) -> Parsed:
    """The events of the lines by meter, and every other line with its reason; blank lines are passed over."""
    rows: dict[str, list[dict[str, Any]]] = {}
    rejected: list[Rejected] = []
    for number, line in enumerate(lines.split(b"\n")):
        if not line.strip():
            continue
        name: str | None = None
        try:
            body = _decoded(line)
            name = _meter_name(body)
            event = {LINE: number, **_event(body, _known(name, meters))}
            rows.setdefault(name, []).append(event)
        except NotAnEvent as said:
            rejected.append(Rejected(number, name, said.reason, said.detail))
    events = [
        (meters[name], pl.DataFrame(rows[name], schema=parsed_columns(meters[name]))) for name in sorted(rows)
    ]
    return Parsed(events, rejected)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        body = _DECODER.decode(line.decode().strip(" \t\r"))
    except RecursionError:
        raise NotAnEvent("too_large", f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise NotAnEvent("not_json", str(error)) from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        raise NotAnEvent("too_large", f"nested deeper than {MAX_DEPTH} levels")
    if b"\\u" in line and not _is_unicode(body):
        raise NotAnEvent("not_json", "half of a surrogate pair")
    if not isinstance(body, dict):
        raise NotAnEvent("not_an_object", f"expected an object, found {_kind(body)}")
    return usage_body(body) if is_cloudevent(body) else body


def _meter_name(body: dict[str, Any]) -> str:
    name = body.get("meter")
    if type(name) is not str or not name.strip():
        raise NotAnEvent("meter_missing", f"expected the name of a meter, found {_found(name)}")
    return name.strip()


def _known(name: str, meters: Mapping[str, Meter]) -> Meter:
    if name not in meters:
        known = ", ".join(repr(known) for known in sorted(meters)) or "none"
        raise NotAnEvent("unknown_meter", f"expected one of {known}, found {_found(name)}")
    return meters[name]


def _event(body: dict[str, Any], meter: Meter) -> dict[str, Any]:
    flat = {name: value for name, value in body.items() if name not in FIELDS}
    if flat:
        _check_names(flat, body, meter)
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise NotAnEvent("metadata_invalid", f"expected an object, found {_kind(metadata)}")
    rest = metadata or {}
    if flat:
        rest = _joined(rest, flat, meter)
        _check_key(flat, body, meter)
    return {
        "idempotency_key": _text(body, "idempotency_key", "idempotency_key_invalid"),
        "subject": _text(body, "subject", "subject_invalid"),
        "quantity": _quantity(body.get("quantity")),
        "timestamp": _text(body, "timestamp", "timestamp_invalid"),
        "received_at": _text(body, "received_at", "received_at_invalid"),
        **{dimension.name: _dimension(rest, dimension, meter) for dimension in meter.dimensions},
        "metadata": _written(rest) if rest else None,
    }


def _check_names(flat: dict[str, Any], body: dict[str, Any], meter: Meter) -> None:
    """Raise NotAnEvent if one of these members, which are no fields, was meant to be one that has no value."""
    given = [name for name, value in body.items() if value is not None or name in flat]
    misnamed = find_misnamed(given, meter.dimension_names)
    if misnamed:
        raise NotAnEvent(
            "unknown_field",
            f"expected {misnamed[1]}, found {_found(misnamed[0])}: did you mean {misnamed[1]}?",
        )


def _check_key(flat: dict[str, Any], body: dict[str, Any], meter: Meter) -> None:
    """Raise NotAnEvent if there is no key, and one of these members, which are no fields, is no dimension."""
    key = body.get("idempotency_key")
    if isinstance(key, str) and key.strip():
        return
    declared = {*meter.dimension_names, *(name.split(".")[0] for name in meter.dimension_names)}
    odd = [name for name in flat if name not in declared]
    if odd:
        # Without its key a retry would be billed twice.
        likely = next(filter(is_likely_key, odd), None)
        hint = f"{_found(likely)}: did you mean idempotency_key?" if likely else _found(odd[0])
        raise NotAnEvent(
            "unknown_field",
            f"expected {', '.join(FIELDS)}, or dimensions where no key is given, found {hint}",
        )


def _joined(metadata: dict[str, Any], flat: dict[str, Any], meter: Meter) -> dict[str, Any]:
    """Return the metadata with members that stand beside it. Raises NotAnEvent if both have a value of one name."""
    dotted = [name.split(".") for name in meter.dimension_names if "." in name]
    twice = [name for name, value in flat.items() if value is not None and metadata.get(name) is not None]
    twice += [".".join(path) for path in dotted if _has(flat, path) and _has(metadata, path)]
    if twice:
        raise NotAnEvent(
            "metadata_conflict", f"expected one value of {twice[0]}, found one in metadata and one beside it"
        )
    return metadata | {
        name: value for name, value in flat.items() if value is not None or name not in metadata
    }


def _has(members: dict[str, Any], path: list[str]) -> bool:
    """Whether there is a value of this dimension, by its flat name or its path."""
    if members.get(".".join(path)) is not None:
        return True
    value: Any = members
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value is not None


def _text(body: dict[str, Any], field: str, reason: str) -> str | None:
    value = body.get(field)
    if value is None or type(value) is str:
        return value
    raise NotAnEvent(reason, f"expected text, found {_found(value)}")


def _quantity(value: Any) -> Decimal | None:
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    quantity = _decimal(text) if len(text) <= MAX_QUANTITY_CHARS else None
    if quantity is None:
        expected = f"a number of at most {QUANTITY_DIGITS} digits before the point"
        raise NotAnEvent("quantity_invalid", f"expected {expected}, found {_found(value)}")
    return quantity


@lru_cache(maxsize=2**12)
def _decimal(text: str) -> Decimal | None:
    if not _NUMERIC.fullmatch(text):
        return None
    try:
        return Decimal(text).quantize(_SCALE, context=_EXACT)
    except InvalidOperation:
        return None


def _dimension(rest: dict[str, Any], dimension: Dimension, meter: Meter) -> str | float | bool | None:
    """The value of a dimension, taken out of the metadata: the flat key if it has a value, else the nested path."""
    path = dimension.name.split(".")
    value = rest.pop(dimension.name, None)
    if value is None and len(path) > 1:
        value = _nested(rest, path, meter)
    if value is None:
        return None
    if isinstance(value, dict) and any(
        name.startswith(f"{dimension.name}.") for name in meter.dimension_names
    ):
        raise NotAnEvent("metadata_conflict", f"{dimension.name} is a dimension and the parent of another")
    if dimension.type == "number" and isinstance(value, Number) and abs(float(value)) < float("inf"):
        return float(value)
    if dimension.type == "boolean" and isinstance(value, bool):
        return value
    if dimension.type == "string" and isinstance(value, str) and not isinstance(value, Number):
        return value
    raise NotAnEvent(
        "dimension_type", f"expected {dimension.type} in {dimension.name}, found {_found(value)}"
    )


def _nested(rest: dict[str, Any], path: list[str], meter: Meter) -> Any:
    """Take the value at a nested path out, and objects that it leaves empty."""
    branch, tail = path[0], path[1:]
    if not tail:
        return rest.pop(branch, None)
    inner = rest.get(branch)
    if inner is None:
        return None
    if not isinstance(inner, dict):
        raise NotAnEvent(
            "metadata_conflict",
            f"expected an object at {branch}, the parent of {'.'.join(tail)}, found {_found(inner)}",
        )
    value = _nested(inner, tail, meter)
    if not inner:
        del rest[branch]
    return value


def _written(value: Any) -> str:
    """Compact JSON; numbers as they were written."""
    if type(value) is Number:
        return str(value)
    if type(value) is str:
        return _quoted(value)
    if isinstance(value, dict):
        members = [f"{_quoted(key)}:{_written(inner)}" for key, inner in value.items()]
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return _CONSTANTS[value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotAnEvent("not_json", "a key stands twice in one object")
    return members


def _no_constant(name: str) -> Any:
    raise NotAnEvent("not_json", f"{name} is no JSON number")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether there are more levels than these; looks no deeper, since Python's own stack ends somewhere too."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _is_unicode(value: Any) -> bool:
    try:
        _written(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "text", Number: "a number", bool: "a truth value"}
    return kinds.get(type(value), "null")


def _found(value: Any) -> str:
    text = _written(value)
    return text if len(text) <= MAX_FOUND_CHARS else f"{text[:MAX_FOUND_CHARS]}… ({len(text)} characters)"


# Millions of equal numbers may stand in one line.
_number = lru_cache(maxsize=2**14)(Number)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_number, parse_constant=_no_constant
)
