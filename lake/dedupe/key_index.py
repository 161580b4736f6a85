"""The key index: the hashed idempotency keys of a meter's event files, a cache beside the events.

It finds candidates for being copies of each other; equal hashes decide nothing, the full keys do. It is kept as a
few segments, which never change: each says which files of which dates it holds, so nothing else has to be told
of it, and after a crash or a loss the next run indexes what no segment holds. A run adds a segment for what is
new and merges segments that are not much larger into it, so that there are few and each key is seldom rewritten.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import msgspec
import polars as pl

from lake import paths
from lake.checksums import KEY, UNSTAMPED, stamp
from lake.concurrency import ahead
from lake.decoding import Count, decode
from lake.dedupe.winners import DATE, HASH, HASH_BITS, key_hash
from lake.events.partition import Partition, fingerprint
from lake.state.records import PartitionState
from lake.storage import Storage, StoredFile
from lake.storage.errors import writing
from schemas.errors import BrokenLakeError

# Polars' hash differs between its versions, so segments made with another one are passed over and made anew.
HASHED_BY = f"polars-{pl.__version__}-{HASH_BITS}"
METADATA_KEY = "meterlake-index"
# Hashes are sorted within a date, so that of a small row group it is known which part of them it holds.
ROW_GROUP_ROWS = 2**16
# A segment is merged into a new one unless it is larger than both: what is rewritten by night stays small, and
# segments grow by this factor from one to the next.
ALWAYS_MERGED_ROWS = 2**20
GROWTH = 4
ABOUT_EVENT_BYTES = 16
KEYS = {DATE: pl.Date(), HASH: pl.UInt64()}


class Held(msgspec.Struct, frozen=True):
    """What a segment holds of one date: the rows, and the files by their fingerprints."""

    rows: Count
    files: frozenset[str]


class Segment(msgspec.Struct, frozen=True):
    """One file of the index: rows of `date` and `key_hash`, sorted by both."""

    file: StoredFile
    dates: dict[dt.date, Held]

    @property
    def rows(self) -> int:
        """All its rows, of whatever dates."""
        return sum(held.rows for held in self.dates.values())


class KeyIndex:
    """The index of some partitions of a meter: what the segments hold of their files, and what is in none."""

    def __init__(
        self, storage: Storage, meter: str, partitions: Mapping[dt.date, Partition], *, fresh: bool = False
    ) -> None:
        """Read which files the segments of this meter hold; with `fresh` none is believed to hold any."""
        self._storage, self._meter, self._partitions = storage, meter, dict(partitions)
        self._found = [] if fresh else storage.list(paths.indexes(meter))
        self._segments = _open_segments(storage, self._found)
        self._choose()

    def keys(self, dates: Iterable[dt.date] | None = None) -> pl.LazyFrame:
        """Return `date` and `key_hash` of every key in the partitions of these dates, of valid rows or not."""
        wanted = set(self._partitions if dates is None else dates)
        frames = [pl.LazyFrame(schema=KEYS)]
        for segment, live in self._live:
            of_these = live & wanted
            if of_these:
                rows = self._scan(segment)
                whole = of_these == segment.dates.keys()
                frames.append(rows if whole else rows.filter(pl.col(DATE).is_in(sorted(of_these))))
        frames += [_keys_of(missing) for date, missing in self._missing.items() if date in wanted]
        return pl.concat(frames)

    def rows(self, dates: Iterable[dt.date]) -> int:
        """Return how many keys the partitions of these dates have; about, where no segment holds their files."""
        wanted = set(dates)
        known = sum(_rows(segment, live & wanted) for segment, live in self._live)
        return known + _estimate(self._missing[date] for date in wanted & self._missing.keys())

    def dates_with(self, hashes: pl.Series, dates: Iterable[dt.date]) -> set[dt.date]:
        """Return those of the dates whose keys include one of these hashes."""
        if hashes.is_empty():
            return set()
        found = self.keys(dates).filter(pl.col(HASH).is_in(hashes.implode())).select(pl.col(DATE).unique())
        return set(found.collect(engine="streaming")[DATE])

    def before(self, date: dt.date, record: PartitionState) -> pl.Series | None:
        """Return the hashes of the keys that the partition held as of its record, and maybe of more; None if not known."""
        known = {file_fingerprint(name, identity) for name, identity in record.files.items()}
        there = [each for each in self._segments if date in each.dates and each.dates[date].files & known]
        if not known <= {file for each in there for file in each.dates[date].files}:
            return None
        frames = [self._scan(each).filter(pl.col(DATE) == date) for each in there]
        return pl.concat([pl.LazyFrame(schema=KEYS), *frames]).collect(engine="streaming")[HASH]

    def update(self) -> None:
        """Add a segment for what no segment holds, with the smaller segments merged into it."""
        worn = [(segment, live) for segment, live in self._live if 2 * _rows(segment, live) < segment.rows]
        if not self._missing and not worn:
            return
        self._segments.append(self._write([*self._merged(worn), *worn]))
        self._choose()

    def tidy(self) -> None:
        """Remove what is not needed any more and was not when this index was opened.

        Only once the state is saved: until then an interrupted run needs the keys of what was there before.
        What this run made needless is left for the next, since a reader may be about to read it.
        """
        self._storage.delete_all(file.path for file in self._found if file.path not in self._needed)

    def _choose(self) -> None:
        """Choose segments so that each file is held once, the larger segments first."""
        wanted = {date: _fingerprints(partition) for date, partition in self._partitions.items()}
        taken: dict[dt.date, set[str]] = {date: set() for date in wanted}
        self._live: list[tuple[Segment, set[dt.date]]] = []
        for segment in sorted(self._segments, key=lambda each: (-each.rows, each.file.path)):
            live = {
                date
                for date, held in segment.dates.items()
                if date in wanted and held.files <= wanted[date].keys() - taken[date]
            }
            for date in live:
                taken[date] |= segment.dates[date].files
            if live:
                self._live.append((segment, live))
        self._missing = {
            date: partition.only(wanted[date][each] for each in wanted[date] if each not in taken[date])
            for date, partition in self._partitions.items()
            if wanted[date].keys() - taken[date]
        }
        if not hasattr(self, "_needed"):
            self._needed = {segment.file.path for segment, _ in self._live}

    def _merged(self, worn: list[tuple[Segment, set[dt.date]]]) -> list[tuple[Segment, set[dt.date]]]:
        # The rows of what is missing are not known before they are read; their files' sizes say enough.
        total = _estimate(self._missing.values())
        chosen = []
        for segment, live in reversed(self._live):
            rows = _rows(segment, live)
            if (segment, live) not in worn and rows <= max(GROWTH * total, ALWAYS_MERGED_ROWS):
                chosen.append((segment, live))
                total += rows
        return chosen

    def _write(self, merged: list[tuple[Segment, set[dt.date]]]) -> Segment:
        """Write and return a segment, date by date, so that never more than two dates are in memory."""
        # A run that finds no new file does without.
        import pyarrow as pa
        import pyarrow.parquet as pq

        dates = sorted({date for _, live in merged for date in live} | self._missing.keys())
        local = self._storage.scratch(".parquet")
        held: dict[dt.date, Held] = {}
        schema = pa.schema([(DATE, pa.date32()), (HASH, pa.uint64())])
        # Of sorted hashes the steps are small numbers; of the date there is one value in a row group: neither can be
        # compressed further.
        packed = {HASH: "DELTA_BINARY_PACKED"}
        with (
            writing(local),
            pq.ParquetWriter(
                local, schema, compression="none", use_dictionary=[DATE], column_encoding=packed
            ) as writer,
        ):
            # To write takes one core, and to read and sort the next date the other.
            for date, (sorted_hashes, files) in ahead(lambda date: self._sorted(date, merged), dates):
                held[date] = Held(len(sorted_hashes), files)
                if len(sorted_hashes):
                    rows = pl.select(pl.lit(date).alias(DATE), sorted_hashes)
                    writer.write_table(rows.to_arrow().cast(schema), row_group_size=ROW_GROUP_ROWS)
            writer.add_key_value_metadata({METADATA_KEY: _encoded(held), KEY: UNSTAMPED})
        stamp(local)
        said = {date.isoformat(): ",".join(sorted(of_date.files)) for date, of_date in held.items()}
        path = paths.index(self._meter, f"{HASHED_BY}-{fingerprint(said)}")
        return Segment(self._storage.publish_file(path, local, keep=True), held)

    def _sorted(
        self, date: dt.date, merged: list[tuple[Segment, set[dt.date]]]
    ) -> tuple[pl.Series, frozenset[str]]:
        """Return a date's hashes for a new segment, from merged ones and its own files, and the files that they are of."""
        parts = [(segment, segment.dates[date]) for segment, live in merged if date in live]
        frames = [self._scan(segment).filter(pl.col(DATE) == date) for segment, _ in parts]
        files = frozenset(file for _, part in parts for file in part.files)
        if date in self._missing:
            frames.append(_keys_of(self._missing[date]))
            files |= _fingerprints(self._missing[date]).keys()
        return pl.concat(frames).select(HASH).collect(engine="streaming")[HASH].sort(), files

    def _scan(self, segment: Segment) -> pl.LazyFrame:
        return self._storage.scan([segment.file]).select(list(KEYS))


def hashes(partition: Partition) -> pl.Series:
    """Return the hashes of all keys in the partition, in valid rows or not, from its events."""
    return _keys_of(partition).select(HASH).collect(engine="streaming")[HASH]


def file_fingerprint(name: str, identity: str) -> str:
    """Return an event file as the index names it."""
    return fingerprint({name: identity})


def _open_segments(storage: Storage, files: Iterable[StoredFile]) -> list[Segment]:
    ours = [file for file in files if file.path.rsplit("/", 1)[-1].startswith(f"{HASHED_BY}-")]
    storage.prefetch(ours, whole=True)
    found = []
    for file in ours:
        dates = _decoded(storage, file)
        if dates is not None:
            found.append(Segment(file, dates))
    return found


def _decoded(storage: Storage, file: StoredFile) -> dict[dt.date, Held] | None:
    """Return what a segment holds; None if it is damaged, so that its files are indexed anew."""
    try:
        body = storage.metadata(file).get(METADATA_KEY, "")
        return decode(body, dict[dt.date, Held], "not a segment of the key index", where=file.path)
    except (BrokenLakeError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None


def _encoded(held: Mapping[dt.date, Held]) -> bytes:
    said = {date: {"rows": each.rows, "files": sorted(each.files)} for date, each in held.items()}
    return msgspec.json.encode(said)


def _fingerprints(partition: Partition) -> dict[str, StoredFile]:
    names = (file.path.rsplit("/", 1)[-1] for file in partition.files)
    return {
        file_fingerprint(name, file.identity): file for name, file in zip(names, partition.files, strict=True)
    }


def _keys_of(partition: Partition) -> pl.LazyFrame:
    return partition.keys().select(pl.lit(partition.date).alias(DATE), key_hash())


def _estimate(partitions: Iterable[Partition]) -> int:
    return sum(file.size_bytes for partition in partitions for file in partition.files) // ABOUT_EVENT_BYTES


def _rows(segment: Segment, live: Iterable[dt.date]) -> int:
    return sum(segment.dates[date].rows for date in live)
