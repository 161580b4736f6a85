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
    METADATA_KEY,
    NO_RULE,
    PLACE_KEY,
    PUBLISH_ORDER,
    REJECTED_PARTS,
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
    """Return the records that are `known`, and of all other partitions what the footers of their tables have.

    A partition is done only if all of its tables carry the record of the same inputs. One that is not gets a record
    that no files match, so that it is computed again. Sealed is what all readable footers call so, unless the files
    that they name are all there unchanged: then nothing was dropped, and its sealing may have been interrupted.
    `tables` are the `published_tables`, if they were listed before.
    Raises BrokenLakeError for a partition that is not done and can't be computed again, since raw events are gone.
    """
    state = MeterState(partitions=dict(known or {}))
    listed = published_tables(storage, meter) if tables is None else tables
    published = {date: files for date, files in listed.items() if date not in state.partitions}
    storage.prefetch([file for files in published.values() for file in files.values()])
    events, _ = by_date(storage.list(paths.events(meter)) if published else [])
    for date, files in sorted(published.items()):
        records = {table: read_record(storage, file) for table, file in files.items()}
        there = {file.path.rsplit("/", 1)[-1]: file.identity for file in events.get(date, ())}
        record = _finished(records, there)
        if not record and _is_lost(records, there):
            raise BrokenLakeError(
                "the tables of this partition are not of one finished aggregation, and its raw events are gone",
                where=paths.events(meter, date),
                expected="the record of the same inputs in all tables",
                found=", ".join(f"{table}: {_described(records.get(table))}" for table in paths.TABLES),
                hint="restore the files from a backup, or remove the partition's aggregate files to give them up",
            )
        if not record:
            names = {name for each in records.values() if each for name in each.files}
            record = unfinished_record(names | there.keys())
        state.partitions[date] = record
    return state


def read_record(storage: Storage, file: StoredFile) -> PartitionState | None:
    """Return the record in the footer of an aggregate file; None if it has none, is of another place, or can't be read."""
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
        record = decode(metadata.get(METADATA_KEY, ""), PartitionState, "not a record", where="")
    except BrokenLakeError:
        return None
    return None if lacks_parts(record) else record


def lacks_parts(record: PartitionState) -> bool:
    """Return whether a rejected file lacks what is recorded of every such file."""
    return bool(record.rejected) and not all(
        said.keys() >= REJECTED_PARTS for said in record.rejected.values()
    )


def published_tables(storage: Storage, meter: str) -> dict[dt.date, dict[str, StoredFile]]:
    """Return by date the file in each aggregate table that has one. Lists the three tables."""
    found: dict[dt.date, dict[str, StoredFile]] = {}
    for table in paths.TABLES:
        for date, file in part_files(storage, paths.aggregates(table, meter)).items():
            found.setdefault(date, {})[table] = file
    return found


def _finished(
    records: Mapping[str, PartitionState | None], there: Mapping[str, str]
) -> PartitionState | None:
    """Return the record of a partition that its tables call done; None for any other.

    `records` are by table, of those that have a file; `there` the identities of the raw files that are there, by name.
    """
    found = [record for table in PUBLISH_ORDER if (record := records.get(table))]
    if not found:
        return None
    if any(record != found[-1] for record in found) and all(
        is_sealed_alike(record, found[-1]) for record in found
    ):
        # Computing `quantity` anew was interrupted: it is due, whatever the rule is now.
        return msgspec.structs.replace(found[-1], quantity_rule=NO_RULE)
    if any(before_sealing(record) != before_sealing(found[0]) for record in found):
        return None
    sealed = [record for record in found if record.sealed_at]
    if len(sealed) == len(found) and not _all_there(found[0], there):
        return found[0]
    # A date without events has tables only while it is sealed; and one that is sealed has that in all of them.
    whole = len(found) == len(paths.TABLES) and found[0].events > 0 and (there or not sealed)
    return (
        msgspec.structs.replace(before_sealing(found[0]), aggregated_at=found[0].aggregated_at)
        if whole
        else None
    )


def _is_lost(records: Mapping[str, PartitionState | None], there: Mapping[str, str]) -> bool:
    """Return whether a partition that is not done can't be computed again either, since raw events are gone.

    Without any, it may still be what an interrupted run left of an open partition: what comes first in the order of
    publishing. That is out of date only.
    """
    found = [record for record in records.values() if record]
    if any(record.sealed_at and not _all_there(record, there) for record in found):
        return True
    left = tuple(table for table in PUBLISH_ORDER if table in records)
    interrupted = len(found) == len(records) and left == PUBLISH_ORDER[: len(left)]
    return not there and not interrupted


def _all_there(record: PartitionState, there: Mapping[str, str]) -> bool:
    """Return whether the files of a record are all there unchanged; of no files there is nothing to say so."""
    return bool(record.files) and record.files.items() <= there.items()


def _described(record: PartitionState | None) -> str:
    if record is None:
        return "none that can be read"
    return f"inputs {record.fingerprint}{' (sealed)' if record.sealed_at else ''}"
