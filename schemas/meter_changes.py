"""Which changes of a meter's definition are allowed once it has data."""

from __future__ import annotations

from schemas.errors import RefusedError
from schemas.meter import Meter


def check_change(old: Meter, new: Meter) -> None:
    """Refuse a change of definition that would contradict data the meter already has.

    Allowed: description, retention, `series`, `carry_days`, adding an optional dimension, asking less of an existing
    one, order of dimensions. Raises RefusedError with the reason for anything else.
    """
    for field in ("unit", "aggregation", "unique"):
        if getattr(old, field) != getattr(new, field):
            raise _change_refused(old, field, str(getattr(old, field)), str(getattr(new, field)))
    after = {dimension.name: dimension for dimension in new.dimensions}
    for before in old.dimensions:
        now = after.pop(before.name, None)
        if now is None:
            raise _change_refused(old, f"dimension {before.name}", "to stay", "it removed")
        if now.type != before.type:
            raise _change_refused(old, f"type of dimension {before.name}", before.type, now.type)
        if now.needs_value and not before.needs_value:
            raise _change_refused(old, f"dimension {before.name}", "to stay optional", "it required")
    for added in after.values():
        if added.needs_value:
            raise _change_refused(
                old, f"new dimension {added.name}", "an optional one", "a required one, which old events lack"
            )


def _change_refused(meter: Meter, what: str, expected: str, found: str) -> RefusedError:
    return RefusedError(
        f"the meter has data, so its {what} can't be changed",
        where=f"meter {meter.name!r}",
        expected=expected,
        found=found,
        hint="define a new meter for the new meaning; description, retention, series, carry_days and optional "
        "dimensions may change",
    )
