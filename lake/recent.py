"""The rows of `usage_by_subject` of the dates that nights export, in one small file a meter: one request, not one a date.

A cache, which can't make a number wrong: of each date the rows are taken from it only if their checksum is the one
in the partition's record, and from the partition's own file otherwise, which is held to the same checksum. It is made
anew where it is missing or damaged. A meter with more rows than `MAX_ROWS` has none: its files are read as they are,
one part after the other, since for those the rows cost more than the requests.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterable, Mapping

import polars as pl

from lake import paths
from lake.checksums import rows_checksum, stamp_of, write_stamped
from lake.dedupe.winners import DATE
from lake.state.rebuild import decode_record
from lake.state.records import PartitionState, is_sealed_alike
from lake.storage import Storage, read_each
from schemas.columns import aggregate_columns
from schemas.errors import BrokenLakeError
from schemas.meter import Meter

TABLE = "usage_by_subject"
# Of the dates of an export; some 150 MB.
MAX_ROWS = 500_000
# So many partitions' files are asked for at once.
PARALLEL = 8


class RecentRows:
    """The recent rows of one meter, which are read when they are first asked for."""

    def __init__(self, storage: Storage, meter: Meter) -> None:
        """Nothing is read yet."""
        self._storage, self._meter = storage, meter
        self._path = paths.recent(meter.name)
        self._rows: dict[dt.date, pl.DataFrame] | None = None
        self._stored: dict[dt.date, pl.DataFrame] = {}
        self._is_stored = False

    def of(self, records: Mapping[dt.date, PartitionState]) -> pl.DataFrame | None:
        """Return the rows of these dates: `date`, then the table's columns, in order of date and subject.

        None if there are more than `MAX_ROWS`, or a partition has no checksum or other columns: read them as they
        are then. Raises BrokenLakeError for a partition whose file is not the one that its record tells of.
        """
        if not all(TABLE in record.checksums for record in records.values()):
            return None
        kept = self._load()
        found: dict[dt.date, pl.DataFrame] = {}
        for date, record in records.items():
            if date in kept and rows_checksum(kept[date]) == record.checksums[TABLE]:
                found[date] = kept[date]
        if not self._read_missing(records, found):
            for date in records:
                kept.pop(date, None)
            return None
        kept.update(found)
        frames = [found[date].select(pl.lit(date).alias(DATE), pl.all()) for date in sorted(found)]
        return pl.concat([self._none(), *frames])

    def before(self, since: dt.date, until: dt.date) -> pl.LazyFrame:
        """Return the rows with since <= date < until as the file had them; nobody has compared them with anything."""
        self._load()
        stored = {date: rows for date, rows in self._stored.items() if since <= date < until}
        frames = [rows.select(pl.lit(date).alias(DATE), pl.all()) for date, rows in stored.items()]
        return pl.concat([self._none(), *frames]).lazy()

    def forget(self, since: dt.date, until: dt.date) -> None:
        """Let go of the rows with since <= date < until, which need not be kept."""
        if self._rows is not None:
            self._rows = {date: rows for date, rows in self._rows.items() if not since <= date < until}

    def save(self, periods: Iterable[tuple[dt.date, dt.date]]) -> None:
        """Publish the rows of those dates that are known and within these periods, unless they are what is there."""
        if self._rows is None:
            return
        periods = tuple(periods)
        within = [date for date in self._rows if any(since <= date < until for since, until in periods)]
        wanted = {date: self._rows[date] for date in sorted(within)}
        # Frames are never changed, only replaced.
        if wanted.keys() == self._stored.keys() and all(
            self._stored[date] is wanted[date] for date in wanted
        ):
            return
        if not wanted or sum(rows.height for rows in wanted.values()) > MAX_ROWS:
            if self._is_stored:
                self._storage.delete(self._path)
            return
        frames = [rows.select(pl.lit(date).alias(DATE), pl.all()) for date, rows in wanted.items()]
        local = self._storage.scratch(".parquet")
        write_stamped(pl.concat(frames), local, compression="zstd", compression_level=1)
        self._storage.publish_file(self._path, local)

    def _read_missing(
        self, records: Mapping[dt.date, PartitionState], found: dict[dt.date, pl.DataFrame]
    ) -> bool:
        """Add the rows of dates that are not found, from their own files; False if they are too many."""
        missing = sorted(records.keys() - found.keys())
        for start in range(0, len(missing), PARALLEL):
            dates = missing[start : start + PARALLEL]
            places = [paths.aggregate(TABLE, self._meter.name, date) for date in dates]
            for date, place, body in zip(dates, places, self._storage.read_all(places), strict=True):
                rows = self._checked(body, place, records[date])
                if list(rows.schema.items()) != list(aggregate_columns(self._meter, TABLE).items()):
                    return False
                found[date] = rows
                if sum(rows.height for rows in found.values()) > MAX_ROWS:
                    return False
        return True

    def _checked(self, body: bytes | None, place: str, record: PartitionState) -> pl.DataFrame:
        """Return the rows of a partition's file, which are those that its record tells of."""
        if body is None:
            raise _other(place, record, "no file")
        try:
            there = decode_record(pl.read_parquet_metadata(io.BytesIO(body)))
            rows = pl.read_parquet(io.BytesIO(body), hive_partitioning=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _other(place, record, str(error).splitlines()[0]) from error
        if there is None or there.fingerprint != record.fingerprint:
            raise _other(place, record, f"inputs {there.fingerprint}" if there else "no record")
        checksum = rows_checksum(rows)
        # A run that was interrupted may have published rows of which the state does not know yet.
        own = there.checksums.get(TABLE) if is_sealed_alike(there, record) else None
        if checksum not in (record.checksums[TABLE], own):
            raise BrokenLakeError(
                "the aggregates are not those that were published",
                where=place,
                expected=f"rows of checksum {record.checksums[TABLE]}",
                found=checksum,
                hint=_how_to_mend(record),
            )
        return rows

    def _load(self) -> dict[dt.date, pl.DataFrame]:
        if self._rows is None:
            (body,) = read_each(self._storage, [self._path])
            self._is_stored = body is not None
            # What can't be read is made anew, as what is damaged.
            self._rows = self._decoded(body) if isinstance(body, bytes) else {}
            self._stored = dict(self._rows)
        return self._rows

    def _decoded(self, body: bytes) -> dict[dt.date, pl.DataFrame]:
        """Return the rows by date; none if they are not as they were written, so that they are read anew."""
        said, is_now = stamp_of(body)
        if not said or said != is_now:
            return {}
        try:
            rows = pl.read_parquet(io.BytesIO(body), hive_partitioning=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return {}
        if rows.schema != self._none().schema:
            return {}
        parts = rows.partition_by(DATE, maintain_order=True, include_key=False, as_dict=True)
        return {date: part for (date,), part in parts.items()}

    def _none(self) -> pl.DataFrame:
        return pl.DataFrame(schema={DATE: pl.Date(), **aggregate_columns(self._meter, TABLE)})


def _other(place: str, record: PartitionState, found: str) -> BrokenLakeError:
    return BrokenLakeError(
        "the aggregates are not those of one finished aggregation",
        where=place,
        expected=f"inputs {record.fingerprint}",
        found=found,
        hint=_how_to_mend(record),
    )


def _how_to_mend(record: PartitionState) -> str:
    """Return what helps where a table is not the one of a record that is up to date."""
    return "restore the file from a backup" if record.sealed_at else "run: meterlake aggregate --rebuild"
