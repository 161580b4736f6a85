"""The names of an event's fields, and misspellings of them."""

from __future__ import annotations

from collections.abc import Collection

FIELDS = ("idempotency_key", "subject", "meter", "quantity", "timestamp", "received_at", "metadata")
# The text of a quantity as a file has it, beside the quantity; no dimension can have this name.
AS_WRITTEN = "#as_written"
_IGNORED = str.maketrans("", "", "_- ")
_FIELD_OF = {field.translate(_IGNORED): field for field in FIELDS}
# Names that programs use for the key of an event, without case, `_` and `-`.
_KEYS = frozenset(
    {
        "id",
        "eventid",
        "key",
        "eventkey",
        "uuid",
        "eventuuid",
        "guid",
        "messageid",
        "requestid",
        "transactionid",
    }
    | {"insertid", "uniqueid", "idempotencyid", "idempotencytoken", "dedupid", "dedupkey", "deduplicationid"}
    | {"deduplicationkey", "externalid"}
)


def find_misnamed(names: Collection[str], declared: Collection[str] = ()) -> tuple[str, str] | None:
    """Return the first name that equals a field's except for case, `_`, `-` and spaces, and the field; None without one.

    Only if the field itself is not among the names, and never for the name of a declared dimension.
    """
    for name in names:
        field = _FIELD_OF.get(_plain(name))
        if field and name != field and field not in names and name not in declared:
            return name, field
    return None


def is_likely_key(name: str) -> bool:
    """Return whether programs often use this name for an idempotency key."""
    return _plain(name) in _KEYS


def _plain(name: str) -> str:
    return name.translate(_IGNORED).lower()
