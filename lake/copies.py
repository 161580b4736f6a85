"""Finding the copies that do not count, over all partitions of a meter, with few bytes read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import polars as pl

from lake import paths
from lake.dedup import DATE, HASH, SETTLED, key_hash, losers, repeated
from lake.events import ROW, Partition, event_columns
from lake.index import KEYS, KeyIndex
from lake.storage import Storage
from schemas.meter import Meter


def find_losers(
    meter: Meter,
    partitions: Mapping[dt.date, Partition],
    settled: pl.DataFrame,
    focus: Iterable[dt.date],
    index: KeyIndex,
) -> pl.DataFrame:
    """The losing copies of every key that occurs in a partition of `focus`, wherever they lie.

    Compares key hashes first, then reads only the partitions that hold a repeated hash. `settled` are the
    winners of sealed partitions, from `settled_winners`; `index` is of `partitions`. Columns and order as
    `lake.dedup.losers`.
    """
    near = partitions.keys() & set(focus)
    candidates, holding = _candidates(index, settled, near, partitions.keys() - near)
    copies = [settled.filter(key_hash().is_in(candidates.implode()))]
    copies += [
        _matching(partitions[date], candidates).with_columns(_where(date, settled=False))
        for date in sorted(holding)
    ]
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


def _candidates(
    index: KeyIndex, settled: pl.DataFrame, near: set[dt.date], far: set[dt.date]
) -> tuple[pl.Series, set[dt.date]]:
    """The hashes of keys that may have copies, at least one of them near, and the dates that hold such."""
    ours = index.keys(near).select(HASH).collect(engine="streaming")[HASH]
    again = repeated(ours)
    distinct = ours.unique()
    shared = settled.select(key_hash().filter(key_hash().is_in(distinct.implode())))[HASH]
    others = index.keys(far).filter(pl.col(HASH).is_in(distinct.implode())) if far and len(ours) else None
    found = others.collect(engine="streaming") if others is not None else pl.DataFrame(schema=KEYS)
    candidates = pl.concat([again, shared, found[HASH]]).unique().sort()
    # Of the far dates those of a hash that is ours; the near ones are asked for once more, by their keys.
    return candidates, index.dates_with(candidates, near) | set(found[DATE])


def _matching(partition: Partition, candidates: pl.Series) -> pl.DataFrame:
    chosen = partition.valid().filter(key_hash().is_in(candidates.implode()))
    return chosen.collect(engine="streaming")


def _where(date: dt.date, *, settled: bool) -> list[pl.Expr]:
    return [pl.lit(date).alias(DATE), pl.lit(settled).alias(SETTLED)]


def _copies_frame(meter: Meter) -> pl.DataFrame:
    return pl.DataFrame(schema={**event_columns(meter), ROW: pl.UInt32, DATE: pl.Date, SETTLED: pl.Boolean})
