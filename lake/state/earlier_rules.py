"""Open partitions that earlier reading rules have counted otherwise than today's, found without reading their events."""

from __future__ import annotations

import datetime as dt

import polars as pl

from lake import paths
from lake.partition_files import part_files
from lake.state.changes import RULES_CHANGED, Change
from lake.state.records import READING_RULES, MeterState
from lake.storage import Storage, StoredFile
from lake.storage.errors import is_storage_failure
from schemas.columns import QUANTITY
from schemas.event_rules import QUANTITY_LIMIT

TABLE = "usage_by_subject"


def counted_by_earlier_rules(storage: Storage, meter: str, state: MeterState) -> dict[dt.date, Change]:
    """Return a change for each open partition of earlier rules that counts quantities which are refused today.

    Refused files and rows of such partitions are in their records, and in `lake.state.changes.stale_partitions`; what was counted
    is told by the extremes in one table. Looks at none once the state says that it was looked for.
    """
    if state.rules == READING_RULES:
        return {}
    earlier = {
        date
        for date, record in state.partitions.items()
        if record.rules < READING_RULES and record.events and not record.sealed_at
    }
    files = part_files(storage, paths.aggregates(TABLE, meter)) if earlier else {}
    found = {date: file for date, file in files.items() if date in earlier}
    storage.prefetch(list(found.values()))
    return {date: Change(RULES_CHANGED) for date, file in found.items() if _beyond_limit(storage, file)}


def _beyond_limit(storage: Storage, file: StoredFile) -> bool:
    """Return whether a table has a quantity beyond the limit, or can't be read, which ends in computing it anew."""
    limit = pl.lit(QUANTITY_LIMIT, QUANTITY)
    beyond = (pl.col("quantity_max") >= limit) | (pl.col("quantity_min") <= -limit)
    try:
        return bool(storage.scan([file]).select(beyond.any()).collect().item())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if is_storage_failure(error):
            raise
        return True
