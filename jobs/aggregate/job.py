"""Bring the aggregate tables up to date: recompute the partitions whose inputs changed, and only those."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import polars as pl

from jobs.aggregate.ambiguous_gauges import count_ambiguous
from jobs.aggregate.batches import SMALL_BYTES, Due, Ready, batches, compute_batch, is_small
from jobs.aggregate.compute import losers_fingerprint
from jobs.aggregate.late_files import quarantine_late
from jobs.aggregate.rejected_rows import quarantine_anew, quarantine_invalid
from jobs.aggregate.sealed_quantities import recompute_sealed
from jobs.progress import track
from jobs.run_report import PartitionReport, RunReport
from lake import Lake, paths
from lake.aggregates.ambiguity import ambiguity_note, most_ambiguous
from lake.aggregates.missing_tables import missing_tables
from lake.aggregates.publish import delete_partition, publish_partition
from lake.concurrency import map_ahead
from lake.dedupe.find_losers import find_losers, load_sealed_winners
from lake.dedupe.key_index import KeyIndex, key_hashes
from lake.dedupe.winners import CONFLICT, DATE, HASH
from lake.events.file_check import Rejected, find_damaged_files, readable_partitions
from lake.events.partition import Partition
from lake.snapshot import MeterSnapshot, scan_meters
from lake.state.changes import FILES_ADDED, NEW, VANISHED, Change, stale_partitions
from lake.state.earlier_rules import counted_by_earlier_rules
from lake.state.rebuild import published_tables, rebuild_state
from lake.state.records import READING_RULES, MeterState, PartitionState, interrupted_record
from lake.storage import Storage
from lake.storage.changed_files import ATTEMPTS, FilesChangedError, changed_files, watch_for_changes
from lake.storage.errors import is_storage_failure, storage_failures
from schemas.columns import ROW
from schemas.errors import BadInputError, BrokenLakeError, MeterlakeError
from schemas.meter import Meter

COPIES_MOVED = "a copy in another partition"
REBUILD = "rebuild"


class Plan(NamedTuple):
    """What a run over one meter is to do: changed partitions and why, all open ones, and files not counted.

    With `compare_all` the losers of every open partition are compared with those of its record, changed or not.
    `failed` is filled with the partitions whose rows can't be published, and why.
    """

    changed: dict[dt.date, Change]
    partitions: dict[dt.date, Partition]
    rejected: Rejected
    failed: dict[dt.date, MeterlakeError]
    compare_all: bool = False


def aggregate(
    lake: Lake,
    report: RunReport,
    *,
    meter: str | None = None,
    rebuild: bool = False,
    views: Sequence[MeterSnapshot] | None = None,
) -> None:
    """Deduplicate, and publish the tables of every partition that is out of date, of one meter or all.

    `rebuild` forgets what was concluded before and computes every open partition anew. Files and rows that can't
    be counted are reported, and end the run with exit code 1 after everything else was done. `views` are the
    meters as the run has found them, for a run of several steps.
    """
    lake.upgrade()
    found = scan_meters(lake.storage, meter, report.add_error) if views is None else views

    def work(view: MeterSnapshot) -> None:
        with storage_failures(lake.url):
            _aggregate_meter(lake.storage, view, report, rebuild=rebuild)

    report.keep_going(report.each("plan", found), work)
    lake.storage.sweep()


def _aggregate_meter(storage: Storage, view: MeterSnapshot, report: RunReport, *, rebuild: bool) -> None:
    for stray in view.unexpected:
        report.add_error(stray)
    for attempt in range(1, ATTEMPTS + 1):
        mark = report.mark()
        try:
            _bring_up_to_date(storage, view, report, rebuild=rebuild)
            break
        except FilesChangedError:
            if attempt == ATTEMPTS:
                raise
            # As after a run that broke off here: what was published is published again.
            report.rewind(mark)
            view.refresh(storage)
    if subjects := most_ambiguous(view.meter, view.state):
        report.note(ambiguity_note(view.meter.name, subjects))
    for record in view.state.partitions.values():
        for said in record.rejected.values():
            report.add_error(BadInputError.from_dict(said))


def _bring_up_to_date(storage: Storage, view: MeterSnapshot, report: RunReport, *, rebuild: bool) -> None:
    incomplete: list[BrokenLakeError] = []
    with report.stage("aggregate"):
        recompute_sealed(storage, view, report)
        count_ambiguous(storage, view)
    with report.stage("plan"):
        if rebuild:
            incomplete = _forget(storage, view)
        plan = _plan(storage, view, report, rebuild=rebuild)
    due = plan.changed or plan.compare_all
    index = _recompute(storage, view, plan, report) if due else None
    view.state.rules = READING_RULES
    # Without it the next run does once more what this one did.
    if not (view.saved_later and _is_little(plan)):
        view.save(storage)
    if index:
        index.delete_obsolete()
    for error in [*plan.failed.values(), *incomplete]:
        report.add_error(error)


def _forget(storage: Storage, view: MeterSnapshot) -> list[BrokenLakeError]:
    """Rebuild the state of a meter; return an error for each table in which sealed dates have no file."""
    name = view.meter.name
    tables = published_tables(storage, name)
    # What the state knows is not asked of footers: an interrupted run may have put other things there.
    rebuilt = rebuild_state(storage, name, view.state.partitions, tables)
    rebuilt.definition, view.state = view.state.definition, rebuilt
    sealed = {date: rebuilt.partitions[date] for date in rebuilt.sealed}
    return list(missing_tables(name, sealed, tables))


def _is_little(plan: Plan) -> bool:
    """Return whether to publish all this once more would take no time to speak of."""
    files = (file for date in plan.changed if date in plan.partitions for file in plan.partitions[date].files)
    return not plan.compare_all and sum(file.size_bytes for file in files) <= SMALL_BYTES


def _plan(storage: Storage, view: MeterSnapshot, report: RunReport, *, rebuild: bool) -> Plan:
    meter, listing, state = view.meter, view.files, view.state
    sealed = MeterState(partitions={date: state.partitions[date] for date in state.sealed})
    changed = stale_partitions(listing, sealed if rebuild else state, meter.version, meter.earlier_version)
    if not rebuild:
        changed = counted_by_earlier_rules(storage, meter.name, state) | changed
    if rebuild:
        gone = state.partitions.keys() - listing.keys() - state.sealed
        changed = {
            date: change if date in sealed.partitions else Change(REBUILD, change.added)
            for date, change in changed.items()
        }
        changed |= {date: Change(VANISHED) for date in gone}
    quarantine_late(storage, meter, changed, report)
    # They are read for their footers, their keys and their rows.
    storage.prefetch([file for date in changed for file in listing.get(date, ())])
    # Footers tell what each partition was made of, and not whether the run came to the others that it concerned.
    compare_all = not view.stored and bool(state.partitions)
    if not changed and not compare_all:
        return Plan({}, {}, {}, {})
    partitions, rejected = readable_partitions(storage, meter, listing, sealed if rebuild else state)
    return Plan(changed, partitions, rejected, {}, compare_all)


def _recompute(storage: Storage, view: MeterSnapshot, plan: Plan, report: RunReport) -> KeyIndex:
    files = [file for partition in plan.partitions.values() for file in partition.files]
    with watch_for_changes(storage, view.meter.name, files):
        while True:
            try:
                return _publish_all(storage, view, plan, report)
            except (pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
                if is_storage_failure(error) or changed_files(storage, paths.events(view.meter.name), files):
                    raise
                # A footer may be whole while a page is not, which shows only on reading it.
                if not find_damaged_files(plan.partitions, plan.rejected, set(plan.changed)):
                    raise _cannot_aggregate(view.meter, plan, error) from error


def _cannot_aggregate(meter: Meter, plan: Plan, error: BaseException) -> BrokenLakeError:
    """What to tell where the files of the changed partitions can all be read: a copy may lie in a damaged one."""
    others = plan.partitions.keys() - plan.changed.keys()
    find_damaged_files(plan.partitions, plan.rejected, others)
    damaged = sorted(said["where"] for date in others for said in plan.rejected[date].values())
    return BrokenLakeError(
        "the events can't be aggregated",
        where=damaged[0] if damaged else f"meter {meter.name!r}",
        found=str(error).splitlines()[0],
        hint="restore the file from a backup, or remove it to do without its events; nothing was published"
        if damaged
        else "the run report and `meterlake --debug aggregate` tell more; nothing was published",
    )


def _publish_all(storage: Storage, view: MeterSnapshot, plan: Plan, report: RunReport) -> KeyIndex:
    meter, state = view.meter, view.state
    with report.stage("index"):
        index = KeyIndex(storage, meter.name, plan.partitions)
        index.update()
    with report.stage("deduplicate"):
        losers, hit = _losers(storage, meter, state, plan, index)
    with report.stage("aggregate"):
        dates = sorted(plan.changed.keys() | hit)
        due = (_due(storage, meter, date, plan, losers.filter(pl.col(DATE) == date)) for date in dates)
        known = {date: state.partitions[date].losers for date in hit}
        # A date whose own files are the same, and that has the same losers, is up to date.
        stale = [each for each in due if known.get(each.partition.date) != losers_fingerprint(each.lost)]
        # From here on the tables are ahead of the state: should this run end early, and what it read change, the
        # next one could not tell which of them are as the state has it.
        view.save_begun(
            storage,
            {each.partition.date: [*each.partition.file_identities, *each.rejected] for each in stale},
        )
        due_batches = batches(track(stale, f"aggregate {meter.name}"))
        computed = map_ahead(compute_batch, due_batches, small=is_small, threads=2)
        for each, found in (pair for batch, results in computed for pair in zip(batch, results, strict=True)):
            date = each.partition.date
            if isinstance(found, MeterlakeError):
                plan.failed[date] = found
                if date in state.partitions and date not in plan.changed:
                    # Its files are those of its record, so the next run would take it for up to date.
                    state.partitions[date] = interrupted_record(state.partitions[date], ())
                continue
            record = _publish(each, found, state.partitions.get(date), report)
            state.partitions.pop(date, None)
            if record.files or record.rejected:
                state.partitions[date] = record
    return index


def _losers(
    storage: Storage, meter: Meter, state: MeterState, plan: Plan, index: KeyIndex
) -> tuple[pl.DataFrame, set[dt.date]]:
    """The losers of the changed partitions, and the others that may have come to lose or win rows, with theirs."""
    settled = load_sealed_winners(storage, meter, state.sealed)
    changed, others = plan.changed.keys(), plan.partitions.keys() - plan.changed.keys()

    def find(focus: set[dt.date]) -> pl.DataFrame:
        keep = [DATE, ROW, CONFLICT, "winner_date"]
        return find_losers(meter, plan.partitions, settled, focus & plan.partitions.keys(), index, keep)

    if not plan.compare_all and all(change.why in (NEW, FILES_ADDED) for change in plan.changed.values()):
        losers = find(set(changed))
        # Where rows only came, an old winner loses to a new one or is a winner still.
        beaten = losers.filter(
            pl.col("winner_date").is_in(list(changed)) & ~pl.col(DATE).is_in(list(changed))
        )
        hit = set(beaten[DATE])
        return (find(changed | hit) if hit else losers), hit
    moved = _moved_keys(index, plan, state) if others and not plan.compare_all else None
    hit = others if moved is None else index.dates_with(moved, others)
    return find(changed | hit), hit


def _due(storage: Storage, meter: Meter, date: dt.date, plan: Plan, lost: pl.DataFrame) -> Due:
    partition = plan.partitions.get(date, Partition(storage, meter, date))
    why = plan.changed[date].why if date in plan.changed else COPIES_MOVED
    return Due(partition, lost, plan.rejected.get(date, {}), why)


def _moved_keys(index: KeyIndex, plan: Plan, state: MeterState) -> pl.Series | None:
    """The hashes of keys that came, went, or may count otherwise now.

    None if what went is no longer known, so that any key may be concerned.
    """
    found = [pl.Series(HASH, dtype=pl.UInt64)]
    for date, change in plan.changed.items():
        partition = plan.partitions.get(date)
        record = state.partitions.get(date)
        if partition and change.why == FILES_ADDED:
            names = {file.path for file in change.added}
            found.append(
                key_hashes(partition.with_files(file for file in partition.files if file.path in names))
            )
            continue
        if partition:
            found.append(index.keys([date]).collect(engine="streaming")[HASH])
        if record and record.files:
            before = index.hashes_at_last_run(date, record)
            if before is None:
                return None
            found.append(before)
    return pl.concat(found).unique()


def _publish(due: Due, ready: Ready, before: PartitionState | None, report: RunReport) -> PartitionState:
    """Publish a partition's tables, or withdraw them where no event is left; return its record.

    `before` is what was recorded of the partition, if anything.
    """
    partition, record, tables = due.partition, ready.record, ready.tables
    has_invalid = ready.rows > record.events + record.duplicates
    if before and before.rules < READING_RULES and (has_invalid or before.invalid):
        quarantine_anew(partition, before, report)
    if has_invalid:
        record = msgspec.structs.replace(record, invalid=quarantine_invalid(partition, report))
    done = PartitionReport(
        meter=partition.meter.name,
        date=partition.date,
        action="aggregated",
        reason=due.why,
        events=record.events,
    )
    done.duplicates, done.conflicts = record.duplicates, record.conflicts
    if tables:
        done.rows_written = sum(table.height for table in tables.values())
        done.bytes_written = publish_partition(
            partition.storage, partition.meter.name, partition.date, tables, record
        )
    else:
        done.action = "withdrawn"
        delete_partition(partition.storage, partition.meter.name, partition.date)
    report.events_read += ready.rows
    report.add_partition(done)
    return record
