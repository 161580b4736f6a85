"""Finding the copies that do not count, over all partitions of a meter, with few bytes read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import polars as pl

from lake import paths
from lake.dedup import DATE, HASH, SETTLED, key_hash, losers, repeated
from lake.events import ROW, Partition, event_columns
from lake.index import hashes
from lake.storage import Storage
from schemas.meter import Meter


def find_losers(
    meter: Meter, partitions: Mapping[dt.date, Partition], settled: pl.DataFrame, focus: Iterable[dt.date]
) -> pl.DataFrame:
    """The losing copies of every key that occurs in a partition of `focus`, wherever they lie.

    Compares key hashes first, then reads only the partitions that hold a repeated hash. `settled` are the
    winners of sealed partitions, from `settled_winners`. Columns and order as `lake.dedup.losers`.
    """
    candidates = _candidates(partitions, settled, set(focus))
    copies = [settled.filter(key_hash().is_in(candidates.implode()))]
    for date, partition in partitions.items():
        if _holds(partition, candidates):
            copies.append(_matching(partition, candidates).with_columns(_where(date, settled=False)))
    return losers(pl.concat(copies, how="diagonal_relaxed"), meter)


def settled_winners(storage: Storage, meter: Meter, sealed: set[dt.date]) -> pl.DataFrame:
    """The winners of sealed partitions that still have copies in open ones, as events with date and row 0.

    Files of partitions that are not sealed yet are left by an interrupted run, and do not count.
    """
    frames = [_copies_frame(meter)]
    for file in storage.list(paths.settled(meter.name)) if sealed else []:
        place = paths.split_partition(file.path)
        if place and place.date in sealed and place.file == paths.PART:
            winners = storage.scan([file]).collect()
            frames.append(
                winners.with_columns(pl.lit(0, pl.UInt32).alias(ROW), *_where(place.date, settled=True))
            )
    # A dimension that was added after the sealing is null there.
    return pl.concat(frames, how="diagonal_relaxed").select(_copies_frame(meter).columns)


def touched(partitions: Mapping[dt.date, Partition], changed: pl.Series) -> set[dt.date]:
    """The dates whose keys may include one of these hashes."""
    return {date for date, partition in partitions.items() if _holds(partition, changed)}


def _candidates(
    partitions: Mapping[dt.date, Partition], settled: pl.DataFrame, focus: set[dt.date]
) -> pl.Series:
    near = [hashes(partition) for date, partition in partitions.items() if date in focus]
    if not near:
        return pl.Series(HASH, dtype=pl.UInt64)
    ours = pl.concat(near).collect(engine="streaming")[HASH]
    far = [hashes(partition) for date, partition in partitions.items() if date not in focus]
    others = pl.concat([*far, settled.lazy().select(key_hash())])
    shared = others.filter(pl.col(HASH).is_in(ours.unique().implode())).collect(engine="streaming")[HASH]
    return pl.concat([repeated(ours), shared.unique()]).unique().sort()


def _holds(partition: Partition, candidates: pl.Series) -> bool:
    if candidates.is_empty():
        return False
    found = hashes(partition).filter(pl.col(HASH).is_in(candidates.implode())).head(1)
    return not found.collect(engine="streaming").is_empty()


def _matching(partition: Partition, candidates: pl.Series) -> pl.DataFrame:
    chosen = partition.valid().filter(key_hash().is_in(candidates.implode()))
    return chosen.collect(engine="streaming")


def _where(date: dt.date, *, settled: bool) -> list[pl.Expr]:
    return [pl.lit(date).alias(DATE), pl.lit(settled).alias(SETTLED)]


def _copies_frame(meter: Meter) -> pl.DataFrame:
    return pl.DataFrame(schema={**event_columns(meter), ROW: pl.UInt32, DATE: pl.Date, SETTLED: pl.Boolean})
