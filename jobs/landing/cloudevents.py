"""CloudEvents 1.0 in JSON as usage bodies."""

from __future__ import annotations

from typing import Any

_OURS = ("id", "source", "type", "subject", "time", "data")
_ABOUT_THE_EVENT = ("specversion", "datacontenttype", "dataschema")


def is_cloudevent(body: dict[str, Any]) -> bool:
    """Whether the object says that it is one."""
    return "specversion" in body


def usage_body(event: dict[str, Any]) -> dict[str, Any]:
    """The usage body of a CloudEvent.

    The key is `source/id`, as only both together are unique, and none where the id is empty; `type` is the meter,
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


def _key(event: dict[str, Any]) -> Any:
    source, name = event.get("source"), event.get("id")
    # An empty id would make one event of all that a source says.
    both = type(source) is str and type(name) is str and name.strip()
    return f"{source}/{name}" if both else name
