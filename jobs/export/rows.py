"""Read the rows of the aggregates that an export bills, and check that they are those of one finished aggregation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import polars as pl

from jobs.export.month import MAX_DATES, MonthExport
from lake import paths
from lake.checksums import rows_checksum
from lake.partition_files import part_files
from lake.readers import dated_rows
from lake.state.rebuild import read_record
from lake.state.records import PartitionState, is_sealed_alike
from lake.storage import StoredFile
from lake.storage.errors import is_storage_failure
from schemas.errors import BrokenLakeError

# All rows of tables up to this size are compared with the checksums of the records; of more it would take too long.
CHECKED_BYTES = 32 * 2**20


def billed_rows(export: MonthExport) -> pl.LazyFrame:
    """Return the rows of all dates that the export is made of: `date`, then the table's columns.

    Raises BrokenLakeError if the rows are not those of the last aggregation, for instance since it was interrupted.
    """
    first, end = export.first_date, export.period.end
    listed = part_files(export.storage, paths.aggregates(export.table, export.meter.name))
    files = {date: file for date, file in listed.items() if first <= date < end}
    # Footers are read first, then rows.
    export.storage.prefetch(list(files.values()))
    stored = {date: read_record(export.storage, file) for date, file in files.items()}
    _check_inputs(export, stored)
    if sum(file.size_bytes for file in files.values()) <= CHECKED_BYTES:
        for date, record in export.records.items():
            _check_rows(export, files[date], record, stored[date])
    return dated_rows(export.storage, files, export.meter, export.table)[0]


def _check_inputs(export: MonthExport, stored: Mapping[dt.date, PartitionState | None]) -> None:
    """Raise BrokenLakeError unless the exported files name the inputs of their records."""
    expected = {date: record.fingerprint for date, record in export.records.items()}
    # A sealed date without events has a file without rows.
    found = {
        date: record.fingerprint if record else ""
        for date, record in stored.items()
        if record is None or record.events
    }
    wrong = sorted(date for date in found.keys() | expected.keys() if found.get(date) != expected.get(date))
    if wrong:
        raise BrokenLakeError(
            "the aggregates are not those of one finished aggregation",
            where=paths.aggregate(export.table, export.meter.name, wrong[0]),
            found=f"differences on {len(wrong)} dates: {', '.join(map(str, wrong[:MAX_DATES]))}",
            hint=_how_to_repair(export, wrong),
        )


def _check_rows(
    export: MonthExport, file: StoredFile, record: PartitionState, stored: PartitionState | None
) -> None:
    """Raise BrokenLakeError unless the rows of a date have the checksum of its record, if it has one."""
    expected = record.checksums.get(export.table)
    if not expected:
        return
    # An interrupted run may have published rows that are not in the state yet.
    own = stored.checksums.get(export.table) if stored and is_sealed_alike(stored, record) else None
    try:
        found = rows_checksum(export.storage.scan([file]).collect())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if is_storage_failure(error):
            raise
        found = str(error).splitlines()[0]
    if found not in (expected, own):
        raise BrokenLakeError(
            "the aggregates are not those that were published",
            where=file.path,
            expected=f"rows of checksum {expected}",
            found=found,
            hint="restore the file from a backup"
            if record.sealed_at
            else "run: meterlake aggregate --rebuild",
        )


def _how_to_repair(export: MonthExport, wrong: Sequence[dt.date]) -> str:
    """Return the hint for dates whose tables are not those of their records."""
    records = export.records
    if any(date in records and records[date].sealed_at for date in wrong):
        return (
            "restore the files of sealed dates from a backup; for others run: meterlake aggregate --rebuild"
        )
    known = {date.isoformat() for date in wrong} <= export.out_of_date.keys()
    return "run: meterlake aggregate" if known else "run: meterlake aggregate --rebuild"
