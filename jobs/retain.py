"""Drop the raw events of partitions that have expired, once their aggregates are sealed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from jobs.aggregate.tables import partial_usage, usage_tables
from jobs.clock import check_as_of, check_clock
from jobs.run_report import PartitionReport, RunReport, now
from lake import Lake, paths
from lake.aggregates.first_last import Moments
from lake.aggregates.publish import publish_partition, read_partition, read_records, table_checksums
from lake.aggregates.valid_tables import ValidTables, valid_earlier_tables
from lake.calendar import days_before
from lake.checksums import rows_checksum, write_stamped
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

    Of one meter or all. A partition whose aggregates are not up to date with exactly the files that are there is
    kept, and the run ends with exit code 1. With `dry_run` the report is the same, and nothing is touched. `snapshots`
    are what an earlier step of the same run has left of the meters.

    Unless the run has checked it, raises RefusedError for a date after today but for a `dry_run`, and where this
    machine's clock is far ahead of all that is known, unless `trust_clock`.
    """
    if not dry_run:
        check_as_of(as_of, report.started_at)
        lake.upgrade()
    # A date that somebody names is shown, whatever the clock.
    if not is_checked and not (dry_run and as_of):
        check_clock(lake.storage, report.started_at, as_of, trust=trust_clock, dry_run=dry_run)
    found = scan_meters(lake.storage, meter, report.add_error) if snapshots is None else snapshots

    def work(snapshot: MeterSnapshot) -> None:
        until = days_before(as_of or report.started_at.date(), snapshot.meter.event_retention_days)
        with report.stage("plan"):
            listing = _listed_again(lake.storage, snapshot, until)
        if not dry_run:
            remove_replaced(lake.storage, snapshot.replaced, now())
        _retain_meter(_MeterLake(lake.storage, snapshot, listing), until, report, dry_run=dry_run)

    report.keep_going(report.each("plan", found), work)


class _MeterLake(msgspec.Struct, frozen=True):
    """One meter's part of the lake: what is there, and what was concluded of it."""

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


def _listed_again(storage: Storage, snapshot: MeterSnapshot, until: dt.date) -> Listing:
    """The listing with the partitions that are about to go as they are now: an hour may have passed."""
    listing = dict(snapshot.files)
    for date in (listing.keys() | snapshot.state.partitions.keys()) - snapshot.state.sealed:
        # What could not be listed stays as it was recorded, and is not dropped.
        if date < until and not any(file.unreadable for file in listing.get(date, ())):
            now_there = current_files(
                storage, storage.list(paths.events(snapshot.meter.name, date)), snapshot.state
            )
            listing[date] = now_there.files.get(date, [])
            if not listing[date]:
                del listing[date]
    return listing


def _retain_meter(lake: _MeterLake, until: dt.date, report: RunReport, *, dry_run: bool) -> None:
    changed = stale_partitions(lake.listing, lake.state, lake.meter.version, lake.meter.earlier_version)
    expired = [date for date in sorted(lake.listing.keys() | lake.state.partitions.keys()) if date < until]
    doomed = []
    for date in expired:
        if date in lake.state.sealed:
            continue
        error = _objection(lake, date, changed.get(date))
        if error:
            report.add_error(error)
        else:
            doomed.append(date)
    if doomed and not dry_run:
        with report.stage("seal"):
            _seal(lake, doomed)
    leftover = []
    for date in sorted(lake.state.sealed.difference(doomed)) if lake.snapshot.stored else []:
        if fixed := why_immovable(lake.partition(date).files):
            report.add_error(_refused(lake, date, fixed, LINK_HINT))
        elif lake.partition(date).files:
            leftover.append(date)
    for date in sorted({*doomed, *leftover}):
        partition = lake.partition(date)
        why = "interrupted before" if date in leftover else f"before {until}"
        done = PartitionReport(meter=lake.meter.name, date=date, action="dropped", reason=why)
        done.events = lake.state.partitions[date].events
        folder = paths.events(lake.meter.name, date)
        replaced = [file for file in lake.snapshot.replaced if file.path.startswith(folder)]
        done.bytes_dropped = sum(file.size_bytes for file in [*partition.files, *replaced])
        if not dry_run:
            with report.stage("drop"):
                _drop(partition, lake.state)
        report.add_partition(done)


def _objection(lake: _MeterLake, date: dt.date, change: Change | None) -> MeterlakeError | None:
    """Why the partition must not be dropped, or None."""
    record = lake.state.partitions.get(date)
    if fixed := why_immovable(lake.listing.get(date, ())):
        found, hint = fixed, LINK_HINT
    elif change or record is None:
        found = change.why if change else "never aggregated"
        hint = "run: meterlake aggregate"
    elif not lake.snapshot.stored:
        # The record is from footers, and nobody has compared it with those of the other partitions yet.
        found, hint = "no state file of the meter", "run: meterlake aggregate"
    elif record.rejected:
        found, hint = (
            f"files that can't be read: {', '.join(sorted(record.rejected))}",
            "replace or remove them",
        )
    elif record.events and set(read_records(lake.storage, lake.meter.name, date)) != {record.fingerprint}:
        found, hint = (
            "aggregate files that are missing or of other inputs",
            "run: meterlake aggregate --rebuild",
        )
    elif record.events and _altered(lake, date, record):
        found, hint = "aggregate files with other rows", "run: meterlake aggregate --rebuild"
    else:
        return _broken_tables(lake, date, record)
    return _refused(lake, date, found, hint)


def _broken_tables(lake: _MeterLake, date: dt.date, record: PartitionState) -> BrokenLakeError | None:
    """Return what breaks a rule of the stored tables, since what is sealed could never be computed again."""
    try:
        _stored_tables(lake, date, record)
    except BrokenLakeError as error:
        return error
    return None


def _stored_tables(lake: _MeterLake, date: dt.date, record: PartitionState) -> ValidTables:
    """Return the tables as they lie in the lake; of a date without events they have no rows."""
    tables = read_partition(lake.storage, lake.meter.name, date) if record.events else _no_rows(lake.meter)
    return valid_earlier_tables(lake.meter, date, tables)


def _refused(lake: _MeterLake, date: dt.date, found: str, hint: str) -> RefusedError:
    return RefusedError(
        "the partition has expired but can't be dropped",
        where=paths.events(lake.meter.name, date),
        expected="aggregates up to date with exactly the files that are there",
        found=found,
        hint=hint,
    )


def _altered(lake: _MeterLake, date: dt.date, record: PartitionState) -> bool:
    """Whether the rows in the tables are not those that were published: what is sealed could never be mended."""
    tables = read_partition(lake.storage, lake.meter.name, date)
    return bool(record.checksums) and table_checksums(tables) != record.checksums


def _seal(lake: _MeterLake, doomed: list[dt.date]) -> None:
    """Make the aggregates of these dates final: first what open partitions lost to them, then the tables, then the state.

    Until the state is saved nothing is final, and an interrupted run is simply done again.
    """
    with watch_for_changes(
        lake.storage, lake.meter.name, [file for files in lake.listing.values() for file in files]
    ):
        settled = _settled(lake, doomed)
    for date, winners in settled.items():
        local, path = lake.storage.scratch(".parquet"), paths.sealed_winners(lake.meter.name, date)
        check_sealed_winners(winners, lake.meter, path)
        write_stamped(winners, local)
        lake.storage.publish_file(path, local)
    # What an interrupted run has left of other winners would count.
    lake.storage.delete_all(
        paths.sealed_winners(lake.meter.name, date) for date in doomed if date not in settled
    )
    for date in doomed:
        record = lake.state.partitions[date]
        tables = _stored_tables(lake, date, record)
        # Those of the rows as they were published, unless there were none: what was damaged since must be seen.
        checksums = record.checksums or table_checksums(tables)
        if date in settled:
            checksums = checksums | {SEALED_WINNERS: rows_checksum(settled[date])}
        record = msgspec.structs.replace(record, sealed_at=now(), checksums=checksums)
        publish_partition(lake.storage, lake.meter.name, date, tables, record)
        lake.state.partitions[date] = record
    lake.snapshot.save(lake.storage)


def _settled(lake: _MeterLake, doomed: list[dt.date]) -> dict[dt.date, pl.DataFrame]:
    """The winners in each of these partitions that have copies in a partition that outlives it.

    Partitions are sealed in order of their dates, so of two that go together the later one outlives the earlier.
    """
    open_dates = lake.state.partitions.keys() - lake.state.sealed
    partitions = {date: lake.partition(date) for date in sorted(open_dates)}
    settled = load_sealed_winners(lake.storage, lake.meter, lake.state.sealed)
    index = KeyIndex(lake.storage, lake.meter.name, partitions)
    lost = find_losers(
        lake.meter, partitions, settled, doomed, index, [DATE, ROW, "idempotency_key", "winner_date"]
    )
    found = {}
    for date in doomed:
        outlived = pl.col(DATE).is_in([d for d in open_dates if d not in doomed or d > date])
        keys = lost.filter((pl.col("winner_date") == date) & outlived)["idempotency_key"].unique()
        rows = lost.filter(pl.col(DATE) == date)[ROW]
        if not keys.is_empty():
            winners = (
                partitions[date]
                .valid()
                .filter(pl.col("idempotency_key").is_in(keys.implode()) & ~pl.col(ROW).is_in(rows.implode()))
            )
            found[date] = winners.select(*event_columns(lake.meter)).sort("idempotency_key").collect()
    return found


def _no_rows(meter: Meter) -> dict[str, pl.DataFrame]:
    none, ends = pl.LazyFrame(schema=event_columns(meter)), Moments()
    return usage_tables(partial_usage(none, meter, ends).collect(), meter, ends)


def _drop(partition: Partition, state: MeterState) -> None:
    # Looked at once more: what was replaced since the plan is late data, not what the aggregates hold.
    listed = partition.storage.list(paths.events(partition.meter.name, partition.date))
    there = current_files(partition.storage, listed, state)
    # That the date is sealed may be the last that a killed run has written.
    partition.storage.sync([paths.state(partition.meter.name)])
    # Merged files go before the one that stands for them: without it they would be late events of a sealed partition.
    partition.storage.delete_all(file.path for file in there.replaced)
    still = {*there.files.get(partition.date, ())}
    partition.storage.delete_all(file.path for file in partition.files if file in still)
