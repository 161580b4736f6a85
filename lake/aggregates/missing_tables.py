"""Finds missing files of aggregate tables, by the records of their dates, so that no answer silently lacks rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Container, Iterator, Mapping

from lake import paths
from lake.state.records import INTERRUPTED_VERSION, PartitionState
from schemas.errors import BrokenLakeError

# How many dates an error names.
_MAX_NAMED = 5
REBUILD = "meterlake aggregate --rebuild"


def missing_table(
    meter: str, table: str, records: Mapping[dt.date, PartitionState], dates_with_file: Container[dt.date]
) -> BrokenLakeError | None:
    """Return an error if a date whose record counts events has no file in a table; `dates_with_file` are those that have.

    A date whose aggregation was interrupted is stale, and may have none.
    """
    missing = sorted(
        date
        for date, record in records.items()
        if record.events and record.meter_version != INTERRUPTED_VERSION and date not in dates_with_file
    )
    if not missing:
        return None
    more = len(missing) - _MAX_NAMED
    named = ", ".join(map(str, missing[:_MAX_NAMED])) + (f" and {more} others" if more > 0 else "")
    return BrokenLakeError(
        f"rows of the table {table} are missing",
        where=paths.aggregate(table, meter, missing[0]),
        expected="a file for each date with events",
        found=f"none for {named}",
        hint=_repair_hint(meter, [records[date] for date in missing]),
    )


def missing_tables(
    meter: str, records: Mapping[dt.date, PartitionState], published: Mapping[dt.date, Container[str]]
) -> Iterator[BrokenLakeError]:
    """Yield an error for each table in which such dates have no file; `published` are the tables of each date."""
    for table in paths.TABLES:
        dates_with_file = {date for date, files in published.items() if table in files}
        if error := missing_table(meter, table, records, dates_with_file):
            yield error


def _repair_hint(meter: str, records: list[PartitionState]) -> str:
    rebuild = f"{REBUILD} --meter {meter!r}"
    if not any(record.sealed_at for record in records):
        return f"run: {rebuild}"
    return f"restore the files of sealed dates from a backup; for others run: {rebuild}"
