"""Find the duplicates that do not count, across all partitions of a meter, with few bytes read and held in memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import polars as pl

from lake import paths
from lake.concurrency import map_ahead
from lake.dedupe.key_index import KeyIndex
from lake.dedupe.winners import DATE, HASH, HASH_BITS, IS_SEALED, key_hash, losing_duplicates
from lake.events.partition import Partition
from lake.partition_files import part_files
from lake.storage import Storage, StoredFile
from lake.storage.errors import is_storage_failure, writing
from schemas.columns import ROW, event_columns
from schemas.errors import BrokenLakeError
from schemas.meter import Meter

# How many hashes are compared at once, and of how many keys the duplicates. Beyond that, hashes are processed in
# ranges, so that memory does not grow with the lake.
KEYS_AT_ONCE = 2**22
CANDIDATES_AT_ONCE = 2**18
# A hash and the date of its partition, as one number that sorts by hash: the lower bits are the date's ordinal.
_DATE_BITS = 64 - HASH_BITS
_EPOCH = dt.date(1970, 1, 1).toordinal()
_PACKED = "packed"
_RANGE = "#range"


def find_losers(  # noqa: PLR0913, PLR0917 - the places where duplicates may be
    meter: Meter,
    partitions: Mapping[dt.date, Partition],
    sealed_winners: pl.DataFrame,
    dates: Iterable[dt.date],
    index: KeyIndex,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return every duplicate that does not count, for keys that occur in `dates`, across all partitions.

    Compares hashes from `index`, which is of `partitions`, first and reads only partitions that share one; equal hashes
    are checked against the full key. `sealed_winners` are those of `load_sealed_winners`. One row per losing event, with
    the columns of `lake.dedupe.winners.losing_duplicates` or the chosen `columns`, which must include date and row;
    sorted by (date, row).
    """
    near = partitions.keys() & set(dates)
    candidates = _candidates(index, sealed_winners, near, partitions.keys() - near)
    selected = pl.all() if columns is None else pl.col(*columns)
    losers = [
        losing_duplicates(
            pl.concat([sealed_winners.filter(key_hash().is_in(hashes.implode())), rows]), meter
        ).select(selected)
        for hashes, rows in _candidate_rows(partitions, candidates)
    ]
    return pl.concat([losing_duplicates(sealed_winners.clear(), meter).select(selected), *losers]).sort(
        DATE, ROW
    )


def load_sealed_winners(storage: Storage, meter: Meter, sealed: set[dt.date]) -> pl.DataFrame:
    """Return the winners of sealed partitions that have duplicates in open ones.

    Columns: those of the meter's events, `row` (0), `date` and `#is_sealed` (true). Files of partitions that are not
    sealed yet were left by an interrupted run, and are ignored. Raises BrokenLakeError if a file is damaged: without it,
    duplicates of its winners would count again.
    """
    frames = [_no_rows(meter)]
    files = part_files(storage, paths.sealed_winners(meter.name)) if sealed else {}
    for date, file in files.items():
        if date in sealed:
            winners = _read_winners(storage, meter, file)
            frames.append(
                winners.with_columns(pl.lit(0, pl.UInt32).alias(ROW), *_placed(date, is_sealed=True))
            )
    return pl.concat(frames, how="diagonal").select(_no_rows(meter).columns)


def _read_winners(storage: Storage, meter: Meter, file: StoredFile) -> pl.DataFrame:
    """Return the rows of one file of sealed winners; a dimension that was added after the sealing is not in it."""
    try:
        rows = storage.scan([file]).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if is_storage_failure(error):
            raise
        raise _broken_winners(file, str(error).splitlines()[0]) from error
    columns = event_columns(meter)
    missing = columns.keys() - {*rows.columns, *meter.dimension_names}
    wrong = {name for name, dtype in rows.schema.items() if columns.get(name) != dtype}
    if missing or wrong:
        raise _broken_winners(file, f"other columns: {', '.join(sorted(missing | wrong))}")
    return rows


def _broken_winners(file: StoredFile, found: str) -> BrokenLakeError:
    return BrokenLakeError(
        "the winners of a sealed partition can't be read",
        where=file.path,
        expected="Parquet with the columns of the meter's events",
        found=found,
        hint="restore the file from a backup: its events are gone, and without it duplicates of them count again",
    )


def _candidates(
    index: KeyIndex, sealed_winners: pl.DataFrame, near: set[dt.date], far: set[dt.date]
) -> dict[dt.date, pl.Series]:
    """Return the sorted hashes, by date, of keys that may have duplicates, at least one of them in `near`."""
    sealed = sealed_winners.select(key_hash())[HASH].unique()
    packed = [pl.Series(_PACKED, dtype=pl.UInt64)]
    for within in _ranges(index.rows(near) // KEYS_AT_ONCE + 1):
        near_keys = _pack(index.keys(near).filter(within)).sort()
        packed.append(_repeated(near_keys))
        if len(near_keys) and (far or len(sealed)):
            hashes = near_keys // 2**_DATE_BITS
            far_keys = _pack(index.keys(far).filter(within, pl.col(HASH).is_in(hashes.implode())))
            elsewhere = pl.concat([sealed, far_keys // 2**_DATE_BITS])
            packed += [far_keys, near_keys.filter(hashes.is_in(elsewhere.implode()))]
    candidates = pl.concat(packed).unique().sort().to_frame()
    dated = candidates.select(
        ((pl.col(_PACKED) % 2**_DATE_BITS).cast(pl.Int32) - _EPOCH).cast(pl.Date).alias(DATE),
        (pl.col(_PACKED) // 2**_DATE_BITS).alias(HASH),
    )
    by_date = dated.partition_by(DATE, maintain_order=True, as_dict=True)
    return {date: rows[HASH] for (date,), rows in sorted(by_date.items())}


def _pack(keys: pl.LazyFrame) -> pl.Series:
    """Return the hashes with their dates, each packed into one number."""
    ordinal = (pl.col(DATE).cast(pl.Int32) + _EPOCH).cast(pl.UInt64)
    packed = keys.select((pl.col(HASH) * 2**_DATE_BITS + ordinal).alias(_PACKED))
    return packed.collect(engine="streaming")[_PACKED]


def _repeated(packed: pl.Series) -> pl.Series:
    """Return those of sorted, packed hashes whose hash occurs more than once."""
    # Equal hashes make close numbers; comparing the hashes of only those takes half the time.
    step = packed - packed.shift(1)
    close = packed.filter(((step < 2**_DATE_BITS) | (step.shift(-1) < 2**_DATE_BITS)).fill_null(value=False))
    return close.filter((close // 2**_DATE_BITS).is_duplicated())


def _candidate_rows(
    partitions: Mapping[dt.date, Partition], candidates: Mapping[dt.date, pl.Series]
) -> Iterator[tuple[pl.Series, pl.DataFrame]]:
    """Yield the hashes of some keys, and the valid rows of these keys, until all candidates are done."""
    if not candidates:
        return
    hashes = pl.concat(candidates.values()).unique()
    parts = len(hashes) // CANDIDATES_AT_ONCE + 1
    # Matching uses both cores most of the time; the next date uses what is left.
    rows_by_date = map_ahead(lambda date: _rows_with_hashes(partitions[date], candidates[date]), candidates)
    if parts == 1:
        yield hashes, pl.concat(rows.drop(HASH) for _, rows in rows_by_date)
        return
    with ExitStack() as files:
        spilled = [_spill(partitions[date].storage, rows, parts, files) for date, rows in rows_by_date]
        for number in range(parts):
            scans = [pl.scan_parquet(file).filter(pl.col(_RANGE) == number) for file in spilled]
            rows_in_range = pl.concat(scans).drop(HASH, _RANGE).collect(engine="streaming")
            yield hashes.filter(hashes % parts == number), rows_in_range


def _spill(storage: Storage, rows: pl.DataFrame, parts: int, files: ExitStack) -> Path:
    """Write rows to a temporary file, about one row group for each part, and return its path."""
    local = storage.scratch(".parquet")
    files.callback(local.unlink, missing_ok=True)
    by_part = rows.with_columns((pl.col(HASH) % parts).alias(_RANGE)).sort(_RANGE)
    with writing(local):
        by_part.write_parquet(local, compression="lz4", row_group_size=max(rows.height // parts, 1024))
    return local


def _rows_with_hashes(partition: Partition, candidates: pl.Series) -> pl.DataFrame:
    hashed = key_hash(pl.col("idempotency_key").str.strip_chars())
    rows = partition.valid(hashed.is_in(candidates.implode())).drop_nulls("idempotency_key")
    place = _placed(partition.date, is_sealed=False)
    return rows.with_columns(*place, key_hash()).collect(engine="streaming")


def _ranges(parts: int) -> list[pl.Expr]:
    """Return one condition for each of `parts` ranges of the hashes."""
    bounds = [number * 2**HASH_BITS // parts for number in range(parts + 1)]
    if parts == 1:
        return [pl.lit(value=True)]
    return [pl.col(HASH).is_between(lower, upper, closed="left") for lower, upper in pairwise(bounds)]


def _placed(date: dt.date, *, is_sealed: bool) -> list[pl.Expr]:
    return [pl.lit(date).alias(DATE), pl.lit(is_sealed).alias(IS_SEALED)]


def _no_rows(meter: Meter) -> pl.DataFrame:
    return pl.DataFrame(schema={**event_columns(meter), ROW: pl.UInt32, DATE: pl.Date, IS_SEALED: pl.Boolean})
