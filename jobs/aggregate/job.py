"""Bring the aggregate tables up to date: compute the partitions whose inputs changed, and only those."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec
import polars as pl

from jobs.aggregate.ambiguous_gauges import count_ambiguous
from jobs.aggregate.batches import Due, Ready, batches, compute_batch, is_small
from jobs.aggregate.compute import losers_fingerprint
from jobs.aggregate.plan import Plan, find_affected, make_plan, rebuild_from_tables
from jobs.aggregate.rejected_rows import quarantine_again, quarantine_invalid
from jobs.aggregate.sealed_quantities import recompute_sealed
from jobs.progress import track
from jobs.run_report import PartitionAction, PartitionReport, RunReport
from lake import Lake, paths
from lake.aggregates.ambiguity import ambiguity_note, most_ambiguous
from lake.aggregates.publish import delete_partition, publish_partition
from lake.concurrency import map_ahead
from lake.dedupe.key_index import KeyIndex
from lake.dedupe.winners import DATE
from lake.events.file_check import find_damaged_files
from lake.events.partition import Partition
from lake.snapshot import MeterSnapshot, scan_meters
from lake.state.records import READING_RULES, PartitionState, interrupted_record
from lake.storage import Storage
from lake.storage.changed_files import ATTEMPTS, FilesChangedError, changed_files, watch_for_changes
from lake.storage.errors import is_storage_failure, storage_failures
from schemas.errors import BrokenLakeError, MeterlakeError
from schemas.meter import Meter

DUPLICATE_MOVED = "a duplicate in another partition"


def aggregate(
    lake: Lake,
    report: RunReport,
    *,
    meter: str | None = None,
    rebuild: bool = False,
    snapshots: Sequence[MeterSnapshot] | None = None,
) -> None:
    """Deduplicate, and publish the tables of every stale partition, of one meter or all.

    `rebuild` ignores the results of earlier runs, and computes every open partition again. Files and rows that can't
    be counted are reported, and the run ends with exit code 1 after everything else was done. A run of several steps
    passes `snapshots`, the meters as an earlier step scanned them.
    """
    lake.upgrade()
    meters = scan_meters(lake.storage, meter, report.add_error) if snapshots is None else snapshots

    def work(snapshot: MeterSnapshot) -> None:
        with storage_failures(lake.url):
            _aggregate_meter(lake.storage, snapshot, report, rebuild=rebuild)

    report.keep_going(report.each("plan", meters), work)
    lake.storage.sweep()


def _aggregate_meter(storage: Storage, snapshot: MeterSnapshot, report: RunReport, *, rebuild: bool) -> None:
    for error in snapshot.unexpected:
        report.add_error(error)
    for attempt in range(1, ATTEMPTS + 1):
        mark = report.mark()
        try:
            _bring_up_to_date(storage, snapshot, report, rebuild=rebuild)
            break
        except FilesChangedError:
            if attempt == ATTEMPTS:
                raise
            # As after an interrupted run: partitions that were published are published again.
            report.rewind(mark)
            snapshot.refresh(storage)
    if subjects := most_ambiguous(snapshot.meter, snapshot.state):
        report.note(ambiguity_note(snapshot.meter.name, subjects))
    for record in snapshot.state.partitions.values():
        for rejected in record.rejected.values():
            report.add_error(rejected.error())


def _bring_up_to_date(storage: Storage, snapshot: MeterSnapshot, report: RunReport, *, rebuild: bool) -> None:
    missing: list[BrokenLakeError] = []
    with report.stage("aggregate"):
        recompute_sealed(storage, snapshot, report)
        count_ambiguous(storage, snapshot)
    with report.stage("plan"):
        if rebuild:
            missing = rebuild_from_tables(storage, snapshot)
        plan = make_plan(storage, snapshot, report, rebuild=rebuild)
    is_due = plan.stale or plan.compare_all
    index = _recompute(storage, snapshot, plan, report) if is_due else None
    snapshot.state.rules = READING_RULES
    # Without the state, the next run repeats the work of this one.
    if not (snapshot.saved_later and plan.is_small):
        snapshot.save(storage)
    if index:
        index.delete_obsolete()
    for error in [*plan.failed.values(), *missing]:
        report.add_error(error)


def _recompute(storage: Storage, snapshot: MeterSnapshot, plan: Plan, report: RunReport) -> KeyIndex:
    name, files = snapshot.meter.name, plan.files
    with watch_for_changes(storage, name, files):
        while True:
            try:
                return _publish_all(storage, snapshot, plan, report)
            except (pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
                if is_storage_failure(error) or changed_files(storage, paths.events(name), files):
                    raise
                # A damaged page below an intact footer shows only when it is read.
                if not find_damaged_files(plan.partitions, plan.rejected, set(plan.stale)):
                    raise _cannot_aggregate(snapshot.meter, plan, error) from error


def _cannot_aggregate(meter: Meter, plan: Plan, error: BaseException) -> BrokenLakeError:
    """Return the error where all files of stale partitions can be read: a duplicate may be in a damaged other file."""
    find_damaged_files(plan.partitions, plan.rejected, plan.others)
    damaged = sorted(each.where for date in plan.others for each in plan.rejected[date].values())
    return BrokenLakeError(
        "the events can't be aggregated",
        where=damaged[0] if damaged else f"meter {meter.name!r}",
        found=str(error).splitlines()[0],
        hint="restore the file from a backup, or remove it to do without its events; nothing was published"
        if damaged
        else "the run report and `meterlake --debug aggregate` have details; nothing was published",
    )


def _publish_all(storage: Storage, snapshot: MeterSnapshot, plan: Plan, report: RunReport) -> KeyIndex:
    meter = snapshot.meter
    with report.stage("index"):
        index = KeyIndex(storage, meter.name, plan.partitions)
        index.update()
    with report.stage("deduplicate"):
        losers, affected = find_affected(storage, snapshot, plan, index)
    with report.stage("aggregate"):
        due = _due_partitions(storage, snapshot, plan, losers, affected)
        # From here on the tables are ahead of the state: if this run ends early, and its inputs change, the next run
        # could not tell which tables are those of the state.
        snapshot.save_begun(
            storage, {each.partition.date: [*each.partition.file_identities, *each.rejected] for each in due}
        )
        due_batches = batches(track(due, f"aggregate {meter.name}"))
        computed = map_ahead(compute_batch, due_batches, small=is_small, threads=2)
        for each, result in (
            pair for batch, results in computed for pair in zip(batch, results, strict=True)
        ):
            _record_result(snapshot, plan, each, result, report)
    return index


def _due_partitions(
    storage: Storage, snapshot: MeterSnapshot, plan: Plan, losers: pl.DataFrame, affected: set[dt.date]
) -> list[Due]:
    """Return the partitions to compute, by date: stale ones, and affected ones that have other losers than recorded."""
    due = [
        Due(
            plan.partitions.get(date, Partition(storage, snapshot.meter, date)),
            losers.filter(pl.col(DATE) == date),
            plan.rejected.get(date, {}),
            plan.stale[date].why if date in plan.stale else DUPLICATE_MOVED,
        )
        for date in sorted(plan.stale.keys() | affected)
    ]
    recorded = {date: snapshot.state.partitions[date].losers for date in affected}
    return [each for each in due if recorded.get(each.partition.date) != losers_fingerprint(each.lost)]


def _record_result(
    snapshot: MeterSnapshot,
    plan: Plan,
    due: Due,
    result: Ready | MeterlakeError,
    report: RunReport,
) -> None:
    """Publish the result of a partition, and put its record into the state; without a result, only note that."""
    records, date = snapshot.state.partitions, due.partition.date
    if isinstance(result, MeterlakeError):
        plan.failed[date] = result
        if date in records and date not in plan.stale:
            # Its files are those of its record, so the next run would call it up to date.
            records[date] = interrupted_record(records[date], ())
        return
    record = _publish(due, result, records.get(date), report)
    records.pop(date, None)
    if record.files or record.rejected:
        records[date] = record


def _publish(due: Due, result: Ready, before: PartitionState | None, report: RunReport) -> PartitionState:
    """Publish a partition's tables, or delete them where no event is left; return its record.

    `before` is its record of the last run, if there is one.
    """
    partition, record, tables = due.partition, result.record, result.tables
    has_invalid = result.rows > record.events + record.duplicates
    if before and before.rules < READING_RULES and (has_invalid or before.invalid):
        quarantine_again(partition, before, report)
    if has_invalid:
        record = msgspec.structs.replace(record, invalid=quarantine_invalid(partition, report))
    done = PartitionReport(
        meter=partition.meter.name,
        date=partition.date,
        action=PartitionAction.AGGREGATED,
        reason=due.reason,
        events=record.events,
    )
    done.duplicates, done.conflicts = record.duplicates, record.conflicts
    if tables:
        done.rows_written = sum(table.height for table in tables.values())
        done.bytes_written = publish_partition(
            partition.storage, partition.meter.name, partition.date, tables, record
        )
    else:
        done.action = PartitionAction.DELETED
        delete_partition(partition.storage, partition.meter.name, partition.date)
    report.events_read += result.rows
    report.add_partition(done)
    return record
