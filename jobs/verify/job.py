"""Derive every open partition once more from its raw events, and hold all that is published against it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping

import polars as pl

from jobs.aggregate.compute import compute_partition, losers_fingerprint
from jobs.land.landed_input import decode_landed
from jobs.progress import track
from jobs.run_report import RunReport
from jobs.verify.published import Published, check_published, check_stamp, difference, read_content
from lake import Lake, paths
from lake.dedupe.find_losers import find_losers, load_sealed_winners
from lake.dedupe.key_index import KeyIndex
from lake.dedupe.winners import CONFLICT, DATE
from lake.events.file_check import find_damaged_files, recorded_partition
from lake.events.listing import is_compacted
from lake.events.partition import Partition
from lake.partition_files import by_meter_folder, unexpected_files
from lake.snapshot import MeterSnapshot, scan_meters
from lake.state.changes import EARLIER_QUANTITY, RULES_CHANGED, Change, file_name, stale_partitions
from lake.state.earlier_rules import counted_by_earlier_rules
from lake.state.records import MeterState
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import ATTEMPTS, FilesChangedError, changed_files, watch_for_changes
from schemas.columns import ROW
from schemas.errors import BrokenLakeError, DifferenceError, MeterlakeError, SumTooLargeError

# So many events' keys are held at once; the keys of all others are read once for each such share.
KEYS_AT_ONCE = 20_000_000
Derived = dict[dt.date, list[DifferenceError]]


def verify(lake: Lake, report: RunReport, *, meter: str | None = None) -> None:
    """Name every difference between what a lake says and what its events give; nothing is changed.

    Open partitions are derived from raw events, without the index; of sealed ones the checksums count that were
    taken when their rows were published. Every file that the lake has written is read to its end and held to its
    checksum; the aggregates to their columns, order, record and totals too. Differences end the run with exit code
    1. One meter's partitions are in memory one after the other, and the hashes of some millions of keys.
    """
    listed = (paths.meter_of_definition(file.path) for file in lake.storage.list(paths.METERS))
    names = sorted(name for name in listed if name is not None) if meter is None else [meter]

    def work(name: str) -> None:
        for found in _of_meter(lake.storage, name, report):
            report.add_error(found)

    report.keep_going(names, work)
    if meter is None:
        for found in _of_no_meter(lake.storage, names):
            report.add_error(found)
        for stray in _outside_meters(lake.storage, names):
            report.add_error(stray)


def _of_meter(storage: Storage, name: str, report: RunReport) -> list[MeterlakeError]:
    """What is wrong with a meter; looked at again where its event files changed meanwhile, which is no difference."""
    found: list[MeterlakeError] = []
    for attempt in range(1, ATTEMPTS + 1):
        try:
            (snapshot,) = scan_meters(storage, name)
        except BrokenLakeError as error:
            return [difference(error.what, error.where, error.expected, error.found, error.hint)]
        files = [file for files in snapshot.files.values() for file in files]
        mark = report.mark()
        try:
            with watch_for_changes(storage, name, files):
                found = [*_of_view(storage, name, snapshot, report)]
            if not found or not changed_files(storage, paths.events(name), files):
                return found
        except FilesChangedError:
            if attempt == ATTEMPTS:
                raise
        report.rewind(mark)
    return found


def _of_view(
    storage: Storage, name: str, snapshot: MeterSnapshot, report: RunReport
) -> Iterator[MeterlakeError]:
    if not snapshot.stored and snapshot.state.partitions:
        hint = "run: meterlake aggregate"
        yield difference("missing", paths.state(name), "a state", "none; the aggregates tell it", hint)
    meter = snapshot.meter
    stale = stale_partitions(snapshot.files, snapshot.state, meter.version, meter.earlier_version)
    stale = counted_by_earlier_rules(storage, name, snapshot.state) | stale
    for date, change in stale.items():
        if change.why in (RULES_CHANGED, EARLIER_QUANTITY):
            # What is published is right by the rules of its time; the next aggregation goes by today's.
            continue
        hint = "run: meterlake aggregate"
        yield difference("out of date", paths.events(name, date), "aggregated files", change.why, hint)
    yield from snapshot.unexpected
    for file in [file for files in snapshot.files.values() for file in files if _is_ours(file)]:
        yield from check_stamp(storage, file)
    yield from _unknown(storage, snapshot)
    for file in storage.list(paths.indexes(name)):
        for found in check_stamp(storage, file):
            hint = "remove the file; the next run makes it anew"
            yield difference(found.what, found.where, found.expected, found.found, hint)
    for dates in _shares(snapshot.state):
        yield from _of_dates(storage, snapshot, stale, dates, report)


def _of_dates(
    storage: Storage,
    snapshot: MeterSnapshot,
    stale: Mapping[dt.date, Change],
    dates: list[dt.date],
    report: RunReport,
) -> Iterator[DifferenceError]:
    """What is wrong with these partitions; their copies are looked for in all."""
    lost, partitions = None, _recorded(storage, snapshot)
    focus = {date for date in dates if date in partitions and date not in stale}
    yield from _unreadable(snapshot, partitions, focus)
    try:
        settled = load_sealed_winners(storage, snapshot.meter, snapshot.state.sealed)
        index = KeyIndex(storage, snapshot.meter.name, partitions, fresh=True)
        lost = find_losers(snapshot.meter, partitions, settled, focus, index, columns=[DATE, ROW, CONFLICT])
    except BrokenLakeError as error:
        yield difference("not derived", error.where, error.expected, error.found, error.hint)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        where = f"meter {snapshot.meter.name!r}, {dates[0]} to {dates[-1]}"
        said = str(error).splitlines()[0]
        yield difference("not derived", where, "events and settled winners that can be read", said)
    for date in track(dates, f"verify {snapshot.meter.name}"):
        published = Published(storage, snapshot.meter, date, snapshot.state.partitions[date])
        found = [*check_published(published)]
        if date in focus and lost is not None:
            derived = [*_derived(published, partitions[date], lost.filter(pl.col(DATE) == date), stale)]
            found = derived + [each for each in found if each.what != "rows changed" or not derived]
        yield from found
        report.events_read += published.record.events


def _derived(
    of: Published, partition: Partition, lost: pl.DataFrame, stale: Mapping[dt.date, Change]
) -> Iterator[DifferenceError]:
    """How the partition's tables and its record differ from what its events give."""
    where, record = paths.events(of.meter.name, of.date), of.record
    has_other_losers = record.losers != losers_fingerprint(lost)
    if has_other_losers and any(change.why == RULES_CHANGED for change in stale.values()):
        return
    if has_other_losers and any(change.removed for change in stale.values()):
        hint = "run: meterlake aggregate"
        yield difference(
            "out of date", where, "the copies it had", "copies in a partition that is out of date", hint
        )
        return
    try:
        derived = compute_partition(partition, lost, {})
    except SumTooLargeError as error:
        yield difference("not derived", where, error.expected, error.found, error.hint)
        return
    counted = (record.events, record.duplicates, record.conflicts, record.losers)
    counts = (derived.record.events, lost.height, derived.record.conflicts, derived.record.losers)
    if counts != counted:
        yield difference("counts differ", where, _counts(*counted), _counts(*counts))
    for table, rows in derived.tables.items():
        published = of.tables.get(table)
        if published is None or published.schema != rows.schema or published.equals(rows):
            continue
        differing = rows.join(published, on=rows.columns, how="anti", nulls_equal=True)
        surplus = published.join(rows, on=rows.columns, how="anti", nulls_equal=True)
        yield difference(
            "rows differ",
            paths.aggregate(table, of.meter.name, of.date),
            f"{differing.height} other rows",
            f"{surplus.height} that events do not give",
        )


def _shares(state: MeterState) -> Iterator[list[dt.date]]:
    """All dates in order, in shares of not too many events."""
    share: list[dt.date] = []
    events = 0
    for date, record in sorted(state.partitions.items()):
        if share and events + record.events > KEYS_AT_ONCE:
            yield share
            share, events = [], 0
        share.append(date)
        events += record.events
    if share:
        yield share


def _recorded(storage: Storage, snapshot: MeterSnapshot) -> dict[dt.date, Partition]:
    """The open partitions with the files that were counted, as far as they are there still."""
    found = {}
    for date, record in snapshot.state.partitions.items():
        if not record.sealed_at:
            files = snapshot.files.get(date, ())
            found[date] = recorded_partition(storage, snapshot.meter, date, files, record)
    return found


def _unreadable(
    snapshot: MeterSnapshot, partitions: dict[dt.date, Partition], focus: set[dt.date]
) -> Iterator[DifferenceError]:
    """Event files that could be read when they were counted and can't be now; takes them out of their partitions."""
    rejected: dict[dt.date, dict[str, dict[str, str]]] = {date: {} for date in partitions}
    if find_damaged_files(partitions, rejected, focus):
        for date, files in rejected.items():
            for name, said in files.items():
                where = paths.events(snapshot.meter.name, date) + name
                yield difference("damaged", where, "the file that was aggregated", said["found"])


def _unknown(storage: Storage, snapshot: MeterSnapshot) -> Iterator[DifferenceError]:
    """Aggregate files of partitions that the state does not know, and files that are none."""
    for table in paths.TABLES:
        for file in storage.list(paths.aggregates(table, snapshot.meter.name)):
            place = paths.split_partition(file.path)
            if not place or place.file != paths.PART or place.date not in snapshot.state.partitions:
                yield difference("unknown", file.path, "no file", "a file of no known partition")


def _of_no_meter(storage: Storage, names: Collection[str]) -> Iterator[DifferenceError]:
    """What is wrong with aggregates of no defined meter, with quarantined rows, and with the records of landed inputs."""
    for file in storage.list(paths.AGGREGATES):
        place = paths.split_partition(file.path)
        if not place or place.meter not in names:
            yield difference("unknown", file.path, "no file", "a file of no defined meter")
    hint = "restore the file from a backup"
    for file in storage.list(paths.QUARANTINE):
        for found in check_stamp(storage, file):
            yield difference(found.what, found.where, found.expected, found.found, hint)
    for file in storage.list(paths.LANDED):
        content = read_content(storage, file.path)
        try:
            if isinstance(content, DifferenceError):
                yield content
            else:
                decode_landed(content or b"", file.path)
        except BrokenLakeError as error:
            yield difference("damaged", file.path, "the record of a landed input", error.found, hint)


def _outside_meters(storage: Storage, names: Collection[str]) -> list[MeterlakeError]:
    """Return an error for event files that lie in no defined meter's folder."""
    known = {paths.events(name) for name in names}
    listed = by_meter_folder(storage.list(paths.EVENTS))
    return unexpected_files({folder: files for folder, files in listed.items() if folder not in known})


def _is_ours(file: StoredFile) -> bool:
    """Whether the lake has written an event file itself, and so with its checksum."""
    return file_name(file).startswith("land-") or is_compacted(file)


def _counts(events: int, duplicates: int, conflicts: int, losers: str) -> str:
    return f"events {events}, duplicates {duplicates}, conflicts {conflicts}, copies {losers}"
