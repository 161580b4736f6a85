"""Move the rows of files that appeared in sealed partitions to quarantine, so that final numbers stay final."""

from __future__ import annotations

import datetime as dt

import polars as pl

from jobs.run_report import LOG, PartitionAction, PartitionReport, RunReport, now
from lake import paths
from lake.events.partition import Partition, check_file
from lake.events.quarantine import quarantine_rows
from lake.state.changes import LATE_IN_SEALED, Change, file_name
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import (
    FilesChangedError,
    changed_files,
    files_changed_error,
    watch_for_changes,
)
from schemas.errors import RefusedError
from schemas.meter import Meter


def quarantine_late(
    storage: Storage, meter: Meter, changed: dict[dt.date, Change], report: RunReport
) -> None:
    """Move all rows of late files to quarantine (`sealed_partition`), and remove their dates from `changed`.

    A file that can't be read is reported, and stays.
    """
    late = {date: change for date, change in changed.items() if change.why == LATE_IN_SEALED}
    for date, change in late.items():
        del changed[date]
        for file in change.added:
            if file.linked:
                report.add_error(_behind_link(file))
                continue
            try:
                with watch_for_changes(storage, meter.name, [file]):
                    _quarantine_one(storage, meter, date, file, report)
            except FilesChangedError:
                # The next run handles the changed file.
                LOG.info("skipped, since it has changed since it was listed: %s", file.path)


def _quarantine_one(
    storage: Storage, meter: Meter, date: dt.date, file: StoredFile, report: RunReport
) -> None:
    check = check_file(storage, meter, file)
    if check.error:
        if changed_files(storage, paths.events(meter.name, date), [file]):
            raise files_changed_error(file)
        report.add_error(check.error)
        return
    converted = frozenset({file_name(file)} if check.converted else ())
    partition = Partition(storage, meter, date, (file,), converted)
    detail = pl.lit(f"the aggregates of {date} are final: {file.path}")
    rows = partition.rows_as_written().with_columns(reason=pl.lit("sealed_partition"), detail=detail)
    report.quarantine(quarantine_rows(partition, file, rows, now()))
    storage.delete(file.path)
    report.add_partition(
        PartitionReport(
            meter=meter.name, date=date, action=PartitionAction.QUARANTINED, reason=LATE_IN_SEALED
        )
    )


def _behind_link(file: StoredFile) -> RefusedError:
    return RefusedError(
        "a late file of a sealed partition can't be moved to quarantine",
        where=file.path,
        expected="a file in the lake itself",
        found="a link, or a file behind one",
        hint="remove the link; its events are not counted",
    )
