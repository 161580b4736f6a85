"""Finding the copies that do not count, over all partitions of a meter, with few bytes read and held."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import polars as pl

from lake import paths
from lake.dedup import DATE, HASH, HASH_BITS, SETTLED, key_hash, losers, repeated
from lake.events import ROW, Partition, event_columns
from lake.index import KeyIndex
from lake.storage import Storage
from schemas.meter import Meter

# So many hashes are compared at once, and the copies of so many keys. What is more is taken range by range of the
# hashes, so that memory does not grow with the lake.
KEYS_AT_ONCE = 2**25
CANDIDATES_AT_ONCE = 2**18
# Where there are so many candidates a partition, to ask which of the partitions hold none costs more than it spares.
SURELY_EVERYWHERE = 64
_RANGE = "#range"


def find_losers(  # noqa: PLR0913, PLR0917 - where copies may lie has this many parts
    meter: Meter,
    partitions: Mapping[dt.date, Partition],
    settled: pl.DataFrame,
    focus: Iterable[dt.date],
    index: KeyIndex,
    keep: Sequence[str] | None = None,
) -> pl.DataFrame:
    """The losing copies of every key that occurs in a partition of `focus`, wherever they lie.

    Compares key hashes first, then reads only the partitions that hold a repeated hash. `settled` are the
    winners of sealed partitions, from `settled_winners`; `index` is of `partitions`. Columns and order as
    `lake.dedup.losers`, or only those of `keep`, which is to name date and row.
    """
    near = partitions.keys() & set(focus)
    candidates, holding = _candidates(index, settled, near, partitions.keys() - near)
    kept = pl.all() if keep is None else pl.col(*keep)
    copies = _copies([partitions[date] for date in sorted(holding)], candidates)
    there = settled.filter(key_hash().is_in(candidates.implode()))
    found = [
        losers(pl.concat([there.filter(key_hash().is_in(hashes.implode())), rows]), meter).select(kept)
        for hashes, rows in copies
    ]
    return pl.concat([losers(settled.clear(), meter).select(kept), *found]).sort(DATE, ROW)


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
    """The hashes of keys that may have copies, at least one of them near, sorted, and the dates that hold such."""
    ranges = _ranges(index.rows(near) // KEYS_AT_ONCE + 1)
    sealed = settled.select(key_hash())[HASH]
    found = [pl.Series(HASH, dtype=pl.UInt64)]
    dates: set[dt.date] = set()
    for within in ranges:
        ours = index.keys(near).filter(within).select(HASH).collect(engine="streaming")[HASH].sort()
        found.append(repeated(ours))
        if len(sealed):
            found.append(sealed.filter(sealed.is_in(ours.implode())))
        if far and len(ours):
            others = index.keys(far).filter(within, pl.col(HASH).is_in(ours.implode()))
            elsewhere = others.collect(engine="streaming")
            found.append(elsewhere[HASH])
            # A far date may hold one that is ours and not repeated there; near ones are asked for by all of them.
            dates |= set(elsewhere[DATE])
    candidates = pl.concat(found).unique().sort()
    many = len(candidates) > SURELY_EVERYWHERE * len(near)
    return candidates, dates | (near if many else index.dates_with(candidates, near))


def _copies(
    partitions: Sequence[Partition], candidates: pl.Series
) -> Iterator[tuple[pl.Series, pl.DataFrame]]:
    """The valid rows of these keys, some keys at a time, with the hashes that these are of."""
    parts = len(candidates) // CANDIDATES_AT_ONCE + 1
    if parts == 1:
        empty = [_copies_frame(partition.meter) for partition in partitions[:1]]
        rows = [_matching(partition, candidates).drop(HASH) for partition in partitions]
        if rows:
            yield candidates, pl.concat(empty + rows)
        return
    with ExitStack() as left:
        spilled = [_spill(partition, candidates, parts, left) for partition in partitions]
        for number in range(parts):
            chosen = candidates.filter(candidates % parts == number)
            of_these = [pl.scan_parquet(file).filter(pl.col(_RANGE) == number) for file in spilled]
            yield chosen, pl.concat(of_these).drop(HASH, _RANGE).collect(engine="streaming")


def _spill(partition: Partition, candidates: pl.Series, parts: int, left: ExitStack) -> Path:
    """Put the rows of these keys into a temporary file, a row group for each part."""
    local = partition.storage.scratch(".parquet")
    left.callback(local.unlink, missing_ok=True)
    rows = _matching(partition, candidates).with_columns((pl.col(HASH) % parts).alias(_RANGE)).sort(_RANGE)
    rows.write_parquet(local, compression="lz4", row_group_size=max(rows.height // parts, 1024))
    return local


def _matching(partition: Partition, candidates: pl.Series) -> pl.DataFrame:
    key = pl.col("idempotency_key").str.strip_chars()
    chosen = partition.valid(key_hash(key).is_in(candidates.implode()) & (key != ""))
    where = _where(partition.date, settled=False)
    return chosen.with_columns(*where, key_hash()).collect(engine="streaming")


def _ranges(parts: int) -> list[pl.Expr]:
    """Conditions that cut the hashes into so many ranges."""
    bounds = [number * 2**HASH_BITS // parts for number in range(parts + 1)]
    if parts == 1:
        return [pl.lit(value=True)]
    return [pl.col(HASH).is_between(lower, upper, closed="left") for lower, upper in pairwise(bounds)]


def _where(date: dt.date, *, settled: bool) -> list[pl.Expr]:
    return [pl.lit(date).alias(DATE), pl.lit(settled).alias(SETTLED)]


def _copies_frame(meter: Meter) -> pl.DataFrame:
    return pl.DataFrame(schema={**event_columns(meter), ROW: pl.UInt32, DATE: pl.Date, SETTLED: pl.Boolean})
