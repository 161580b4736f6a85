"""Compute `quantity` of sealed dates anew where the meter's rule for it has changed, from the other measures of their rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec
import polars as pl

from jobs.aggregate.tables import with_quantities
from jobs.run_report import PartitionReport, RunReport
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

ACTION, REASON = "recomputed", "another rule of quantity"
Tables = Mapping[str, pl.DataFrame]


def recompute_sealed(storage: Storage, view: MeterSnapshot, report: RunReport) -> None:
    """Publish the tables of every sealed date of a meter whose `quantity` is by another rule than today's.

    Only rows that are those that were published are taken, by their checksums; a date that has others is reported and
    left as it is. What else is recorded of a date stays, and the checksums of before are added. `view.state` has the
    new records then, and is not saved: until it is, the tables of either form count as the record's, and the next run
    does this once more, whatever the definition is by then.
    """
    rule, partitions, is_begun = view.meter.quantity_rule, view.state.partitions, False
    due = {date: partitions[date] for date in sorted(view.state.sealed)}
    due = {date: record for date, record in due.items() if (record.quantity_rule or "") != rule}
    for date, record in due.items():
        try:
            tables = _recomputed(storage, view.meter, date, record)
        except (BrokenLakeError, SumTooLargeError) as error:
            report.add_error(error)
            continue
        # Without a state the footers of the tables tell that not all are by one rule.
        if view.stored and not is_begun:
            unfinished = {
                each: msgspec.structs.replace(due[each], quantity_rule=INTERRUPTED_RULE) for each in due
            }
            view.save_with(storage, unfinished)
            is_begun = True
        partitions[date] = _publish(storage, view.meter, date, tables, record, report)


def _recomputed(storage: Storage, meter: Meter, date: dt.date, record: PartitionState) -> ValidTables:
    """Return the tables by the meter's rule.

    Raises BrokenLakeError if those that are stored are not the record's, or if rows break a rule of their table.
    """
    files = published_files(storage, meter.name, date)
    stored = {
        table: _proved_rows(storage, files.get(table), (meter, date, table), record)
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
    done = PartitionReport(meter=meter.name, date=date, action=ACTION, reason=REASON, events=record.events)
    done.rows_written = sum(rows.height for rows in tables.values())
    done.bytes_written = publish_partition(storage, meter.name, date, tables, record)
    report.add_partition(done)
    return record


def _proved_rows(
    storage: Storage, file: StoredFile | None, of: tuple[Meter, dt.date, str], record: PartitionState
) -> pl.DataFrame:
    """Return the rows of a table as they lie in the lake. Raises BrokenLakeError if they are not those of the record."""
    meter, date, table = of
    expected = record.checksums.get(table, "none")
    found = "no file"
    if file:
        # An interrupted run may have published rows of which the state does not know yet: the file says so itself.
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
        "the quantity of a sealed date can't be computed anew",
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
