"""Decide what a run over one meter computes: its stale partitions, and others whose winners may have changed."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import polars as pl

from jobs.aggregate.batches import SMALL_BYTES
from jobs.aggregate.late_files import quarantine_late
from jobs.run_report import RunReport
from lake.aggregates.missing_tables import missing_tables
from lake.dedupe.find_losers import find_losers, load_sealed_winners
from lake.dedupe.key_index import KeyIndex, key_hashes
from lake.dedupe.winners import CONFLICT, DATE, HASH
from lake.events.file_check import Rejected, readable_partitions
from lake.events.partition import Partition
from lake.snapshot import MeterSnapshot
from lake.state.changes import FILES_ADDED, NEW, VANISHED, Change, stale_partitions
from lake.state.earlier_rules import counted_by_earlier_rules
from lake.state.rebuild import published_tables, rebuild_state
from lake.state.records import MeterState
from lake.storage import Storage, StoredFile
from schemas.columns import ROW
from schemas.errors import BrokenLakeError, MeterlakeError

REBUILD = "rebuild"


class Plan(NamedTuple):
    """What a run over one meter has to do: stale partitions with the reason, all open ones, and files not counted.

    With `compare_all`, the losers of every open partition are compared with those of its record, stale or not. The run
    adds to `failed` the errors of partitions that can't be published.
    """

    stale: dict[dt.date, Change]
    partitions: dict[dt.date, Partition]
    rejected: Rejected
    failed: dict[dt.date, MeterlakeError]
    compare_all: bool = False

    @property
    def others(self) -> set[dt.date]:
        """The dates of open partitions that are not stale themselves."""
        return self.partitions.keys() - self.stale.keys()

    @property
    def files(self) -> list[StoredFile]:
        """All files of open partitions that are counted."""
        return [file for partition in self.partitions.values() for file in partition.files]

    @property
    def is_small(self) -> bool:
        """Whether doing all of it again would take almost no time."""
        dates = self.stale.keys() & self.partitions.keys()
        size_bytes = sum(file.size_bytes for date in dates for file in self.partitions[date].files)
        return not self.compare_all and size_bytes <= SMALL_BYTES


def make_plan(storage: Storage, snapshot: MeterSnapshot, report: RunReport, *, rebuild: bool) -> Plan:
    """Return the plan for a meter; moves late files of sealed partitions to quarantine first.

    With `rebuild`, every open partition is stale.
    """
    meter, files, state = snapshot.meter, snapshot.files, snapshot.state
    sealed = MeterState(partitions={date: state.partitions[date] for date in state.sealed})
    stale = stale_partitions(files, sealed if rebuild else state, meter.version, meter.earlier_version)
    if rebuild:
        vanished = state.partitions.keys() - files.keys() - state.sealed
        stale = {
            date: change if date in sealed.partitions else Change(REBUILD, change.added)
            for date, change in stale.items()
        }
        stale |= {date: Change(VANISHED) for date in vanished}
    else:
        stale = counted_by_earlier_rules(storage, meter.name, state) | stale
    quarantine_late(storage, meter, stale, report)
    # Footers, keys and rows of these files are read.
    storage.prefetch([file for date in stale for file in files.get(date, ())])
    # A state from footers does not tell whether the last run came to all partitions that its changes affected.
    compare_all = not snapshot.stored and bool(state.partitions)
    if not stale and not compare_all:
        return Plan({}, {}, {}, {})
    partitions, rejected = readable_partitions(storage, meter, files, sealed if rebuild else state)
    return Plan(stale, partitions, rejected, {}, compare_all)


def rebuild_from_tables(storage: Storage, snapshot: MeterSnapshot) -> list[BrokenLakeError]:
    """Rebuild the state of a meter from its tables; return an error for each table that lacks files of sealed dates."""
    name = snapshot.meter.name
    tables = published_tables(storage, name)
    # Records of the state come before footers: an interrupted run may have published tables with others.
    rebuilt = rebuild_state(storage, name, snapshot.state.partitions, tables)
    rebuilt.definition, snapshot.state = snapshot.state.definition, rebuilt
    sealed = {date: rebuilt.partitions[date] for date in rebuilt.sealed}
    return list(missing_tables(name, sealed, tables))


def find_affected(
    storage: Storage, snapshot: MeterSnapshot, plan: Plan, index: KeyIndex
) -> tuple[pl.DataFrame, set[dt.date]]:
    """Return the losers in stale and affected partitions, and the dates of the affected ones.

    Affected are other partitions whose winners may have changed. The losers have the columns `date`, `row`, `conflict`
    and `winner_date`.
    """
    meter, stale = snapshot.meter, list(plan.stale)
    sealed_winners = load_sealed_winners(storage, meter, snapshot.state.sealed)

    def find(dates: set[dt.date]) -> pl.DataFrame:
        columns = [DATE, ROW, CONFLICT, "winner_date"]
        return find_losers(
            meter, plan.partitions, sealed_winners, dates & plan.partitions.keys(), index, columns
        )

    if not plan.compare_all and all(change.why in (NEW, FILES_ADDED) for change in plan.stale.values()):
        losers = find({*stale})
        # Where rows were only added, an earlier winner either loses to a new row or still wins.
        beaten = losers.filter(pl.col("winner_date").is_in(stale) & ~pl.col(DATE).is_in(stale))
        affected = set(beaten[DATE])
        return (find({*stale} | affected) if affected else losers), affected
    changed = _changed_keys(index, plan, snapshot.state) if plan.others and not plan.compare_all else None
    affected = plan.others if changed is None else index.dates_with(changed, plan.others)
    return find({*stale} | affected), affected


def _changed_keys(index: KeyIndex, plan: Plan, state: MeterState) -> pl.Series | None:
    """Return the hashes of keys that were added, removed, or may have another winner now.

    None if the removed keys are not known any more, so that any key may be affected.
    """
    hashes = [pl.Series(HASH, dtype=pl.UInt64)]
    for date, change in plan.stale.items():
        partition = plan.partitions.get(date)
        record = state.partitions.get(date)
        if partition and change.why == FILES_ADDED:
            names = {file.path for file in change.added}
            hashes.append(
                key_hashes(partition.with_files(file for file in partition.files if file.path in names))
            )
            continue
        if partition:
            hashes.append(index.keys([date]).collect(engine="streaming")[HASH])
        if record and record.files:
            before = index.hashes_at_last_run(date, record)
            if before is None:
                return None
            hashes.append(before)
    return pl.concat(hashes).unique()
