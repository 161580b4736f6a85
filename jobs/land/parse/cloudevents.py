"""Convert CloudEvents 1.0 in JSON to usage bodies."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

# The start of the key of an id with a slash. Such a key has no slash itself, so that it differs from any `source/id`.
ESCAPED = "cloudevent:"
_OURS = ("id", "source", "type", "subject", "time", "data")
_ABOUT_THE_EVENT = ("specversion", "datacontenttype", "dataschema")


def is_cloudevent(body: dict[str, Any]) -> bool:
    """Return whether an object is a CloudEvent."""
    return "specversion" in body


def usage_body(event: dict[str, Any]) -> dict[str, Any]:
    """Return the usage body of a CloudEvent.

    The key is that of `key_of`, since only source and id together are unique; for an empty id there is no key. `type` is the
    meter, `time` the timestamp. In `data`, `quantity` is the quantity; `metadata`, the other members and extension
    attributes are the metadata. A `metadata` that is no object is passed on, to be rejected.
    """
    data = event.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    metadata = {name: value for name, value in event.items() if name not in (*_OURS, *_ABOUT_THE_EVENT)}
    quantity = data.pop("quantity", None)
    inner = data.pop("metadata", None)
    metadata |= data
    return {
        "idempotency_key": _key(event),
        "subject": event.get("subject"),
        "meter": event.get("type"),
        "quantity": quantity,
        "timestamp": event.get("time"),
        "metadata": metadata | (inner or {}) if isinstance(inner, dict | None) else inner,
    }


def key_of(source: str, name: str) -> str:
    """Return the idempotency key of a source and an id, which is unique to them.

    It is `source/id`. If the id has a slash, where it begins would be unclear: then both are percent-encoded, as
    `cloudevent:source:id`.
    """
    if "/" not in name:
        return f"{source}/{name}"
    return f"{ESCAPED}{quote(source, safe='')}:{quote(name, safe='')}"


def earlier_key(key: str) -> str | None:
    """Return the key that earlier versions used in place of an escaped key; None for other keys."""
    source, colon, name = key.removeprefix(ESCAPED).partition(":")
    return f"{unquote(source)}/{unquote(name)}".strip() if key.startswith(ESCAPED) and colon else None


def _key(event: dict[str, Any]) -> Any:
    source, name = event.get("source"), event.get("id")
    # With an empty id, all events of a source would share one key.
    if type(source) is str and type(name) is str and name.strip():
        return key_of(source, name)
    return name
