"""Find the months that have usage and no revision, or whose usage differs from their last revision."""

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
    """A month in one form that is to be exported: its last revision (0: none), and the reason.

    If only the definition or the program changed since the month was closed, no night adjusts it, and
    `pending_adjustments` is the number of rows that differ.
    """

    period: str
    form: str
    revision: int
    closed: bool
    why: str
    pending_adjustments: int = 0


def months_due(
    storage: Storage, exports: MeterExports, until: Period, on_error: Callable[[MeterlakeError], None]
) -> Iterator[MonthDue]:
    """Yield the months up to `until` that may need another revision, in order of months and forms.

    Reads the state, and manifests that are not noted in it, but no rows: a month whose inputs changed may turn out to
    be the same. `on_error` gets the error of a month that can't be read.
    """
    for form in exports.forms(until):
        try:
            month = _due(storage, exports, form)
        except MeterlakeError as error:
            on_error(error)
        else:
            if month:
                yield month


def _due(storage: Storage, exports: MeterExports, form: MonthForm) -> MonthDue | None:
    noted = exports.unchanged_since_last(form)
    if noted:
        why, pending = DEFINITION_CHANGED, noted.pending_adjustments
        return _month(form, noted.revision, why, closed=noted.closed, pending=pending) if pending else None
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
