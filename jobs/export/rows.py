"""The rows of the aggregates that an export bills: those of one finished aggregation, or an error."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import polars as pl

from jobs.export.month import MAX_DATES, MonthExport, out_of_date
from lake import paths
from lake.partition_files import part_files
from lake.readers import aggregate_rows
from lake.recent import TABLE
from lake.state.rebuild import read_record
from lake.state.records import PartitionState
from schemas.errors import BrokenLakeError


def billed_rows(export: MonthExport) -> pl.LazyFrame:
    """The rows to be billed, of all dates that the export is made of.

    Raises BrokenLakeError where the rows are not those of the last aggregation, which was interrupted then.
    """
    records, seen = export.records, export.seen
    recent = seen.recent.of(records) if seen and export.table == TABLE else None
    if seen and recent is not None:
        seen.is_small = True
        return recent.lazy()
    check_files(export, records)
    return aggregate_rows(export.storage, export.meter, export.table, (export.first_date, export.period.end))


def check_files(export: MonthExport, records: Mapping[dt.date, PartitionState]) -> None:
    """Whether the very files that are exported name the inputs that their records tell of."""
    first, end = export.first_date, export.period.end
    expected = {date: record.fingerprint for date, record in records.items()}
    found = {}
    listed = part_files(export.storage, paths.aggregates(export.table, export.meter.name))
    files = {date: file for date, file in listed.items() if first <= date < end}
    # Their footers are read here, and then their rows.
    export.storage.prefetch(list(files.values()))
    for date, file in files.items():
        record = read_record(export.storage, file)
        # A sealed date without events has a file too, of no rows.
        if record is None or record.events:
            found[date] = record.fingerprint if record else ""
    if found != expected:
        wrong = sorted(
            date for date in found.keys() | expected.keys() if found.get(date) != expected.get(date)
        )
        raise BrokenLakeError(
            "the aggregates are not those of one finished aggregation",
            where=f"meter {export.meter.name!r}",
            found=f"differences on {len(wrong)} dates: {', '.join(map(str, wrong[:MAX_DATES]))}",
            hint=_how_to_mend(export, wrong, records),
        )


def _how_to_mend(
    export: MonthExport, wrong: Sequence[dt.date], records: Mapping[dt.date, PartitionState]
) -> str:
    """Return what makes these dates' tables those of their records again."""
    if any(date in records and records[date].sealed_at for date in wrong):
        return (
            "restore the files of sealed dates from a backup; for others run: meterlake aggregate --rebuild"
        )
    known = {date.isoformat() for date in wrong} <= out_of_date(export).keys()
    return "run: meterlake aggregate" if known else "run: meterlake aggregate --rebuild"
