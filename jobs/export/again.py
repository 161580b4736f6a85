"""Which months of a meter a night exports, from listings and the state alone, so that a quiet night reads nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from jobs.export.billing import Period, month_of
from jobs.export.inputs import (
    BilledEvents,
    MadeOf,
    billed_events,
    inputs_by_date,
    month_records,
    months_with_inputs,
)
from jobs.export.listing import ExportListing, Files, MonthForm
from jobs.export.month import MonthExport, Options
from jobs.run_report import ExportReport
from lake import paths
from lake.calendar import days_before
from lake.events.partition import fingerprint
from lake.state.records import ExportedMonth, MeterState, PartitionState
from lake.storage import Storage, StoredFile
from schemas.meter import Meter

# What else a night goes by: another text has every month looked at once more.
RULES = "exports 1"


class MeterExports:
    """The exports of one meter as a run has found them, a night after the aggregation."""

    def __init__(
        self, storage: Storage, meter: Meter, state: MeterState, stale: Mapping[dt.date, str], files: Files
    ) -> None:
        """Take the meter, its state, the dates that are out of date and why, and the files of its exports."""
        self.meter, self._state, self._stale, self._files = meter, state, stale, files
        self._storage = storage
        self._carry_days = meter.carry_days or 0

    def forms(self, until: Period) -> list[MonthForm]:
        """Return what the night of a month looks at, in order.

        In the usual form this month, the last, and every earlier one that has usage or a revision; and each other
        form that a month has.
        """
        months = {*recent_months(until), *months_with_inputs(self._state, self._carry_days, until)}
        those = {form for form, files in self._files.items() if form.period <= until and _is_made(files)}
        usual = {MonthForm(period, Options()) for period in months | {form.period for form in those}}
        return sorted(usual | those, key=lambda form: (form.period, form.options.variant))

    def month(self, form: MonthForm) -> MonthExport:
        """Return what is to be exported of a month, with what the night knows of it."""
        files = self._files.get(form, ())
        return MonthExport(
            self._storage,
            self.meter,
            self._state,
            *form,
            self._carry_days,
            self._stale,
            files,
            self._compared_with(form),
            on_request=False,
        )

    def last_made_of(self, form: MonthForm) -> MadeOf | None:
        """Return what the last revision of a month was made of, if that is noted."""
        known = self._noted(form)
        return MadeOf(known.manifest_inputs, known.meter_version) if known and known.meter_version else None

    def records(self, period: Period) -> dict[dt.date, PartitionState]:
        """Return the records of the dates that an export of a month is made of, in order."""
        return month_records(self._state, period, self._carry_days)

    def done_before(self, form: MonthForm) -> ExportReport | None:
        """Return what an export would report, if all that it depends on is as after the last one; else None."""
        known = self._known(form)
        if known is None or known.fingerprint != self._depends_on(form, self._files.get(form, ())):
            return None
        name = self.meter.name
        return ExportReport(
            meter=name,
            period=str(form.period),
            action=known.action,
            folder=form.folder(name),
            revision=known.revision,
            closed=known.closed,
            pending_adjustments=known.pending,
        )

    def remember(self, form: MonthForm, done: ExportReport, made_of: MadeOf) -> None:
        """Note in the state what an export has reported, and what its last revision is made of."""
        compared_with = None
        if done.closed and done.pending_adjustments:
            compared_with = self._compared_with(form)
        elif done.closed:
            compared_with = billed_events(self._state, form.period, self._carry_days)
        events = compared_with or BilledEvents(0, "", "")
        # Of a file that was just published, not every storage can name the identity.
        listed = self._storage.list(form.folder(self.meter.name))
        files = ExportListing(listed).of(self.meter.name).get(form, [])
        self._state.exported[str(form)] = ExportedMonth(
            fingerprint=self._depends_on(form, files),
            action="unchanged" if done.revision else done.action,
            revision=done.revision,
            closed=done.closed,
            files=_fingerprint(files),
            manifest_inputs=made_of.inputs,
            meter_version=made_of.meter_version,
            carry_days=events.carry_days,
            event_rows=events.rows,
            event_files=events.files,
            pending=done.pending_adjustments,
        )

    def forget_others(self, forms: Iterable[MonthForm], until: Period) -> None:
        """Forget what is noted of months up to `until` in other forms than these, which are gone."""
        looked_at = {*map(str, forms)}
        noted = self._state.exported
        self._state.exported = {
            name: noted[name] for name in sorted(noted) if name in looked_at or name[:7] > str(until)
        }

    def _known(self, form: MonthForm) -> ExportedMonth | None:
        """What is noted of an export, unless the file that names its last revision is missing."""
        known = self._state.exported.get(str(form))
        folder = form.folder(self.meter.name)
        listed = (file.path for file in self._files.get(form, ()))
        return known if known and (not known.revision or paths.latest(folder) in listed) else None

    def _compared_with(self, form: MonthForm) -> BilledEvents | None:
        """The events that a closed month was last held to, if that is noted."""
        known = self._noted(form)
        if known is None or not known.event_rows:
            return None
        return BilledEvents(known.carry_days, known.event_rows, known.event_files)

    def _noted(self, form: MonthForm) -> ExportedMonth | None:
        """What is noted of an export whose files are as they were left."""
        known = self._known(form)
        return known if known and known.files == _fingerprint(self._files.get(form, ())) else None

    def _depends_on(self, form: MonthForm, files: Sequence[StoredFile]) -> str:
        """The fingerprint of all that an export depends on, what is out of date included."""
        first, end = days_before(form.period.start, self._carry_days), form.period.end
        records = self.records(form.period)
        said = {file.path: file.identity for file in files}
        said |= {date.isoformat(): why for date, why in self._stale.items() if first <= date < end}
        inputs = [f"{date} {input_}" for date, input_ in inputs_by_date(records).items()]
        return fingerprint(said, self.meter.version, RULES, *inputs)


def recent_months(until: Period) -> tuple[Period, ...]:
    """Return a month and the one before; before the calendar's first there is none."""
    return tuple(sorted({month_of(days_before(until.start, 1)), until}))


def _is_made(files: Sequence[StoredFile]) -> bool:
    """Whether there is a revision, or something that can't be read and may be one."""
    return any(file.unreadable or file.path.endswith(f"/{paths.MANIFEST}") for file in files)


def _fingerprint(files: Iterable[StoredFile]) -> str:
    return fingerprint({file.path: file.identity for file in files})
