"""Computing partitions, small ones some at a time, so that their tables are held to the models of these together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import polars as pl

from jobs.aggregate.compute import PartitionResult, compute_partition
from lake.aggregates.valid_tables import ValidTables, valid_tables
from lake.events.partition import Partition
from lake.state.records import PartitionState
from schemas.errors import MeterlakeError, SumTooLargeError

# Of partitions up to so large, the next are computed while some are published; larger ones one after the other.
SMALL_BYTES = 64 * 2**20
# A look at their tables takes the more of the time of small partitions, the fewer are looked at together.
MAX_DATES = 16


class Due(NamedTuple):
    """A partition to be computed, the duplicates in it that lost, its files that can't be read, and why it is due."""

    partition: Partition
    lost: pl.DataFrame
    rejected: dict[str, dict[str, str]]
    why: str

    @property
    def size_bytes(self) -> int:
        """The bytes of its files."""
        return sum(file.size_bytes for file in self.partition.files)


class Ready(NamedTuple):
    """What of a partition is to be published: as `PartitionResult`, with tables that have been held to their models."""

    record: PartitionState
    tables: ValidTables
    rows: int


def batches(dues: Iterable[Due]) -> Iterator[list[Due]]:
    """Yield the partitions in order: together those that follow each other and are small."""
    batch: list[Due] = []
    for due in dues:
        if batch and (len(batch) == MAX_DATES or not is_small([*batch, due])):
            yield batch
            batch = []
        batch.append(due)
    if batch:
        yield batch


def is_small(batch: Sequence[Due]) -> bool:
    """Return whether another batch may be computed beside this one."""
    return sum(due.size_bytes for due in batch) <= SMALL_BYTES


def compute_batch(batch: Sequence[Due]) -> list[Ready | MeterlakeError]:
    """Return in order what each partition of a meter comes to; nothing is published.

    That is SumTooLargeError for one of a sum that is too large, and BrokenLakeError for one whose rows break a rule of
    their table; the others go on.
    """
    computed = [_computed_or_error(due) for due in batch]
    tables = {
        due.partition.date: each.tables
        for due, each in zip(batch, computed, strict=True)
        if isinstance(each, PartitionResult)
    }
    valid = valid_tables(batch[0].partition.meter, tables)
    found: list[Ready | MeterlakeError] = []
    for due, each in zip(batch, computed, strict=True):
        if isinstance(each, PartitionResult):
            checked = valid[due.partition.date]
            found.append(
                checked if isinstance(checked, MeterlakeError) else Ready(each.record, checked, each.rows)
            )
        else:
            found.append(each)
    return found


def _computed_or_error(due: Due) -> PartitionResult | SumTooLargeError:
    try:
        return compute_partition(due.partition, due.lost, due.rejected)
    except SumTooLargeError as error:
        return error
