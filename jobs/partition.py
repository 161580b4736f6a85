"""What one partition comes to: its rows in the three tables and its record, from its events and the copies that lost."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from jobs.report import now
from jobs.tables import measured, usage_tables
from lake.dedup import CONFLICT
from lake.events import ROW, Partition, fingerprint
from lake.lateness import arrivals, lateness
from lake.packing import packing
from lake.publish import table_checksums
from lake.state import PartitionState

EVENT_COLUMNS = ("subject", "quantity", "timestamp", "received_at")


class Computed(NamedTuple):
    """A partition's record without the counts of invalid rows, its tables, none where no event is left, and its rows."""

    record: PartitionState
    tables: dict[str, pl.DataFrame]
    rows: int


def compute(partition: Partition, lost: pl.DataFrame, rejected: dict[str, dict[str, str]]) -> Computed:
    """Read a partition once and aggregate the events that count; nothing is published."""
    meter = partition.meter
    counting = counting_events(partition, lost)
    packed = packing(partition.rows())
    usage, arrived, rows = pl.collect_all(
        [
            measured(counting, meter, packed),
            arrivals(counting),
            partition.rows().select(pl.len()),
        ],
        engine="streaming",
    )
    tables = usage_tables(usage, meter, packed) if usage.height else {}
    losers = losers_fingerprint(lost)
    record = PartitionState(
        meter_version=meter.version,
        files=partition.identities,
        rejected=rejected,
        losers=losers,
        fingerprint=fingerprint(partition.identities, meter.version, losers),
        events=int(str(usage["events"].sum())),
        duplicates=lost.height,
        conflicts=lost.filter(CONFLICT).height,
        late=lateness(arrived),
        checksums=table_checksums(tables),
        aggregated_at=now(),
    )
    return Computed(record, tables, rows.item())


def counting_events(partition: Partition, lost: pl.DataFrame) -> pl.LazyFrame:
    """What is measured of the events that count: the valid rows but those of `lost`."""
    counting = partition.valid().filter(~pl.col(ROW).is_in(lost[ROW].implode()))
    return counting.select(*EVENT_COLUMNS, *partition.meter.dimension_names)


def losers_fingerprint(lost: pl.DataFrame) -> str:
    """Which rows of a partition lost to a copy, as sixteen hex digits."""
    return fingerprint({}, lost[ROW].cast(pl.String).str.join(",").item())
