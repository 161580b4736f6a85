"""Decide which months of a meter a night exports, from listings and the state alone: a quiet night reads nothing."""

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
from jobs.run_report import ExportAction, ExportReport
from lake import paths
from lake.calendar import days_before
from lake.events.partition import fingerprint
from lake.state.records import ExportedMonth, MeterState, PartitionState
from lake.storage import Storage, StoredFile
from schemas.meter import Meter

# Part of what an export depends on: with another text, every month is exported again.
RULES = "exports 1"


class MeterExports:
    """The exports of one meter: their files as listed, and what the state has noted of them."""

    def __init__(
        self, storage: Storage, meter: Meter, state: MeterState, stale: Mapping[dt.date, str], files: Files
    ) -> None:
        """`stale` has the meter's dates that are out of date, with the reason; `files` those of its exports, by form."""
        self.meter, self._state, self._stale, self._files = meter, state, stale, files
        self._storage = storage
        self._carry_days = meter.carry_days or 0

    def forms(self, until: Period) -> list[MonthForm]:
        """Return the months and forms that a night in the month `until` exports, in order.

        In the usual form, these are this month, the last, and every earlier one that has usage or a revision; and each
        other form that a month has.
        """
        months = {*recent_months(until), *months_with_inputs(self._state, self._carry_days, until)}
        exported = {
            form for form, files in self._files.items() if form.period <= until and _has_revision(files)
        }
        usual = {MonthForm(period, Options()) for period in months | {form.period for form in exported}}
        return sorted(usual | exported, key=lambda form: (form.period, form.options.variant))

    def month(self, form: MonthForm) -> MonthExport:
        """Return the export of a month in one form, with its listed files and noted events."""
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
        """Return what the last revision of a month was made of; None if that is not noted."""
        noted = self._noted_for_files(form)
        return MadeOf(noted.manifest_inputs, noted.meter_version) if noted and noted.meter_version else None

    def records(self, period: Period) -> dict[dt.date, PartitionState]:
        """Return the records of the dates that an export of a month is made of, in order."""
        return month_records(self._state, period, self._carry_days)

    def unchanged_since_last(self, form: MonthForm) -> ExportReport | None:
        """Return the report of an export that would change nothing, since all inputs are unchanged; else None."""
        noted = self._noted(form)
        if noted is None or noted.fingerprint != self._fingerprint(form, self._files.get(form, ())):
            return None
        name = self.meter.name
        return ExportReport(
            meter=name,
            period=str(form.period),
            action=ExportAction.UNCHANGED if noted.revision else ExportAction.NOTHING_USED,
            folder=form.folder(name),
            revision=noted.revision,
            closed=noted.closed,
            pending_adjustments=noted.pending,
        )

    def remember(self, form: MonthForm, done: ExportReport, made_of: MadeOf) -> None:
        """Note in the state what an export reported, and what its last revision is made of."""
        compared_with = None
        if done.closed and done.pending_adjustments:
            compared_with = self._compared_with(form)
        elif done.closed:
            compared_with = billed_events(self._state, form.period, self._carry_days)
        events = compared_with or BilledEvents(0, "", "")
        # Not every storage returns the identity of a file on publishing it.
        listed = self._storage.list(form.folder(self.meter.name))
        files = ExportListing(listed).of(self.meter.name).get(form, [])
        self._state.exported[str(form)] = ExportedMonth(
            fingerprint=self._fingerprint(form, files),
            action=ExportAction.UNCHANGED if done.revision else done.action,
            revision=done.revision,
            closed=done.closed,
            files=_files_fingerprint(files),
            manifest_inputs=made_of.inputs,
            meter_version=made_of.meter_version,
            carry_days=events.carry_days,
            event_rows=events.rows,
            event_files=events.files,
            pending=done.pending_adjustments,
        )

    def forget_others(self, forms: Iterable[MonthForm], until: Period) -> None:
        """Remove the notes of months up to `until` in other forms than these, which do not exist any more."""
        names = {*map(str, forms)}
        noted = self._state.exported
        self._state.exported = {
            name: noted[name] for name in sorted(noted) if name in names or name[:7] > str(until)
        }

    def _noted(self, form: MonthForm) -> ExportedMonth | None:
        """Return the note of an export, unless the file that names its last revision is missing."""
        noted = self._state.exported.get(str(form))
        folder = form.folder(self.meter.name)
        listed = (file.path for file in self._files.get(form, ()))
        return noted if noted and (not noted.revision or paths.latest(folder) in listed) else None

    def _compared_with(self, form: MonthForm) -> BilledEvents | None:
        """Return the events that a closed month was last compared with; None if that is not noted."""
        noted = self._noted_for_files(form)
        if noted is None or not noted.event_rows:
            return None
        return BilledEvents(noted.carry_days, noted.event_rows, noted.event_files)

    def _noted_for_files(self, form: MonthForm) -> ExportedMonth | None:
        """Return the note of an export if its files are unchanged since."""
        noted = self._noted(form)
        return noted if noted and noted.files == _files_fingerprint(self._files.get(form, ())) else None

    def _fingerprint(self, form: MonthForm, files: Sequence[StoredFile]) -> str:
        """Return a fingerprint of everything that an export depends on, including which dates are out of date."""
        first, end = days_before(form.period.start, self._carry_days), form.period.end
        records = self.records(form.period)
        parts = {file.path: file.identity for file in files}
        parts |= {date.isoformat(): why for date, why in self._stale.items() if first <= date < end}
        inputs = [f"{date} {input_}" for date, input_ in inputs_by_date(records).items()]
        return fingerprint(parts, self.meter.version, RULES, *inputs)


def recent_months(until: Period) -> tuple[Period, ...]:
    """Return a month and the one before, in order; only the month if it is the calendar's first."""
    return tuple(sorted({month_of(days_before(until.start, 1)), until}))


def _has_revision(files: Sequence[StoredFile]) -> bool:
    """Return whether there is a revision, or an unreadable file that may belong to one."""
    return any(file.unreadable or file.path.endswith(f"/{paths.MANIFEST}") for file in files)


def _files_fingerprint(files: Iterable[StoredFile]) -> str:
    return fingerprint({file.path: file.identity for file in files})
