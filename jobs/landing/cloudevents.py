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

    The key is `source/id`, as only both together are unique; `type` is the meter, `time` the timestamp. Of `data`,
    `quantity` is the quantity and `metadata` the metadata, or where there is none the other members are. Extension
    attributes go to the metadata too.
    """
    data = event.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    metadata = {name: value for name, value in event.items() if name not in (*_OURS, *_ABOUT_THE_EVENT)}
    quantity = data.pop("quantity", None)
    inner = data.pop("metadata", None)
    metadata |= data | (inner if isinstance(inner, dict) else {})
    return {
        "idempotency_key": _key(event),
        "subject": event.get("subject"),
        "meter": event.get("type"),
        "quantity": quantity,
        "timestamp": event.get("time"),
        "metadata": metadata,
    }


def _key(event: dict[str, Any]) -> Any:
    source, name = event.get("source"), event.get("id")
    return f"{source}/{name}" if type(source) is str and type(name) is str else name
