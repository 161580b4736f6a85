"""Compute one partition: its rows in the three tables and its record, from its events and the losers among them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import polars as pl

from jobs.aggregate.tables import partial_usage, usage_tables
from jobs.run_report import now
from lake.aggregates.ambiguity import ambiguous_subjects, may_be_ambiguous
from lake.aggregates.measures import partials_for
from lake.aggregates.publish import table_checksums
from lake.dedupe.winners import CONFLICT
from lake.events.partition import Partition, fingerprint
from lake.state.lateness import arrivals, lateness
from lake.state.records import READING_RULES, PartitionState, RejectedFile
from schemas.columns import ROW
from schemas.event_rules import keeps, measured_rules, partition_rule, subject_rules

# About 60 bytes each. More rows are read again for each use.
MAX_ROWS_IN_MEMORY = 2**21


class PartitionResult(NamedTuple):
    """A partition's record (without counts of invalid rows), its tables by name, and the number of its raw rows.

    There are no tables if no event wins.
    """

    record: PartitionState
    tables: dict[str, pl.DataFrame]
    rows: int


def compute_partition(
    partition: Partition, lost: pl.DataFrame, rejected: dict[str, RejectedFile]
) -> PartitionResult:
    """Return the tables and the record of a partition, from its winning events; publishes nothing.

    `lost` are the losers in it, with the column `row`, `rejected` its files that can't be read. Raises
    SumTooLargeError naming meter, date and keys of a sum that is too large.
    """
    meter, rows = partition.meter, partition.measured_rows()
    count = rows.select(pl.len()).collect(engine="streaming").item()
    if count <= MAX_ROWS_IN_MEMORY:
        rows = rows.collect(engine="streaming").lazy()
    partials = partials_for(rows, count)
    winners = _winners(partition, rows, lost)
    usage, arrived = pl.collect_all(
        [partial_usage(winners, meter, partials), arrivals(winners)], engine="streaming"
    )
    where = f"meter {meter.name!r}, {partition.date}"
    tables = usage_tables(usage, meter, partials, where) if usage.height else {}
    losers = losers_fingerprint(lost)
    record = PartitionState(
        meter_version=meter.version,
        files=partition.file_identities,
        converted=sorted(partition.converted & partition.file_identities.keys()),
        rejected=rejected,
        losers=losers,
        rules=READING_RULES,
        quantity_rule=meter.quantity_rule or msgspec.UNSET,
        fingerprint=fingerprint(partition.file_identities, meter.version, losers, f"rules {READING_RULES}"),
        events=int(str(usage["events"].sum())),
        duplicates=lost.height,
        conflicts=lost.filter(CONFLICT).height,
        late=lateness(arrived),
        checksums=table_checksums(tables),
        ambiguous_subjects=ambiguous_subjects(tables["usage"].lazy())
        if tables and may_be_ambiguous(meter)
        else msgspec.UNSET,
        aggregated_at=now(),
    )
    return PartitionResult(record, tables, count)


def _winners(partition: Partition, rows: pl.LazyFrame, lost: pl.DataFrame) -> pl.LazyFrame:
    """Return the winning ones of `Partition.measured_rows`: valid rows that are not in `lost`."""
    rules = [*measured_rules(partition.meter), partition_rule(partition.date)]
    winners = rows.filter(keeps(rules) & ~pl.col(ROW).is_in(lost[ROW].implode()))
    # Each distinct subject is checked once; every row is trimmed and checked only if one of them breaks a rule.
    text = pl.col("subject").cast(pl.String)
    subjects = rows.select(pl.col("subject").unique()).select(text)
    if subjects.select(keeps(subject_rules()).all()).collect(engine="streaming").item():
        return winners
    return winners.with_columns(text.str.strip_chars()).filter(keeps(subject_rules()))


def losers_fingerprint(lost: pl.DataFrame) -> str:
    """Return a fingerprint of the rows of a partition that lost to a duplicate, as sixteen hex digits."""
    return fingerprint({}, lost[ROW].cast(pl.String).str.join(",").item())
