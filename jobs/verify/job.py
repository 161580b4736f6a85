"""Compute every open partition again from its raw events, and compare everything that is published with it."""

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
from lake.events.file_check import Rejected, find_damaged_files, recorded_partition
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

# Keys of this many events are in memory at once; the keys of all others are read once for each such group of dates.
KEYS_AT_ONCE = 20_000_000


def verify(lake: Lake, report: RunReport, *, meter: str | None = None) -> None:
    """Report every difference between what is published and what the events add up to; changes nothing.

    Open partitions are computed again from raw events, without the index; sealed ones are compared with the checksums
    that were taken when their rows were published. Every file that the lake wrote is read to its end and compared with
    its checksum; aggregates also with their columns, order, record and totals. With differences, the run ends with exit
    code 1. Memory is needed for one partition at a time, and for the hashes of some millions of keys.
    """
    listed = (paths.meter_of_definition(file.path) for file in lake.storage.list(paths.METERS))
    names = sorted(name for name in listed if name is not None) if meter is None else [meter]

    def work(name: str) -> None:
        for error in _meter_errors(lake.storage, name, report):
            report.add_error(error)

    report.keep_going(names, work)
    if meter is None:
        for error in _errors_outside_meters(lake.storage, names):
            report.add_error(error)
        for unexpected in _unexpected(lake.storage, names):
            report.add_error(unexpected)


def _meter_errors(storage: Storage, name: str, report: RunReport) -> list[MeterlakeError]:
    """Return the errors of a meter; verifies it again if its event files changed meanwhile, which is no error."""
    errors: list[MeterlakeError] = []
    for attempt in range(1, ATTEMPTS + 1):
        try:
            (snapshot,) = scan_meters(storage, name)
        except BrokenLakeError as error:
            return [difference(error.what, error.where, error.expected, error.found, error.hint)]
        files = [file for files in snapshot.files.values() for file in files]
        mark = report.mark()
        try:
            with watch_for_changes(storage, name, files):
                errors = [*_snapshot_errors(storage, name, snapshot, report)]
            if not errors or not changed_files(storage, paths.events(name), files):
                return errors
        except FilesChangedError:
            if attempt == ATTEMPTS:
                raise
        report.rewind(mark)
    return errors


def _snapshot_errors(
    storage: Storage, name: str, snapshot: MeterSnapshot, report: RunReport
) -> Iterator[MeterlakeError]:
    if not snapshot.stored and snapshot.state.partitions:
        hint = "run: meterlake aggregate"
        yield difference(
            "missing", paths.state(name), "a state", "none; the aggregates have its records", hint
        )
    meter = snapshot.meter
    stale = stale_partitions(snapshot.files, snapshot.state, meter.version, meter.earlier_version)
    stale = counted_by_earlier_rules(storage, name, snapshot.state) | stale
    for date, change in stale.items():
        if change.why in (RULES_CHANGED, EARLIER_QUANTITY):
            # The tables are right by the rules of their time; the next aggregation applies today's.
            continue
        hint = "run: meterlake aggregate"
        yield difference("out of date", paths.events(name, date), "aggregated files", change.why, hint)
    yield from snapshot.unexpected
    for file in [file for files in snapshot.files.values() for file in files if _is_own_file(file)]:
        yield from check_stamp(storage, file)
    yield from _unknown_tables(storage, snapshot)
    for file in storage.list(paths.indexes(name)):
        for error in check_stamp(storage, file):
            hint = "remove the file; the next run makes a new one"
            yield difference(error.what, error.where, error.expected, error.found, hint)
    for dates in _date_groups(snapshot.state):
        yield from _date_errors(storage, snapshot, stale, dates, report)


def _date_errors(
    storage: Storage,
    snapshot: MeterSnapshot,
    stale: Mapping[dt.date, Change],
    dates: list[dt.date],
    report: RunReport,
) -> Iterator[DifferenceError]:
    """Yield the errors of these partitions; their duplicates are searched in all partitions."""
    lost, partitions = None, _open_partitions(storage, snapshot)
    up_to_date = {date for date in dates if date in partitions and date not in stale}
    yield from _damaged_files(snapshot, partitions, up_to_date)
    try:
        winners = load_sealed_winners(storage, snapshot.meter, snapshot.state.sealed)
        index = KeyIndex(storage, snapshot.meter.name, partitions, fresh=True)
        columns = [DATE, ROW, CONFLICT]
        lost = find_losers(snapshot.meter, partitions, winners, up_to_date, index, columns=columns)
    except BrokenLakeError as error:
        yield difference("not derived", error.where, error.expected, error.found, error.hint)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        where = f"meter {snapshot.meter.name!r}, {dates[0]} to {dates[-1]}"
        found = str(error).splitlines()[0]
        yield difference("not derived", where, "events and sealed winners that can be read", found)
    for date in track(dates, f"verify {snapshot.meter.name}"):
        published = Published(storage, snapshot.meter, date, snapshot.state.partitions[date])
        errors = [*check_published(published)]
        if date in up_to_date and lost is not None:
            computed = [*_compare(published, partitions[date], lost.filter(pl.col(DATE) == date), stale)]
            errors = computed + [each for each in errors if each.what != "rows changed" or not computed]
        yield from errors
        report.events_read += published.record.events


def _compare(
    of: Published, partition: Partition, lost: pl.DataFrame, stale: Mapping[dt.date, Change]
) -> Iterator[DifferenceError]:
    """Yield the differences of a partition's tables and record from its events."""
    where, record = paths.events(of.meter.name, of.date), of.record
    has_other_losers = record.losers != losers_fingerprint(lost)
    if has_other_losers and any(change.why == RULES_CHANGED for change in stale.values()):
        return
    if has_other_losers and any(change.removed for change in stale.values()):
        hint = "run: meterlake aggregate"
        yield difference(
            "out of date", where, "the same duplicates", "duplicates in a partition that is out of date", hint
        )
        return
    try:
        computed = compute_partition(partition, lost, {})
    except SumTooLargeError as error:
        yield difference("not derived", where, error.expected, error.found, error.hint)
        return
    recorded = (record.events, record.duplicates, record.conflicts, record.losers)
    counts = (computed.record.events, lost.height, computed.record.conflicts, computed.record.losers)
    if counts != recorded:
        yield difference("counts differ", where, _counts(*recorded), _counts(*counts))
    for table, rows in computed.tables.items():
        published = of.tables.get(table)
        if published is None or published.schema != rows.schema or published.equals(rows):
            continue
        differing = rows.join(published, on=rows.columns, how="anti", nulls_equal=True)
        surplus = published.join(rows, on=rows.columns, how="anti", nulls_equal=True)
        yield difference(
            "rows differ",
            paths.aggregate(table, of.meter.name, of.date),
            f"{differing.height} other rows",
            f"{surplus.height} that the events do not add up to",
        )


def _date_groups(state: MeterState) -> Iterator[list[dt.date]]:
    """Yield all dates in order, in groups of a bounded number of events."""
    group: list[dt.date] = []
    events = 0
    for date, record in sorted(state.partitions.items()):
        if group and events + record.events > KEYS_AT_ONCE:
            yield group
            group, events = [], 0
        group.append(date)
        events += record.events
    if group:
        yield group


def _open_partitions(storage: Storage, snapshot: MeterSnapshot) -> dict[dt.date, Partition]:
    """Return the open partitions with those of their aggregated files that still exist."""
    return {
        date: recorded_partition(storage, snapshot.meter, date, snapshot.files.get(date, ()), record)
        for date, record in snapshot.state.partitions.items()
        if not record.sealed_at
    }


def _damaged_files(
    snapshot: MeterSnapshot, partitions: dict[dt.date, Partition], dates: set[dt.date]
) -> Iterator[DifferenceError]:
    """Yield an error for each aggregated file that can't be read any more; removes it from its partition."""
    rejected: Rejected = {date: {} for date in partitions}
    if find_damaged_files(partitions, rejected, dates):
        for date, files in rejected.items():
            for name, damaged in files.items():
                where = paths.events(snapshot.meter.name, date) + name
                yield difference("damaged", where, "the file that was aggregated", damaged.found)


def _unknown_tables(storage: Storage, snapshot: MeterSnapshot) -> Iterator[DifferenceError]:
    """Yield an error for each aggregate file of a partition without a record, and for other files there."""
    for table in paths.TABLES:
        for file in storage.list(paths.aggregates(table, snapshot.meter.name)):
            place = paths.split_partition(file.path)
            if not place or place.file != paths.PART or place.date not in snapshot.state.partitions:
                yield difference("unknown", file.path, "no file", "a file of no known partition")


def _errors_outside_meters(storage: Storage, names: Collection[str]) -> Iterator[DifferenceError]:
    """Yield the errors of aggregates without a defined meter, of quarantine, and of records of landed inputs."""
    for file in storage.list(paths.AGGREGATES):
        place = paths.split_partition(file.path)
        if not place or place.meter not in names:
            yield difference("unknown", file.path, "no file", "a file of no defined meter")
    hint = "restore the file from a backup"
    for file in storage.list(paths.QUARANTINE):
        for error in check_stamp(storage, file):
            yield difference(error.what, error.where, error.expected, error.found, hint)
    for file in storage.list(paths.LANDED):
        content = read_content(storage, file.path)
        try:
            if isinstance(content, DifferenceError):
                yield content
            else:
                decode_landed(content or b"", file.path)
        except BrokenLakeError as broken:
            yield difference("damaged", file.path, "the record of a landed input", broken.found, hint)


def _unexpected(storage: Storage, names: Collection[str]) -> list[MeterlakeError]:
    """Return an error for each event file outside the folders of defined meters."""
    known = {paths.events(name) for name in names}
    listed = by_meter_folder(storage.list(paths.EVENTS))
    return unexpected_files({folder: files for folder, files in listed.items() if folder not in known})


def _is_own_file(file: StoredFile) -> bool:
    """Return whether the lake wrote an event file itself, with a checksum."""
    return file_name(file).startswith("land-") or is_compacted(file)


def _counts(events: int, duplicates: int, conflicts: int, losers: str) -> str:
    return f"events {events}, duplicates {duplicates}, conflicts {conflicts}, losers {losers}"
