"""CloudEvents 1.0 in JSON as usage bodies."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

# How the key of an id with a slash begins. No key `source/id` is like it: there is no slash in it.
ESCAPED = "cloudevent:"
_OURS = ("id", "source", "type", "subject", "time", "data")
_ABOUT_THE_EVENT = ("specversion", "datacontenttype", "dataschema")


def is_cloudevent(body: dict[str, Any]) -> bool:
    """Whether the object says that it is one."""
    return "specversion" in body


def usage_body(event: dict[str, Any]) -> dict[str, Any]:
    """The usage body of a CloudEvent.

    The key is that of `key_of`, as only source and id together are unique, and none where the id is empty; `type` is the meter,
    `time` the timestamp. Of `data`, `quantity` is the quantity; `metadata` and the other members are the metadata, and
    so are extension attributes. A `metadata` that is no object is left as it is, to be rejected.
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
    """Return the idempotency key of a source and an id, which no other two have.

    It is `source/id`. Where the id has a slash of its own, so that it can't be seen where it begins, both are
    percent-encoded instead, behind `cloudevent:` and parted by a colon.
    """
    if "/" not in name:
        return f"{source}/{name}"
    return f"{ESCAPED}{quote(source, safe='')}:{quote(name, safe='')}"


def earlier_key(key: str) -> str | None:
    """Return the key that earlier versions gave an event of an escaped key; None for any other key."""
    source, colon, name = key.removeprefix(ESCAPED).partition(":")
    return f"{unquote(source)}/{unquote(name)}".strip() if key.startswith(ESCAPED) and colon else None


def _key(event: dict[str, Any]) -> Any:
    source, name = event.get("source"), event.get("id")
    # An empty id would make one event of all that a source says.
    if type(source) is str and type(name) is str and name.strip():
        return key_of(source, name)
    return name
