"""Keeping rejected rows: their reason and their original text, below the date on which they were rejected."""

from __future__ import annotations

import datetime as dt

import polars as pl

from lake import paths
from lake.checksums import write_stamped
from lake.events import ROW, Partition, event_columns, fingerprint
from lake.producer_files import GIVEN
from lake.storage import Storage, StoredFile
from schemas.tables import INSTANT, Quarantine, column_types


def quarantine_rows(
    partition: Partition, file: StoredFile, rows: pl.LazyFrame, now: dt.datetime
) -> dict[str, int]:
    """Keep rows of a producer's file that can't count, once; gives how many by reason.

    `rows` are those of `Partition.as_given`, with `reason` and `detail`. Asked again for the same file, nothing is added and an
    empty dict is given.
    """
    storage, meter = partition.storage, partition.meter.name
    name = f"producer-{fingerprint({file.path: file.identity})}.parquet"
    kept = [other.path for other in storage.list(paths.quarantine(meter)) if not other.unreadable]
    if any(place.file == name for place in map(paths.split_partition, kept) if place):
        return {}
    text = [
        pl.col(GIVEN).alias(name) if name == "quantity" else pl.col(name).cast(pl.String)
        for name in event_columns(partition.meter)
    ]
    rejected = rows.select(
        "reason",
        "detail",
        raw=pl.struct(text).struct.json_encode(),
        source=pl.lit(file.path),
        position=pl.col(ROW).cast(pl.Int64) + 1,
        landed_at=pl.lit(now, INSTANT),
    ).collect(engine="streaming")
    if rejected.is_empty():
        return {}
    publish_rejected(storage, paths.quarantine(meter, now.date()) + name, rejected)
    return dict(sorted(rejected["reason"].value_counts().iter_rows()))


def publish_rejected(storage: Storage, path: str, rejected: pl.DataFrame) -> None:
    """Write quarantined rows as one file with exactly the columns of `Quarantine`."""
    local = storage.scratch(".parquet")
    columns = pl.Schema(column_types(Quarantine))
    write_stamped(rejected.select(columns.names()).cast(columns), local)
    storage.publish_file(path, local)
