"""Compute `quantity` of sealed dates again, from the other measures of their rows, if the meter's rule for it changed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec
import polars as pl

from jobs.aggregate.tables import with_quantities
from jobs.run_report import PartitionAction, PartitionReport, RunReport
from lake import paths
from lake.aggregates.measures import billed
from lake.aggregates.publish import publish_partition, published_files, table_checksums
from lake.aggregates.sums import check_sums
from lake.aggregates.valid_tables import ValidTables, valid_earlier_tables
from lake.checksums import rows_checksum
from lake.snapshot import MeterSnapshot
from lake.state.rebuild import read_record
from lake.state.records import INTERRUPTED_RULE, PUBLISH_ORDER, PartitionState, is_sealed_alike
from lake.storage import Storage, StoredFile
from lake.storage.errors import is_storage_failure
from schemas.errors import BrokenLakeError, SumTooLargeError
from schemas.meter import Meter

REASON = "another rule of quantity"
Tables = Mapping[str, pl.DataFrame]


def recompute_sealed(storage: Storage, snapshot: MeterSnapshot, report: RunReport) -> None:
    """Publish the tables of every sealed date of a meter whose `quantity` follows another rule than today's.

    Uses only rows whose checksums are those of the record; a date with other rows is reported and left alone. The new
    record has the checksums before and after, and is otherwise the same. The snapshot's state gets the new records, and
    is not saved here: until it is, the tables of either form match it, and the next run does this again, even if the
    definition has changed meanwhile.
    """
    rule, partitions, is_begun = snapshot.meter.quantity_rule, snapshot.state.partitions, False
    due = {date: partitions[date] for date in sorted(snapshot.state.sealed)}
    due = {date: record for date, record in due.items() if (record.quantity_rule or "") != rule}
    for date, record in due.items():
        try:
            tables = _recomputed(storage, snapshot.meter, date, record)
        except (BrokenLakeError, SumTooLargeError) as error:
            report.add_error(error)
            continue
        # Without a state file, the footers of the tables show that they follow different rules.
        if snapshot.stored and not is_begun:
            unfinished = {
                each: msgspec.structs.replace(due[each], quantity_rule=INTERRUPTED_RULE) for each in due
            }
            snapshot.save_with(storage, unfinished)
            is_begun = True
        partitions[date] = _publish(storage, snapshot.meter, date, tables, record, report)


def _recomputed(storage: Storage, meter: Meter, date: dt.date, record: PartitionState) -> ValidTables:
    """Return the tables by the meter's rule.

    Raises BrokenLakeError if the stored tables are not those of the record, or if rows break a rule of their table.
    """
    files = published_files(storage, meter.name, date)
    stored = {
        table: _checked_rows(storage, files.get(table), (meter, date, table), record)
        for table in PUBLISH_ORDER
    }
    tables = _by_rule(stored, meter)
    for rows in tables.values():
        check_sums(rows, f"meter {meter.name!r}, {date}", rows.columns[:1], pl.col("quantity").is_null())
    return valid_earlier_tables(meter, date, tables)


def _publish(  # noqa: PLR0913, PLR0917 - what is published, and where
    storage: Storage,
    meter: Meter,
    date: dt.date,
    tables: ValidTables,
    record: PartitionState,
    report: RunReport,
) -> PartitionState:
    record = msgspec.structs.replace(
        record,
        quantity_rule=meter.quantity_rule or msgspec.UNSET,
        checksums=record.checksums | table_checksums(tables),
        earlier_checksums=record.checksums,
        ambiguous_subjects=msgspec.UNSET,
    )
    done = PartitionReport(
        meter=meter.name, date=date, action=PartitionAction.RECOMPUTED, reason=REASON, events=record.events
    )
    done.rows_written = sum(rows.height for rows in tables.values())
    done.bytes_written = publish_partition(storage, meter.name, date, tables, record)
    report.add_partition(done)
    return record


def _checked_rows(
    storage: Storage, file: StoredFile | None, of: tuple[Meter, dt.date, str], record: PartitionState
) -> pl.DataFrame:
    """Return the stored rows of a table. Raises BrokenLakeError if they are not those of the record."""
    meter, date, table = of
    expected = record.checksums.get(table, "none")
    found = "no file"
    if file:
        # An interrupted run may have published rows that are not in the state yet: they match the file's own record.
        stored = read_record(storage, file)
        own = stored.checksums.get(table) if stored and is_sealed_alike(stored, record) else None
        try:
            rows = storage.scan([file]).collect()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            if is_storage_failure(error):
                raise
            found = str(error).splitlines()[0]
        else:
            found = rows_checksum(rows)
            if found in (expected, own):
                return rows
    raise BrokenLakeError(
        "the quantity of a sealed date can't be computed again",
        where=paths.aggregate(table, meter.name, date),
        expected=f"rows of checksum {expected}",
        found=found,
        hint="restore the file from a backup: its events are gone",
    )


def _by_rule(tables: Tables, meter: Meter) -> dict[str, pl.DataFrame]:
    """Return the rows with `quantity` by the meter's rule; columns and order stay."""
    if not meter.needs_usage:
        return {table: rows.with_columns(billed(meter)) for table, rows in tables.items()}
    usage = tables["usage"].with_columns(billed(meter))
    # Dimensions that were declared after the sealing.
    added = {name: dtype for name, dtype in meter.dimension_dtypes.items() if name not in usage.columns}
    whole = usage.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in added.items())
    subjects, dimensions = with_quantities(
        whole, tables["usage_by_subject"], tables["usage_by_dimension"], meter
    )
    return {"usage_by_dimension": dimensions, "usage_by_subject": subjects, "usage": usage}
