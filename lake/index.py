"""The key index: the hashed idempotency keys of each partition, a cache beside the events.

It finds candidates for being copies of each other; equal hashes decide nothing, the full keys do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import polars as pl

from lake import paths
from lake.dedup import HASH, key_hash
from lake.events import Partition, fingerprint
from lake.planning import FILES_ADDED, Change
from lake.state import MeterState
from lake.storage import Storage
from schemas.meter import Meter

# Polars' hash differs between its versions, so an index made with another one is not found and is made anew.
HASHED_BY = f"polars-{pl.__version__}"
ROW_GROUP_ROWS = 2**20


def hashes(partition: Partition) -> pl.LazyFrame:
    """The hashes of all keys in the partition, in valid rows or not, as column `key_hash`, sorted."""
    path = _path(partition.meter.name, partition.date, partition.identities)
    if partition.storage.exists(path):
        return _scan(partition.storage, path)
    return partition.rows().select("idempotency_key").drop_nulls().select(key_hash()).sort(HASH)


def changed_hashes(
    storage: Storage,
    meter: Meter,
    partitions: Mapping[dt.date, Partition],
    changed: Mapping[dt.date, Change],
    state: MeterState,
) -> pl.Series | None:
    """Index the changed partitions; gives the hashes of keys that came, went, or may count otherwise now.

    None if what went is no longer known, so that any key may be concerned.
    """
    found = [pl.Series(HASH, dtype=pl.UInt64)]
    for date, change in changed.items():
        partition = partitions.get(date, Partition(storage, meter, date))
        record = state.partitions.get(date)
        now = _write(partition)
        if change.why == FILES_ADDED:
            names = {file.path for file in change.added}
            now = _collect(hashes(partition.only(file for file in partition.files if file.path in names)))
        elif record and record.files:
            before = _path(meter.name, date, record.files)
            if not storage.exists(before):
                return None
            found.append(_collect(_scan(storage, before)))
        found.append(now)
    return pl.concat(found).unique()


def drop_old_indexes(
    partitions: Mapping[dt.date, Partition], storage: Storage, meter: str, dates: Iterable[dt.date]
) -> None:
    """Remove from the folders of these dates what is not the index of the partition's files."""
    for date in dates:
        keep = _path(meter, date, partitions[date].identities) if date in partitions else ""
        for file in storage.list(paths.indexes(meter, date)):
            if file.path != keep:
                storage.delete(file.path)


def _write(partition: Partition) -> pl.Series:
    found = _collect(hashes(partition))
    path = _path(partition.meter.name, partition.date, partition.identities)
    if partition.files and not partition.storage.exists(path):
        local = partition.storage.scratch(".parquet")
        # Hashes do not compress; statistics of sorted row groups let a range of them be read alone.
        found.to_frame().write_parquet(local, compression="uncompressed", row_group_size=ROW_GROUP_ROWS)
        partition.storage.publish_file(path, local)
    return found


def _path(meter: str, date: dt.date, identities: Mapping[str, str]) -> str:
    return paths.index(meter, date, f"{fingerprint(identities)}-{HASHED_BY}")


def _scan(storage: Storage, path: str) -> pl.LazyFrame:
    return pl.scan_parquet(storage.uri(path), glob=False, hive_partitioning=False)


def _collect(lf: pl.LazyFrame) -> pl.Series:
    return lf.collect(engine="streaming")[HASH]
