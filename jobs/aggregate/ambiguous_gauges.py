"""Count the ambiguous subjects of dates that an earlier version of the program aggregated."""

from __future__ import annotations

import msgspec
import polars as pl

from lake import paths
from lake.aggregates.ambiguity import ambiguous_subjects, may_be_ambiguous
from lake.partition_files import part_files
from lake.snapshot import MeterSnapshot
from lake.storage import Storage
from lake.storage.errors import is_storage_failure


def count_ambiguous(storage: Storage, snapshot: MeterSnapshot) -> None:
    """Add the number to the records that lack it; reads only one column of their tables.

    A table that can't be read is skipped: the error comes from the code that needs its rows.
    """
    if not may_be_ambiguous(snapshot.meter):
        return
    records = snapshot.state.partitions
    lacking = {
        date for date, each in records.items() if each.events and each.ambiguous_subjects is msgspec.UNSET
    }
    if not lacking:
        return
    files = part_files(storage, paths.aggregates("usage", snapshot.meter.name))
    for date in sorted(lacking & files.keys()):
        try:
            number = ambiguous_subjects(storage.scan([files[date]]))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            if is_storage_failure(error):
                raise
            continue
        records[date] = msgspec.structs.replace(records[date], ambiguous_subjects=number)
