"""Find the dates that an export of a month is made of, and compare their events with those of a revision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

from jobs.export.billing import Period, month_of
from lake.calendar import days_before
from lake.events.partition import fingerprint
from lake.revisions import Manifest
from lake.state.changes import known_files
from lake.state.records import MeterState, PartitionState

Records = Mapping[dt.date, PartitionState]


class Events(NamedTuple):
    """The events of some dates as two fingerprints; if either is the same, the winning events are the same.

    `rows` is of the table `usage`; copying a lake, merging files, `series` and `carry_days` do not change it. `files` is
    of the event files and of the losers; another version of the program does not change it.
    """

    rows: str
    files: str


class MadeOf(NamedTuple):
    """The inputs of a revision: their fingerprint, and the version of the meter."""

    inputs: str
    meter_version: str


class BilledEvents(NamedTuple):
    """The events of a month and of `carry_days` before it; `rows` and `files` as in `Events`, empty if not known."""

    carry_days: int
    rows: str
    files: str


def month_records(state: MeterState, period: Period, carry_days: int) -> dict[dt.date, PartitionState]:
    """Return the records of the dates with events that an export of a month is made of, in order of their dates."""
    first = days_before(period.start, carry_days).toordinal()
    dates = map(dt.date.fromordinal, range(first, period.end.toordinal()))
    found = ((date, state.partitions.get(date)) for date in dates)
    return {date: record for date, record in found if record is not None and record.events}


def inputs_by_date(records: Records) -> dict[str, str]:
    """Return the fingerprint of the inputs of each date, as a manifest names them."""
    return {date.isoformat(): record.fingerprint for date, record in records.items()}


def months_with_inputs(state: MeterState, carry_days: int, until: Period) -> set[Period]:
    """Return the months up to `until` whose exports are made of at least one date with events."""
    dates = [date for date, record in state.partitions.items() if record.events and date < until.end]
    months = {
        month_of(dt.date(year, month, 1)) for year, month in {(date.year, date.month) for date in dates}
    }
    if carry_days:
        # A level is carried into the months after its last event.
        last = min(until.end.toordinal() - 1, max(map(dt.date.toordinal, dates), default=0) + carry_days)
        for first in sorted(months):
            following = month_of(first.end)
            while following.start.toordinal() <= last and month_records(state, following, carry_days):
                months.add(following)
                following = month_of(following.end)
    return months


def event_fingerprints(records: Records) -> Events:
    """Return the fingerprints of the events of these dates."""
    rows = [f"{date} {record.checksums.get('usage', record.fingerprint)}" for date, record in records.items()]
    files = {
        f"{date} {name}": identity
        for date, record in records.items()
        for name, identity in known_files(record).items()
    }
    losers = [f"{date} {record.losers}" for date, record in records.items()]
    return Events(fingerprint({}, *rows), fingerprint(files, *losers))


def made_of_by(manifest: Manifest) -> MadeOf:
    """Return the inputs of a revision by its manifest."""
    return MadeOf(fingerprint(manifest.inputs), manifest.meter_version)


def billed_events(state: MeterState, period: Period, carry_days: int) -> BilledEvents:
    """Return the events that an export of a month, with `carry_days` before it, is made of now."""
    return BilledEvents(carry_days, *event_fingerprints(month_records(state, period, carry_days)))


def has_same_events(before: BilledEvents, state: MeterState, period: Period) -> bool:
    """Return whether the events of a month are the same as before, as far as those are known."""
    now = billed_events(state, period, before.carry_days)
    return now.rows == before.rows or now.files == before.files
