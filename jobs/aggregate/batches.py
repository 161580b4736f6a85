"""Compute partitions, several small ones at a time, so that their tables are validated together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import polars as pl

from jobs.aggregate.compute import PartitionResult, compute_partition
from lake.aggregates.valid_tables import ValidTables, valid_tables
from lake.events.partition import Partition
from lake.state.records import PartitionState, RejectedFile
from schemas.errors import MeterlakeError, SumTooLargeError

# Batches up to this size are computed while the one before is published; larger ones one after the other.
SMALL_BYTES = 64 * 2**20
# Validating few small partitions at a time would take a large part of their time; tables of larger ones, kept until
# all of a batch are computed, would take a large part of the memory.
MAX_DATES = 16
BATCH_BYTES = 2**20


class Due(NamedTuple):
    """A partition to compute, the losers in it, its files that can't be read, and the reason."""

    partition: Partition
    lost: pl.DataFrame
    rejected: dict[str, RejectedFile]
    reason: str

    @property
    def size_bytes(self) -> int:
        """The size of its files."""
        return sum(file.size_bytes for file in self.partition.files)


class Ready(NamedTuple):
    """A partition that is ready to be published: a `PartitionResult` with validated tables."""

    record: PartitionState
    tables: ValidTables
    rows: int


def batches(partitions: Iterable[Due]) -> Iterator[list[Due]]:
    """Yield the partitions in order; neighbours that are small are in one batch."""
    batch: list[Due] = []
    for due in partitions:
        if batch and (len(batch) == MAX_DATES or _size_bytes([*batch, due]) > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(due)
    if batch:
        yield batch


def is_small(batch: Sequence[Due]) -> bool:
    """Return whether another batch may be computed beside this one."""
    return _size_bytes(batch) <= SMALL_BYTES


def _size_bytes(batch: Iterable[Due]) -> int:
    return sum(due.size_bytes for due in batch)


def compute_batch(batch: Sequence[Due]) -> list[Ready | MeterlakeError]:
    """Return the result of each partition of a meter, in order; publishes nothing.

    The result is SumTooLargeError if a sum is too large, and BrokenLakeError if rows break a rule of their table; the
    other partitions are not affected.
    """
    computed = [_computed_or_error(due) for due in batch]
    tables = {
        due.partition.date: each.tables
        for due, each in zip(batch, computed, strict=True)
        if isinstance(each, PartitionResult)
    }
    valid = valid_tables(batch[0].partition.meter, tables)
    results: list[Ready | MeterlakeError] = []
    for due, each in zip(batch, computed, strict=True):
        if isinstance(each, PartitionResult):
            checked = valid[due.partition.date]
            results.append(
                checked if isinstance(checked, MeterlakeError) else Ready(each.record, checked, each.rows)
            )
        else:
            results.append(each)
    return results


def _computed_or_error(due: Due) -> PartitionResult | SumTooLargeError:
    try:
        return compute_partition(due.partition, due.lost, due.rejected)
    except SumTooLargeError as error:
        return error
