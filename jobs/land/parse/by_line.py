"""Parse lines of JSON into typed columns one by one, for lines that `by_column` refuses.

Only this parser explains what is wrong with a line, preserves undeclared metadata as written, and reads CloudEvents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import polars as pl

from jobs.land.parse.cloudevents import is_cloudevent, usage_body
from jobs.land.parse.exact_json import NotAnEvent, Number, decode_object, kind, shortened, to_json
from jobs.land.parse.parsed import LINE, Parsed, Rejected, parsed_columns
from schemas.event_rules import QUANTITY_DIGITS
from schemas.fields import FIELDS, find_misnamed, is_likely_key
from schemas.meter import Dimension, Meter

_NUMERIC = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SCALE = Decimal("1e-9")
_EXACT = Context(prec=38, rounding=ROUND_HALF_EVEN)
# No quantity of 38 digits needs more, and the time to parse longer ones is not linear.
MAX_QUANTITY_CHARS = 400


def parse_by_line(lines: bytes, meters: Mapping[str, Meter]) -> Parsed:
    """Return the events of the lines by meter, and the rejected lines with their reasons; blank lines are skipped.

    Each frame has the columns of `parsed_columns`, in order of lines.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    rejected: list[Rejected] = []
    for number, line in enumerate(lines.split(b"\n")):
        if not line.strip():
            continue
        name: str | None = None
        try:
            body = _usage_body(line)
            name = _meter_name(body)
            event = {LINE: number, **_event(body, _meter(name, meters))}
            rows.setdefault(name, []).append(event)
        except NotAnEvent as why:
            rejected.append(Rejected(number, name, why.reason, why.detail))
    events = [
        (meters[name], pl.DataFrame(rows[name], schema=parsed_columns(meters[name]))) for name in sorted(rows)
    ]
    return Parsed(events, rejected)


def _usage_body(line: bytes) -> dict[str, Any]:
    body = decode_object(line)
    return usage_body(body) if is_cloudevent(body) else body


def _meter_name(body: dict[str, Any]) -> str:
    name = body.get("meter")
    if type(name) is not str or not name.strip():
        raise NotAnEvent("meter_missing", f"expected the name of a meter, found {shortened(name)}")
    return name.strip()


def _meter(name: str, meters: Mapping[str, Meter]) -> Meter:
    if name not in meters:
        defined = ", ".join(map(repr, sorted(meters))) or "none"
        raise NotAnEvent("unknown_meter", f"expected one of {defined}, found {shortened(name)}")
    return meters[name]


def _event(body: dict[str, Any], meter: Meter) -> dict[str, Any]:
    flat = {name: value for name, value in body.items() if name not in FIELDS}
    if flat:
        _check_names(flat, body, meter)
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise NotAnEvent("metadata_invalid", f"expected an object, found {kind(metadata)}")
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
        "metadata": to_json(rest) if rest else None,
    }


def _check_names(flat: dict[str, Any], body: dict[str, Any], meter: Meter) -> None:
    """Raise NotAnEvent if a member of `flat`, which has none of the fields, is a misspelt field without a value."""
    present = [name for name, value in body.items() if value is not None or name in flat]
    misnamed = find_misnamed(present, meter.dimension_names)
    if misnamed:
        raise NotAnEvent(
            "unknown_field",
            f"expected {misnamed[1]}, found {shortened(misnamed[0])}: did you mean {misnamed[1]}?",
        )


def _check_key(flat: dict[str, Any], body: dict[str, Any], meter: Meter) -> None:
    """Raise NotAnEvent if the event has no key, and a member of `flat` is neither field nor dimension."""
    key = body.get("idempotency_key")
    if isinstance(key, str) and key.strip():
        return
    declared = {*meter.dimension_names, *(name.split(".")[0] for name in meter.dimension_names)}
    odd = [name for name in flat if name not in declared]
    if odd:
        # Without its key a retry would be billed twice.
        likely = next(filter(is_likely_key, odd), None)
        hint = f"{shortened(likely)}: did you mean idempotency_key?" if likely else shortened(odd[0])
        raise NotAnEvent(
            "unknown_field",
            f"expected {', '.join(FIELDS)}, or dimensions if the event has no key, found {hint}",
        )


def _joined(metadata: dict[str, Any], flat: dict[str, Any], meter: Meter) -> dict[str, Any]:
    """Return the metadata with the members beside it. Raises NotAnEvent if both have a value of the same name."""
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
    """Return whether there is a value of this dimension, under its flat name or at its path."""
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
    raise NotAnEvent(reason, f"expected text, found {shortened(value)}")


def _quantity(value: Any) -> Decimal | None:
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    quantity = _decimal(text) if len(text) <= MAX_QUANTITY_CHARS else None
    if quantity is None:
        expected = f"a number of at most {QUANTITY_DIGITS} digits before the point"
        raise NotAnEvent("quantity_invalid", f"expected {expected}, found {shortened(value)}")
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
    """Remove the value of a dimension from the metadata and return it: of the flat key, else of the nested path."""
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
        "dimension_type", f"expected {dimension.type} in {dimension.name}, found {shortened(value)}"
    )


def _nested(rest: dict[str, Any], path: list[str], meter: Meter) -> Any:
    """Remove the value at a nested path, and objects that are empty without it; return the value."""
    branch, tail = path[0], path[1:]
    if not tail:
        return rest.pop(branch, None)
    inner = rest.get(branch)
    if inner is None:
        return None
    if not isinstance(inner, dict):
        raise NotAnEvent(
            "metadata_conflict",
            f"expected an object at {branch}, the parent of {'.'.join(tail)}, found {shortened(inner)}",
        )
    value = _nested(inner, tail, meter)
    if not inner:
        del rest[branch]
    return value
