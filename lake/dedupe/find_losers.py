"""Finding the copies that do not count, over all partitions of a meter, with few bytes read and held."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import polars as pl

from lake import paths
from lake.concurrency import ahead
from lake.dedupe.key_index import KeyIndex
from lake.dedupe.winners import DATE, HASH, HASH_BITS, SETTLED, key_hash, losers
from lake.events.partition import Partition
from lake.partition_files import part_files
from lake.storage import Storage, StoredFile
from lake.storage.errors import is_storage_failure, writing
from schemas.columns import ROW, event_columns
from schemas.errors import BrokenLakeError
from schemas.meter import Meter

# So many hashes are compared at once, and the copies of so many keys. What is more is taken range by range of the
# hashes, so that memory does not grow with the lake.
KEYS_AT_ONCE = 2**22
CANDIDATES_AT_ONCE = 2**18
# A hash and the date that it was found on, as one number that sorts by hash: the lower bits are the date's ordinal.
_DATE_BITS = 64 - HASH_BITS
_EPOCH = dt.date(1970, 1, 1).toordinal()
_FOUND = "found"
_RANGE = "#range"


def find_losers(  # noqa: PLR0913, PLR0917 - where copies may lie has this many parts
    meter: Meter,
    partitions: Mapping[dt.date, Partition],
    settled: pl.DataFrame,
    focus: Iterable[dt.date],
    index: KeyIndex,
    keep: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return the losing copies of every key that occurs in a partition of `focus`, wherever they lie.

    Compares key hashes first, then reads only the partitions that hold a repeated hash. `settled` are the
    winners of sealed partitions, from `settled_winners`; `index` is of `partitions`. Columns as of
    `lake.dedupe.winners.losers`, or only those of `keep`, which is to name date and row; sorted by these two.
    """
    near = partitions.keys() & set(focus)
    candidates = _candidates(index, settled, near, partitions.keys() - near)
    kept = pl.all() if keep is None else pl.col(*keep)
    found = [
        losers(pl.concat([settled.filter(key_hash().is_in(hashes.implode())), rows]), meter).select(kept)
        for hashes, rows in _copies(partitions, candidates)
    ]
    return pl.concat([losers(settled.clear(), meter).select(kept), *found]).sort(DATE, ROW)


def settled_winners(storage: Storage, meter: Meter, sealed: set[dt.date]) -> pl.DataFrame:
    """Return the winners of sealed partitions that still have copies in open ones, as events with date and row 0.

    Files of partitions that are not sealed yet are left by an interrupted run, and do not count. Raises
    BrokenLakeError if one is damaged: copies of its winners would count again without it.
    """
    frames = [_copies_frame(meter)]
    files = part_files(storage, paths.settled(meter.name)) if sealed else {}
    for date, file in files.items():
        if date in sealed:
            winners = _read_settled(storage, meter, file)
            frames.append(winners.with_columns(pl.lit(0, pl.UInt32).alias(ROW), *_where(date, settled=True)))
    return pl.concat(frames, how="diagonal").select(_copies_frame(meter).columns)


def _read_settled(storage: Storage, meter: Meter, file: StoredFile) -> pl.DataFrame:
    """Return the rows of one file of settled winners; a dimension that was added after the sealing is not in it."""
    try:
        rows = storage.scan([file]).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if is_storage_failure(error):
            raise
        raise _broken_settled(file, str(error).splitlines()[0]) from error
    columns = event_columns(meter)
    missing = columns.keys() - {*rows.columns, *meter.dimension_names}
    others = {name for name, dtype in rows.schema.items() if columns.get(name) != dtype}
    if missing or others:
        raise _broken_settled(file, f"other columns: {', '.join(sorted(missing | others))}")
    return rows


def _broken_settled(file: StoredFile, found: str) -> BrokenLakeError:
    return BrokenLakeError(
        "the winners of a sealed partition can't be read",
        where=file.path,
        expected="Parquet with the columns of the meter's events",
        found=found,
        hint="restore the file from a backup: its events are gone, and copies of them count again without it",
    )


def _candidates(
    index: KeyIndex, settled: pl.DataFrame, near: set[dt.date], far: set[dt.date]
) -> dict[dt.date, pl.Series]:
    """Return the sorted hashes, by date, of keys that may have duplicates, at least one of them in `near`."""
    sealed = settled.select(key_hash())[HASH].unique()
    found = [pl.Series(_FOUND, dtype=pl.UInt64)]
    for within in _ranges(index.rows(near) // KEYS_AT_ONCE + 1):
        ours = _found(index.keys(near).filter(within)).sort()
        found.append(_repeated(ours))
        if len(ours) and (far or len(sealed)):
            hashes = ours // 2**_DATE_BITS
            theirs = _found(index.keys(far).filter(within, pl.col(HASH).is_in(hashes.implode())))
            elsewhere = pl.concat([sealed, theirs // 2**_DATE_BITS])
            found += [theirs, ours.filter(hashes.is_in(elsewhere.implode()))]
    both = pl.concat(found).unique().sort().to_frame()
    dated = both.select(
        ((pl.col(_FOUND) % 2**_DATE_BITS).cast(pl.Int32) - _EPOCH).cast(pl.Date).alias(DATE),
        (pl.col(_FOUND) // 2**_DATE_BITS).alias(HASH),
    )
    by_date = dated.partition_by(DATE, maintain_order=True, as_dict=True)
    return {date: rows[HASH] for (date,), rows in sorted(by_date.items())}


def _found(keys: pl.LazyFrame) -> pl.Series:
    """Return hashes with their dates, packed."""
    ordinal = (pl.col(DATE).cast(pl.Int32) + _EPOCH).cast(pl.UInt64)
    packed = keys.select((pl.col(HASH) * 2**_DATE_BITS + ordinal).alias(_FOUND))
    return packed.collect(engine="streaming")[_FOUND]


def _repeated(found: pl.Series) -> pl.Series:
    """Return those of sorted, packed hashes whose hash occurs more than once."""
    # Where the hash is the same, the numbers are close; to look at the hashes of these alone takes half the time.
    step = found - found.shift(1)
    near_others = found.filter(
        ((step < 2**_DATE_BITS) | (step.shift(-1) < 2**_DATE_BITS)).fill_null(value=False)
    )
    return near_others.filter((near_others // 2**_DATE_BITS).is_duplicated())


def _copies(
    partitions: Mapping[dt.date, Partition], candidates: Mapping[dt.date, pl.Series]
) -> Iterator[tuple[pl.Series, pl.DataFrame]]:
    """The valid rows of these keys, some keys at a time, with the hashes that these are of."""
    if not candidates:
        return
    hashes = pl.concat(candidates.values()).unique()
    parts = len(hashes) // CANDIDATES_AT_ONCE + 1
    # To match takes both cores most of the time; the next date takes what is left.
    matched = ahead(lambda date: _matching(partitions[date], candidates[date]), candidates)
    if parts == 1:
        yield hashes, pl.concat(rows.drop(HASH) for _, rows in matched)
        return
    with ExitStack() as left:
        spilled = [_spill(partitions[date].storage, rows, parts, left) for date, rows in matched]
        for number in range(parts):
            of_these = [pl.scan_parquet(file).filter(pl.col(_RANGE) == number) for file in spilled]
            rows_of_these = pl.concat(of_these).drop(HASH, _RANGE).collect(engine="streaming")
            yield hashes.filter(hashes % parts == number), rows_of_these


def _spill(storage: Storage, rows: pl.DataFrame, parts: int, left: ExitStack) -> Path:
    """Write rows to a temporary file, about one row group for each part, and return its path."""
    local = storage.scratch(".parquet")
    left.callback(local.unlink, missing_ok=True)
    by_part = rows.with_columns((pl.col(HASH) % parts).alias(_RANGE)).sort(_RANGE)
    with writing(local):
        by_part.write_parquet(local, compression="lz4", row_group_size=max(rows.height // parts, 1024))
    return local


def _matching(partition: Partition, candidates: pl.Series) -> pl.DataFrame:
    hashed = key_hash(pl.col("idempotency_key").str.strip_chars())
    chosen = partition.valid(hashed.is_in(candidates.implode())).drop_nulls("idempotency_key")
    where = _where(partition.date, settled=False)
    return chosen.with_columns(*where, key_hash()).collect(engine="streaming")


def _ranges(parts: int) -> list[pl.Expr]:
    """Return one condition for each of `parts` ranges of the hashes."""
    bounds = [number * 2**HASH_BITS // parts for number in range(parts + 1)]
    if parts == 1:
        return [pl.lit(value=True)]
    return [pl.col(HASH).is_between(lower, upper, closed="left") for lower, upper in pairwise(bounds)]


def _where(date: dt.date, *, settled: bool) -> list[pl.Expr]:
    return [pl.lit(date).alias(DATE), pl.lit(settled).alias(SETTLED)]


def _copies_frame(meter: Meter) -> pl.DataFrame:
    return pl.DataFrame(schema={**event_columns(meter), ROW: pl.UInt32, DATE: pl.Date, SETTLED: pl.Boolean})
