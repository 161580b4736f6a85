"""Seal the aggregates of expired partitions, then drop their raw events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from jobs.aggregate.tables import partial_usage, usage_tables
from jobs.clock import check_as_of, check_clock
from jobs.run_report import PartitionAction, PartitionReport, RunReport, now
from lake import Lake, paths
from lake.aggregates.publish import publish_partition, read_partition, read_records, table_checksums
from lake.aggregates.valid_tables import ValidTables, valid_earlier_tables
from lake.calendar import days_before
from lake.checksums import rows_checksum, write_with_sha256
from lake.dedupe.find_losers import find_losers, load_sealed_winners
from lake.dedupe.key_index import KeyIndex
from lake.dedupe.winners import DATE
from lake.events.file_check import recorded_partition
from lake.events.listing import current_files, remove_replaced
from lake.events.partition import Partition
from lake.snapshot import MeterSnapshot, scan_meters
from lake.state.changes import Change, stale_partitions, why_immovable
from lake.state.records import SEALED_WINNERS, MeterState, PartitionState
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import watch_for_changes
from schemas.columns import ROW, event_columns
from schemas.errors import BrokenLakeError, MeterlakeError, RefusedError
from schemas.meter import Meter
from schemas.validation import check_sealed_winners

LINK_HINT = "put the files themselves there: nothing is removed behind a link, or where it can't be listed"
Listing = Mapping[dt.date, list[StoredFile]]


def retain(  # noqa: PLR0913 - what to retain, and how
    lake: Lake,
    report: RunReport,
    *,
    meter: str | None = None,
    as_of: dt.date | None = None,
    dry_run: bool = False,
    trust_clock: bool = False,
    snapshots: Sequence[MeterSnapshot] | None = None,
    is_checked: bool = False,
) -> None:
    """Seal and drop every partition whose date is before `as_of` (default today, UTC) minus the meter's retention.

    For one meter or all. A partition whose aggregates are not up to date with exactly its files stays, and the run ends
    with exit code 1. With `dry_run` the report is the same, and nothing is changed. A run of several steps passes
    `snapshots`, the meters as an earlier step left them, and `is_checked` if it has checked the clock.

    Raises RefusedError for a date after today, unless in a `dry_run`, and for a clock that is far ahead of all evidence,
    unless `trust_clock`.
    """
    if not dry_run:
        check_as_of(as_of, report.started_at)
        lake.upgrade()
    # A dry run for a named date needs no clock.
    if not is_checked and not (dry_run and as_of):
        check_clock(lake.storage, report.started_at, as_of, trust=trust_clock, dry_run=dry_run)
    meters = scan_meters(lake.storage, meter, report.add_error) if snapshots is None else snapshots

    def work(snapshot: MeterSnapshot) -> None:
        until = days_before(as_of or report.started_at.date(), snapshot.meter.event_retention_days)
        with report.stage("plan"):
            listing = _list_again(lake.storage, snapshot, until)
        if not dry_run:
            remove_replaced(lake.storage, snapshot.replaced, now())
        _retain_meter(_MeterLake(lake.storage, snapshot, listing), until, report, dry_run=dry_run)

    report.keep_going(report.each("plan", meters), work)


class _MeterLake(msgspec.Struct, frozen=True):
    """One meter's part of the lake: its files as listed now, and the snapshot with its state."""

    storage: Storage
    snapshot: MeterSnapshot
    listing: Listing

    @property
    def meter(self) -> Meter:
        return self.snapshot.meter

    @property
    def state(self) -> MeterState:
        return self.snapshot.state

    def partition(self, date: dt.date) -> Partition:
        record = self.state.partitions.get(date)
        if record is None:
            return Partition(self.storage, self.meter, date)
        return recorded_partition(self.storage, self.meter, date, self.listing.get(date, ()), record)


def _list_again(storage: Storage, snapshot: MeterSnapshot, until: dt.date) -> Listing:
    """Return the files by date, those of expired partitions listed again: the snapshot may be an hour old."""
    listing = dict(snapshot.files)
    for date in (listing.keys() | snapshot.state.partitions.keys()) - snapshot.state.sealed:
        # A partition that can't be listed keeps its recorded files, and is not dropped.
        if date < until and not any(file.unreadable for file in listing.get(date, ())):
            current = current_files(
                storage, storage.list(paths.events(snapshot.meter.name, date)), snapshot.state
            )
            listing[date] = current.files.get(date, [])
            if not listing[date]:
                del listing[date]
    return listing


def _retain_meter(lake: _MeterLake, until: dt.date, report: RunReport, *, dry_run: bool) -> None:
    changed = stale_partitions(lake.listing, lake.state, lake.meter.version, lake.meter.earlier_version)
    expired = [date for date in sorted(lake.listing.keys() | lake.state.partitions.keys()) if date < until]
    to_seal = []
    for date in expired:
        if date in lake.state.sealed:
            continue
        error = _why_not_droppable(lake, date, changed.get(date))
        if error:
            report.add_error(error)
        else:
            to_seal.append(date)
    if to_seal and not dry_run:
        with report.stage("seal"):
            _seal(lake, to_seal)
    leftover = []
    for date in sorted(lake.state.sealed.difference(to_seal)) if lake.snapshot.stored else []:
        if reason := why_immovable(lake.partition(date).files):
            report.add_error(_refused(lake, date, reason, LINK_HINT))
        elif lake.partition(date).files:
            leftover.append(date)
    for date in sorted({*to_seal, *leftover}):
        partition = lake.partition(date)
        reason = "interrupted before" if date in leftover else f"before {until}"
        done = PartitionReport(
            meter=lake.meter.name, date=date, action=PartitionAction.DROPPED, reason=reason
        )
        done.events = lake.state.partitions[date].events
        folder = paths.events(lake.meter.name, date)
        replaced = [file for file in lake.snapshot.replaced if file.path.startswith(folder)]
        done.bytes_dropped = sum(file.size_bytes for file in [*partition.files, *replaced])
        if not dry_run:
            with report.stage("drop"):
                _drop(partition, lake.state)
        report.add_partition(done)


def _why_not_droppable(lake: _MeterLake, date: dt.date, change: Change | None) -> MeterlakeError | None:
    """Return the error if a partition must not be dropped, else None."""
    record = lake.state.partitions.get(date)
    if reason := why_immovable(lake.listing.get(date, ())):
        found, hint = reason, LINK_HINT
    elif change or record is None:
        found = change.why if change else "never aggregated"
        hint = "run: meterlake aggregate"
    elif not lake.snapshot.stored:
        # The record is from footers, and was not compared with those of other partitions yet.
        found, hint = "no state file of the meter", "run: meterlake aggregate"
    elif record.rejected:
        found, hint = (
            f"files that can't be read: {', '.join(sorted(record.rejected))}",
            "replace or remove them",
        )
    elif record.events and set(read_records(lake.storage, lake.meter.name, date)) != {record.fingerprint}:
        found, hint = (
            "aggregate files that are missing or made from other inputs",
            "run: meterlake aggregate --rebuild",
        )
    elif record.events and _has_other_rows(lake, date, record):
        found, hint = "aggregate files with other rows", "run: meterlake aggregate --rebuild"
    else:
        return _broken_tables(lake, date, record)
    return _refused(lake, date, found, hint)


def _broken_tables(lake: _MeterLake, date: dt.date, record: PartitionState) -> BrokenLakeError | None:
    """Return the error if stored tables break a rule of their columns: sealed tables can't be computed again."""
    try:
        _stored_tables(lake, date, record)
    except BrokenLakeError as error:
        return error
    return None


def _stored_tables(lake: _MeterLake, date: dt.date, record: PartitionState) -> ValidTables:
    """Return the stored tables; those of a date without events have no rows."""
    tables = read_partition(lake.storage, lake.meter.name, date) if record.events else _no_rows(lake.meter)
    return valid_earlier_tables(lake.meter, date, tables)


def _refused(lake: _MeterLake, date: dt.date, found: str, hint: str) -> RefusedError:
    return RefusedError(
        "the partition has expired but can't be dropped",
        where=paths.events(lake.meter.name, date),
        expected="aggregates up to date with exactly its files",
        found=found,
        hint=hint,
    )


def _has_other_rows(lake: _MeterLake, date: dt.date, record: PartitionState) -> bool:
    """Return whether the tables have other rows than were published: sealed tables can't be repaired."""
    tables = read_partition(lake.storage, lake.meter.name, date)
    return bool(record.checksums) and table_checksums(tables) != record.checksums


def _seal(lake: _MeterLake, dates: list[dt.date]) -> None:
    """Make the aggregates of these dates final: publish their sealed winners, then the tables, then the state.

    Nothing is final before the state is saved; an interrupted run is simply repeated.
    """
    with watch_for_changes(
        lake.storage, lake.meter.name, [file for files in lake.listing.values() for file in files]
    ):
        sealed_winners = _sealed_winners(lake, dates)
    for date, winners in sealed_winners.items():
        local, path = lake.storage.scratch(".parquet"), paths.sealed_winners(lake.meter.name, date)
        check_sealed_winners(winners, lake.meter, path)
        write_with_sha256(winners, local)
        lake.storage.publish_file(path, local)
    # Winners that an interrupted run left would count.
    lake.storage.delete_all(
        paths.sealed_winners(lake.meter.name, date) for date in dates if date not in sealed_winners
    )
    for date in dates:
        record = lake.state.partitions[date]
        tables = _stored_tables(lake, date, record)
        # The checksums of publishing, if recorded: later damage must not get valid ones.
        checksums = record.checksums or table_checksums(tables)
        if date in sealed_winners:
            checksums = checksums | {SEALED_WINNERS: rows_checksum(sealed_winners[date])}
        record = msgspec.structs.replace(record, sealed_at=now(), checksums=checksums)
        publish_partition(lake.storage, lake.meter.name, date, tables, record)
        lake.state.partitions[date] = record
    lake.snapshot.save(lake.storage)


def _sealed_winners(lake: _MeterLake, dates: list[dt.date]) -> dict[dt.date, pl.DataFrame]:
    """Return the winners in each of these partitions that have duplicates in a partition that is dropped later or never.

    Columns are those of events, rows are sorted by key. Partitions are dropped in order of their dates.
    """
    open_dates = lake.state.partitions.keys() - lake.state.sealed
    partitions = {date: lake.partition(date) for date in sorted(open_dates)}
    earlier = load_sealed_winners(lake.storage, lake.meter, lake.state.sealed)
    index = KeyIndex(lake.storage, lake.meter.name, partitions)
    lost = find_losers(
        lake.meter, partitions, earlier, dates, index, [DATE, ROW, "idempotency_key", "winner_date"]
    )
    sealed_winners = {}
    for date in dates:
        is_dropped_later = pl.col(DATE).is_in([d for d in open_dates if d not in dates or d > date])
        keys = lost.filter((pl.col("winner_date") == date) & is_dropped_later)["idempotency_key"].unique()
        rows = lost.filter(pl.col(DATE) == date)[ROW]
        if not keys.is_empty():
            winners = (
                partitions[date]
                .valid()
                .filter(pl.col("idempotency_key").is_in(keys.implode()) & ~pl.col(ROW).is_in(rows.implode()))
            )
            sealed_winners[date] = (
                winners.select(*event_columns(lake.meter)).sort("idempotency_key").collect()
            )
    return sealed_winners


def _no_rows(meter: Meter) -> dict[str, pl.DataFrame]:
    none = pl.LazyFrame(schema=event_columns(meter))
    return usage_tables(partial_usage(none, meter).collect(), meter)


def _drop(partition: Partition, state: MeterState) -> None:
    # Listed again: a file that was replaced since the plan is late data, and not in the aggregates.
    listed = partition.storage.list(paths.events(partition.meter.name, partition.date))
    current = current_files(partition.storage, listed, state)
    # A killed run may not have synced the state that says that the date is sealed.
    partition.storage.sync([paths.state(partition.meter.name)])
    # Merged files go before the file that replaces them: without it they would be late events of a sealed partition.
    partition.storage.delete_all(file.path for file in current.replaced)
    unchanged = {*current.files.get(partition.date, ())}
    partition.storage.delete_all(file.path for file in partition.files if file in unchanged)
