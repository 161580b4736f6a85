"""Quarantine: rejected rows with their reason and original text, by the date on which they were rejected."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping

import polars as pl

from lake import paths
from lake.checksums import write_with_sha256
from lake.events.partition import Partition, fingerprint
from lake.storage import Storage, StoredFile
from schemas.columns import INSTANT, QUARANTINE_TYPES, ROW, event_columns
from schemas.fields import AS_WRITTEN
from schemas.validation import check_quarantine


def quarantine_rows(
    partition: Partition, file: StoredFile, rows: pl.LazyFrame, now: dt.datetime
) -> dict[str, int]:
    """Quarantine the invalid rows of a producer's file, once; return how many by reason.

    `rows` are those of `Partition.rows_as_written`, with `reason` and `detail`. If the file's rows are in quarantine
    already, nothing is added and an empty dict returned.
    """
    storage, meter = partition.storage, partition.meter.name
    name = _name(file.path, file.identity)
    stored = [other.path for other in storage.list(paths.quarantine(meter)) if not other.unreadable]
    existing = [path for path in stored if (place := paths.split_partition(path)) and place.file == name]
    if existing:
        # The file that they are from may be removed next, so they must be durable.
        storage.sync(existing)
        return {}
    rejected = _rejected(partition, file, rows, now)
    if rejected.is_empty():
        return {}
    publish_rejected(storage, paths.quarantine(meter, now.date()) + name, rejected)
    return _counts(rejected)


def requarantine_rows(
    partition: Partition,
    file: StoredFile,
    rows: pl.LazyFrame,
    earlier: Mapping[str, str],
    now: dt.datetime,
) -> dict[str, int]:
    """Replace the rows in quarantine that broke earlier rules by those of a file that break today's.

    `rows` are as for `quarantine_rows`. `earlier` are the identities by name of other files in the partition's folder
    whose rows are in this one. Rows that break no rule any more leave the quarantine: their files are emptied, since
    not every job may delete there. Returns by reason how many more rows there are than before. Idempotent, also after
    an interruption.
    """
    storage, meter = partition.storage, partition.meter.name
    folder, own = file.path.rpartition("/")[0], _name(file.path, file.identity)
    names = {own} | {_name(f"{folder}/{name}", identity) for name, identity in earlier.items()}
    listed = [
        other for other in storage.list(paths.quarantine(meter)) if other.path.rpartition("/")[2] in names
    ]
    before = Counter(
        dict(storage.scan(listed).group_by("reason").len().collect().iter_rows()) if listed else {}
    )
    rejected = _rejected(partition, file, rows, now)
    places = [other.path for other in listed if other.path.endswith(f"/{own}")]
    place = (places or [paths.quarantine(meter, now.date()) + own])[0]
    if places or not rejected.is_empty():
        publish_rejected(storage, place, rejected)
    for other in listed:
        if other.path != place:
            publish_rejected(storage, other.path, rejected.clear())
    return dict(Counter(_counts(rejected)) - before)


def _name(path: str, identity: str) -> str:
    """Return the name of the quarantine file for the rejected rows of a producer's file."""
    return paths.rejected_file(fingerprint({path: identity}))


def _rejected(partition: Partition, file: StoredFile, rows: pl.LazyFrame, now: dt.datetime) -> pl.DataFrame:
    text = [
        pl.col(AS_WRITTEN).alias(name) if name == "quantity" else pl.col(name).cast(pl.String)
        for name in event_columns(partition.meter)
    ]
    return rows.select(
        "reason",
        "detail",
        raw=pl.struct(text).struct.json_encode(),
        source=pl.lit(file.path),
        position=pl.col(ROW).cast(pl.Int64) + 1,
        landed_at=pl.lit(now, INSTANT),
    ).collect(engine="streaming")


def _counts(rejected: pl.DataFrame) -> dict[str, int]:
    return dict(sorted(rejected["reason"].value_counts().iter_rows()))


def publish_rejected(storage: Storage, path: str, rejected: pl.DataFrame) -> None:
    """Write quarantined rows as one file with exactly the columns of that table."""
    local = storage.scratch(".parquet")
    columns = pl.Schema(QUARANTINE_TYPES)
    rows = rejected.select(columns.names()).cast(columns)
    check_quarantine(rows, path)
    write_with_sha256(rows, local)
    storage.publish_file(path, local)
