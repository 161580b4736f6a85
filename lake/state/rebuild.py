"""Rebuilding a meter's state from the records in the footers of its aggregate files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec
import polars as pl

from lake import paths
from lake.decoding import decode
from lake.partition_files import by_date, part_files
from lake.state.records import (
    INTERRUPTED_RULE,
    METADATA_KEY,
    PLACE_KEY,
    PUBLISH_ORDER,
    MeterState,
    PartitionState,
    before_sealing,
    is_sealed_alike,
    unfinished_record,
)
from lake.storage import Storage, StoredFile
from lake.storage.errors import is_storage_failure
from schemas.errors import BrokenLakeError


def rebuild_state(
    storage: Storage,
    meter: str,
    known: Mapping[dt.date, PartitionState] | None = None,
    tables: Mapping[dt.date, dict[str, StoredFile]] | None = None,
) -> MeterState:
    """Return a state with the `known` records, and for all other partitions those in the footers of their tables.

    A partition is complete only if all of its tables have the record of the same inputs. An incomplete one gets a
    record that no files match, so that it is computed again. A partition is sealed if all readable footers say so,
    unless all files that they name exist unchanged: then nothing was dropped, and its sealing was interrupted.
    `tables` are the `published_tables`, if they were listed before. Raises BrokenLakeError for a partition that is
    incomplete and can't be computed again, since raw events are gone.
    """
    state = MeterState(partitions=dict(known or {}))
    listed = published_tables(storage, meter) if tables is None else tables
    published = {date: files for date, files in listed.items() if date not in state.partitions}
    storage.prefetch([file for files in published.values() for file in files.values()])
    events, _ = by_date(storage.list(paths.events(meter)) if published else [])
    for date, files in sorted(published.items()):
        records = {table: read_record(storage, file) for table, file in files.items()}
        identities = {file.path.rsplit("/", 1)[-1]: file.identity for file in events.get(date, ())}
        record = _complete_record(records, identities)
        if not record and _is_lost(records, identities):
            raise BrokenLakeError(
                "the tables of this partition are from different aggregations, and its raw events are gone",
                where=paths.events(meter, date),
                expected="the record of the same inputs in all tables",
                found=", ".join(f"{table}: {_describe(records.get(table))}" for table in paths.TABLES),
                hint="restore the files from a backup, or remove the partition's aggregate files to give them up",
            )
        if not record:
            names = {name for each in records.values() if each for name in each.files}
            record = unfinished_record(names | identities.keys())
        state.partitions[date] = record
    return state


def read_record(storage: Storage, file: StoredFile) -> PartitionState | None:
    """Return the record in the footer of an aggregate file; None if it has none, was copied here, or can't be read."""
    try:
        metadata = storage.metadata(file)
    except BrokenLakeError:
        return None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if is_storage_failure(error):
            raise
        return None
    return decode_record(metadata) if metadata.get(PLACE_KEY, file.path) == file.path else None


def decode_record(metadata: dict[str, str]) -> PartitionState | None:
    """Return the record in an aggregate file's key-value metadata; None if there is none."""
    try:
        return decode(metadata.get(METADATA_KEY, ""), PartitionState, "not a record", where="")
    except BrokenLakeError:
        return None


def published_tables(storage: Storage, meter: str) -> dict[dt.date, dict[str, StoredFile]]:
    """Return the files of each date by aggregate table. Lists the three tables."""
    tables: dict[dt.date, dict[str, StoredFile]] = {}
    for table in paths.TABLES:
        for date, file in part_files(storage, paths.aggregates(table, meter)).items():
            tables.setdefault(date, {})[table] = file
    return tables


def _complete_record(
    records: Mapping[str, PartitionState | None], identities: Mapping[str, str]
) -> PartitionState | None:
    """Return the record of a partition whose tables are complete; None for any other.

    `records` are those of the tables that have a file; `identities` are those of the existing raw files, by name.
    """
    stored = [record for table in PUBLISH_ORDER if (record := records.get(table))]
    if not stored:
        return None
    if any(record != stored[-1] for record in stored) and all(
        is_sealed_alike(record, stored[-1]) for record in stored
    ):
        # A recomputation of `quantity` was interrupted, so it is still due, whatever the rule is now.
        return msgspec.structs.replace(stored[-1], quantity_rule=INTERRUPTED_RULE)
    if any(before_sealing(record) != before_sealing(stored[0]) for record in stored):
        return None
    sealed_records = [record for record in stored if record.sealed_at]
    if len(sealed_records) == len(stored) and not _are_unchanged(stored[0], identities):
        return stored[0]
    # A date without events has tables only while it is sealed, and a sealed date is sealed in all of them.
    is_complete = (
        len(stored) == len(paths.TABLES) and stored[0].events > 0 and (identities or not sealed_records)
    )
    return (
        msgspec.structs.replace(before_sealing(stored[0]), aggregated_at=stored[0].aggregated_at)
        if is_complete
        else None
    )


def _is_lost(records: Mapping[str, PartitionState | None], identities: Mapping[str, str]) -> bool:
    """Return whether an incomplete partition can't be computed again, since raw events are gone.

    Without raw files it may still be an open partition whose run was interrupted: then it has the first tables in the
    order of publishing, and is only stale.
    """
    readable = [record for record in records.values() if record]
    if any(record.sealed_at and not _are_unchanged(record, identities) for record in readable):
        return True
    tables = tuple(table for table in PUBLISH_ORDER if table in records)
    is_interrupted = len(readable) == len(records) and tables == PUBLISH_ORDER[: len(tables)]
    return not identities and not is_interrupted


def _are_unchanged(record: PartitionState, identities: Mapping[str, str]) -> bool:
    """Return whether all files of a record exist unchanged; False for a record without files."""
    return bool(record.files) and record.files.items() <= identities.items()


def _describe(record: PartitionState | None) -> str:
    if record is None:
        return "none that can be read"
    return f"inputs {record.fingerprint}{' (sealed)' if record.sealed_at else ''}"
