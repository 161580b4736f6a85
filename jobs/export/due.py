"""Which months have usage that no revision has, or another than their last revision has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from jobs.export.again import MeterExports
from jobs.export.billing import Period
from jobs.export.inputs import made_of_by
from jobs.export.listing import MonthForm
from lake.events.partition import fingerprint
from lake.revisions import Revisions
from lake.storage import Storage
from schemas.errors import MeterlakeError

NO_REVISION = "no revision"
CHANGED = "changed"
DEFINITION_CHANGED = "definition or program changed"


class MonthDue(msgspec.Struct, kw_only=True, frozen=True):
    """A month in one form, its last revision, 0 for none, and why that is not what is to be billed.

    Where only the definition or the program changed since a month was closed, `pending_adjustments` are its rows
    that differ, which no night adjusts.
    """

    period: str
    form: str
    revision: int
    closed: bool
    why: str
    pending_adjustments: int = 0


def months_due(
    storage: Storage, exports: MeterExports, until: Period, problem: Callable[[MeterlakeError], None]
) -> Iterator[MonthDue]:
    """Yield the months up to `until` whose next export has something to say, in order of months and forms.

    Told from the state; manifests are read where it knows nothing of them, and no rows: a month whose inputs
    changed may turn out to be the same. What can't be read is given to `problem`.
    """
    for form in exports.forms(until):
        try:
            found = _due(storage, exports, form)
        except MeterlakeError as error:
            problem(error)
        else:
            if found:
                yield found


def _due(storage: Storage, exports: MeterExports, form: MonthForm) -> MonthDue | None:
    known = exports.done_before(form)
    if known:
        why, pending = DEFINITION_CHANGED, known.pending_adjustments
        return _month(form, known.revision, why, closed=known.closed, pending=pending) if pending else None
    month = exports.month(form)
    revisions = Revisions(storage, month.folder, month.files)
    if not revisions.last:
        return _month(form, 0, NO_REVISION, closed=False) if month.inputs else None
    last = exports.last_made_of(form) or made_of_by(revisions.manifest(revisions.last))
    if last.inputs == fingerprint(month.inputs):
        if last.meter_version == exports.meter.version:
            return None
        return _month(form, revisions.last, DEFINITION_CHANGED, closed=revisions.is_closed)
    return _month(form, revisions.last, CHANGED, closed=revisions.is_closed)


def _month(form: MonthForm, revision: int, why: str, *, closed: bool, pending: int = 0) -> MonthDue:
    name = ", ".join(form.options.variant) or "usual"
    return MonthDue(
        period=str(form.period),
        form=name,
        revision=revision,
        closed=closed,
        why=why,
        pending_adjustments=pending,
    )
