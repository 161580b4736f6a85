"""The key index: the hashed idempotency keys of a meter's event files, a cache beside the events.

It finds candidates for duplicates; equal hashes decide nothing, the full keys do. The index is a few segments, which
never change: each names the files and dates whose keys it has, so nothing else refers to it, and after a crash or a
loss the next run indexes the files that are in no segment. A run adds a segment for new files and merges segments
that are not much larger into it, so that there are few segments and a key is rarely rewritten.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import msgspec
import polars as pl

from lake import paths
from lake.checksums import SHA256_KEY, ZERO_SHA256, embed_sha256
from lake.concurrency import map_ahead
from lake.decoding import Count, decode
from lake.dedupe.winners import DATE, HASH, HASH_BITS, key_hash
from lake.events.partition import Partition, fingerprint
from lake.state.records import PartitionState
from lake.storage import Storage, StoredFile
from lake.storage.errors import writing
from schemas.errors import BrokenLakeError

# Polars' hash differs between its versions, so segments of another version are ignored and replaced.
HASHED_BY = f"polars-{pl.__version__}-{HASH_BITS}"
METADATA_KEY = "meterlake-index"
# Hashes are sorted within a date, so the statistics of a small row group say which range of hashes it has.
ROW_GROUP_ROWS = 2**16
# A segment is merged into a new one unless it is larger than both: what is rewritten by night stays small, and
# segments grow by this factor from one to the next.
ALWAYS_MERGED_ROWS = 2**20
GROWTH = 4
ABOUT_EVENT_BYTES = 16
KEYS = {DATE: pl.Date(), HASH: pl.UInt64()}


class Contents(msgspec.Struct, frozen=True):
    """What a segment has of one date: how many rows, and the fingerprints of the files that they are from."""

    rows: Count
    files: frozenset[str]


class Segment(msgspec.Struct, frozen=True):
    """One file of the index: rows of `date` and `key_hash`, sorted by both."""

    file: StoredFile
    dates: dict[dt.date, Contents]

    @property
    def rows(self) -> int:
        """How many rows it has, of all dates."""
        return sum(contents.rows for contents in self.dates.values())


class KeyIndex:
    """The index of some partitions of a meter: segments with their files, and the files that are in no segment."""

    def __init__(
        self, storage: Storage, meter: str, partitions: Mapping[dt.date, Partition], *, fresh: bool = False
    ) -> None:
        """Read which files the segments of this meter have; with `fresh` existing segments are ignored."""
        self._storage, self._meter, self._partitions = storage, meter, dict(partitions)
        self._listed = [] if fresh else storage.list(paths.indexes(meter))
        self._segments = _open_segments(storage, self._listed)
        self._choose_segments()

    def keys(self, dates: Iterable[dt.date] | None = None) -> pl.LazyFrame:
        """Return `date` and `key_hash` of every key in the partitions of these dates, of valid rows or not."""
        selected = set(self._partitions if dates is None else dates)
        frames = [pl.LazyFrame(schema=KEYS)]
        for segment, live in self._live:
            of_these = live & selected
            if of_these:
                rows = self._scan(segment)
                is_whole = of_these == segment.dates.keys()
                frames.append(rows if is_whole else rows.filter(pl.col(DATE).is_in(sorted(of_these))))
        frames += [_keys_of(missing) for date, missing in self._missing.items() if date in selected]
        return pl.concat(frames)

    def rows(self, dates: Iterable[dt.date]) -> int:
        """Return how many keys the partitions of these dates have; an estimate for files in no segment."""
        selected = set(dates)
        known = sum(_rows(segment, live & selected) for segment, live in self._live)
        return known + _estimate(self._missing[date] for date in selected & self._missing.keys())

    def dates_with(self, key_hashes: pl.Series, dates: Iterable[dt.date]) -> set[dt.date]:
        """Return those of the dates whose keys include one of these hashes."""
        if key_hashes.is_empty():
            return set()
        dates_found = (
            self.keys(dates).filter(pl.col(HASH).is_in(key_hashes.implode())).select(pl.col(DATE).unique())
        )
        return set(dates_found.collect(engine="streaming")[DATE])

    def hashes_at_last_run(self, date: dt.date, record: PartitionState) -> pl.Series | None:
        """Return the hashes of the keys that the partition had at its record, and maybe more; None if unknown."""
        recorded = {file_fingerprint(name, identity) for name, identity in record.files.items()}
        segments = [
            each for each in self._segments if date in each.dates and each.dates[date].files & recorded
        ]
        if not recorded <= {file for each in segments for file in each.dates[date].files}:
            return None
        frames = [self._scan(each).filter(pl.col(DATE) == date) for each in segments]
        return pl.concat([pl.LazyFrame(schema=KEYS), *frames]).collect(engine="streaming")[HASH]

    def update(self) -> None:
        """Add a segment for files that are in no segment, and merge smaller and mostly stale segments into it."""
        mostly_stale = [
            (segment, live) for segment, live in self._live if 2 * _rows(segment, live) < segment.rows
        ]
        if not self._missing and not mostly_stale:
            return
        self._segments.append(self._write([*self._merged(mostly_stale), *mostly_stale]))
        self._choose_segments()

    def delete_obsolete(self) -> None:
        """Delete the segments that were not needed when this index was opened.

        Call it only once the state is saved: until then an interrupted run needs the keys of earlier files. Segments
        that this run made obsolete are left for the next run, since a reader may be about to read them.
        """
        self._storage.delete_all(file.path for file in self._listed if file.path not in self._needed)

    def _choose_segments(self) -> None:
        """Choose segments so that each file's keys are used once, larger segments first."""
        files = {date: _fingerprints(partition) for date, partition in self._partitions.items()}
        indexed: dict[dt.date, set[str]] = {date: set() for date in files}
        self._live: list[tuple[Segment, set[dt.date]]] = []
        for segment in sorted(self._segments, key=lambda each: (-each.rows, each.file.path)):
            live = {
                date
                for date, contents in segment.dates.items()
                if date in files and contents.files <= files[date].keys() - indexed[date]
            }
            for date in live:
                indexed[date] |= segment.dates[date].files
            if live:
                self._live.append((segment, live))
        self._missing = {
            date: partition.with_files(files[date][each] for each in files[date] if each not in indexed[date])
            for date, partition in self._partitions.items()
            if files[date].keys() - indexed[date]
        }
        if not hasattr(self, "_needed"):
            self._needed = {segment.file.path for segment, _ in self._live}

    def _merged(self, mostly_stale: list[tuple[Segment, set[dt.date]]]) -> list[tuple[Segment, set[dt.date]]]:
        # How many rows the missing files have is known only once they are read; their sizes are a good estimate.
        total = _estimate(self._missing.values())
        chosen = []
        for segment, live in reversed(self._live):
            rows = _rows(segment, live)
            if (segment, live) not in mostly_stale and rows <= max(GROWTH * total, ALWAYS_MERGED_ROWS):
                chosen.append((segment, live))
                total += rows
        return chosen

    def _write(self, merged: list[tuple[Segment, set[dt.date]]]) -> Segment:
        """Write and return a segment, date by date, so that never more than two dates are in memory."""
        # Imported here, since a run that finds no new file needs no pyarrow.
        import pyarrow as pa
        import pyarrow.parquet as pq

        dates = sorted({date for _, live in merged for date in live} | self._missing.keys())
        local = self._storage.scratch(".parquet")
        contents: dict[dt.date, Contents] = {}
        schema = pa.schema([(DATE, pa.date32()), (HASH, pa.uint64())])
        # Differences of sorted hashes are small, and a row group has few dates: compression would save nothing.
        packed = {HASH: "DELTA_BINARY_PACKED"}
        with (
            writing(local),
            pq.ParquetWriter(
                local, schema, compression="none", use_dictionary=[DATE], column_encoding=packed
            ) as writer,
        ):
            # Writing uses one core, reading and sorting the next date the other.
            for date, (sorted_hashes, files) in map_ahead(
                lambda date: self._sorted_hashes(date, merged), dates
            ):
                contents[date] = Contents(len(sorted_hashes), files)
                if len(sorted_hashes):
                    rows = pl.select(pl.lit(date).alias(DATE), sorted_hashes)
                    writer.write_table(rows.to_arrow().cast(schema), row_group_size=ROW_GROUP_ROWS)
            writer.add_key_value_metadata({METADATA_KEY: _encoded(contents), SHA256_KEY: ZERO_SHA256})
        embed_sha256(local)
        fingerprints = {
            date.isoformat(): ",".join(sorted(of_date.files)) for date, of_date in contents.items()
        }
        path = paths.index(self._meter, f"{HASHED_BY}-{fingerprint(fingerprints)}")
        return Segment(self._storage.publish_file(path, local, keep=True), contents)

    def _sorted_hashes(
        self, date: dt.date, merged: list[tuple[Segment, set[dt.date]]]
    ) -> tuple[pl.Series, frozenset[str]]:
        """Return a date's sorted hashes from merged segments and new files, and the fingerprints of their files."""
        parts = [(segment, segment.dates[date]) for segment, live in merged if date in live]
        frames = [self._scan(segment).filter(pl.col(DATE) == date) for segment, _ in parts]
        files = frozenset(file for _, part in parts for file in part.files)
        if date in self._missing:
            frames.append(_keys_of(self._missing[date]))
            files |= _fingerprints(self._missing[date]).keys()
        return pl.concat(frames).select(HASH).collect(engine="streaming")[HASH].sort(), files

    def _scan(self, segment: Segment) -> pl.LazyFrame:
        return self._storage.scan([segment.file]).select(list(KEYS))


def key_hashes(partition: Partition) -> pl.Series:
    """Return the hashes of all keys in the partition, in valid rows or not, from its events."""
    return _keys_of(partition).select(HASH).collect(engine="streaming")[HASH]


def file_fingerprint(name: str, identity: str) -> str:
    """Return the fingerprint by which the index names an event file."""
    return fingerprint({name: identity})


def _open_segments(storage: Storage, files: Iterable[StoredFile]) -> list[Segment]:
    current = [file for file in files if file.path.rsplit("/", 1)[-1].startswith(f"{HASHED_BY}-")]
    storage.prefetch(current, whole=True)
    segments = []
    for file in current:
        dates = _decoded(storage, file)
        if dates is not None:
            segments.append(Segment(file, dates))
    return segments


def _decoded(storage: Storage, file: StoredFile) -> dict[dt.date, Contents] | None:
    """Return a segment's contents by date; None if it is damaged, so that its files are indexed again."""
    try:
        body = storage.metadata(file).get(METADATA_KEY, "")
        return decode(body, dict[dt.date, Contents], "not a segment of the key index", where=file.path)
    except (BrokenLakeError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None


def _encoded(contents: Mapping[dt.date, Contents]) -> bytes:
    plain = {date: {"rows": each.rows, "files": sorted(each.files)} for date, each in contents.items()}
    return msgspec.json.encode(plain)


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
