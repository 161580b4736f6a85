"""Finds open partitions that earlier reading rules counted differently than today's, without reading events."""

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
    """Return a change for each open partition of earlier rules that counts quantities which are rejected today.

    Rejected files and rows are in the records, see `lake.state.changes.stale_partitions`; counted quantities are
    checked by the minimum and maximum in one table. Returns nothing once the state has today's rules.
    """
    if state.rules == READING_RULES:
        return {}
    earlier = {
        date
        for date, record in state.partitions.items()
        if record.rules < READING_RULES and record.events and not record.sealed_at
    }
    files = part_files(storage, paths.aggregates(TABLE, meter)) if earlier else {}
    tables = {date: file for date, file in files.items() if date in earlier}
    storage.prefetch(list(tables.values()))
    return {date: Change(RULES_CHANGED) for date, file in tables.items() if _beyond_limit(storage, file)}


def _beyond_limit(storage: Storage, file: StoredFile) -> bool:
    """Return whether a table has a quantity beyond the limit, or can't be read, so that it is computed again."""
    limit = pl.lit(QUANTITY_LIMIT, QUANTITY)
    beyond = (pl.col("quantity_max") >= limit) | (pl.col("quantity_min") <= -limit)
    try:
        return bool(storage.scan([file]).select(beyond.any()).collect().item())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if is_storage_failure(error):
            raise
        return True
