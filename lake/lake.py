"""A lake as people open it: its meters, its events, and its aggregate tables as lazy frames."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import msgspec
import polars as pl

from lake import exported, paths, readers
from lake.decoding import decode
from lake.meters import load_meter, load_meters
from lake.query import compound
from lake.query.question import QueryOptions, Question
from lake.query.time_buckets import UTC, instant
from lake.storage import Storage, open_storage
from schemas.errors import BrokenLakeError, MeterlakeError
from schemas.meter import Meter

# What this version writes; programs that know only an earlier format refuse the lake then.
FORMAT = 2
EARLIEST_FORMAT = 1


class _Marker(msgspec.Struct):
    """The lake's marker."""

    meterlake: int


class Lake:
    """A lake at a URL. Raises BrokenLakeError if there is none there; `Lake.init` makes one."""

    def __init__(
        self, url: str, storage_options: Mapping[str, str] | None = None, *, storage: Storage | None = None
    ) -> None:
        """Open an existing lake. `storage_options` are those of `--storage-option`, by name.

        `storage` is one that has been opened already, which spares opening another.
        """
        self.storage: Storage = storage or open_storage(url, storage_options)
        self.url = self.storage.url
        marker = self.storage.read(paths.MARKER)
        if marker is None:
            raise BrokenLakeError(
                "no lake here", where=self.url, hint=f"make one with: meterlake --lake {self.url} init"
            )
        self.format = _format_of(marker, self.url)

    @classmethod
    def init(cls, url: str, storage_options: Mapping[str, str] | None = None) -> Lake:
        """Make an empty lake, or open the one that exists, and return it."""
        storage = open_storage(url, storage_options)
        storage.create(paths.MARKER, _marker())
        return cls(url, storage=storage)

    def upgrade(self) -> None:
        """Mark a lake of an earlier format as one of this version's, which earlier programs refuse.

        Every job does so before it writes anything else; readers do not. Raises BrokenLakeError where a newer program
        has upgraded the lake meanwhile.
        """
        if self.format == FORMAT:
            return
        self.format = _format_of(self.storage.read(paths.MARKER) or b"", self.url)
        if self.format < FORMAT:
            self.storage.publish(paths.MARKER, _marker())
            self.format = FORMAT

    def over(self, storage: Storage) -> Lake:
        """Return the same lake on another storage, such as one that writes only while a lease is held."""
        other = copy.copy(self)
        other.storage = storage
        return other

    def meters(self, on_error: Callable[[MeterlakeError], None] | None = None) -> list[Meter]:
        """Return all meter definitions, sorted by name.

        The error of one that can't be read is passed to `on_error`; without it, it is raised as BrokenLakeError.
        """
        return load_meters(self.storage, on_error)

    def meter(self, name: str) -> Meter:
        """Return one meter definition. Raises BadInputError listing the known names if there is none."""
        return load_meter(self.storage, name)

    def raw_events(
        self, meter: str, since: dt.date | None = None, until: dt.date | None = None
    ) -> pl.LazyFrame:
        """Return every landed row of a meter with since <= date < until, duplicates and invalid rows of producers included.

        `date`, then the columns of section "Events" of docs/reference/tables.md.
        """
        return readers.raw_events(self.storage, self.meter(meter), (since, until))

    def events(self, meter: str, since: dt.date | None = None, until: dt.date | None = None) -> pl.LazyFrame:
        """Return the events that count: valid, and one for each idempotency key. Columns as `raw_events`.

        Duplicates are searched for across all dates when the frame is made, whatever range is asked for, so the result
        is right on a lake that has not been aggregated yet. Events of sealed partitions are gone.
        """
        return readers.events(self.storage, self.meter(meter), (since, until))

    def duplicates(
        self, meter: str, since: dt.date | None = None, until: dt.date | None = None
    ) -> pl.LazyFrame:
        """Return the duplicates that do not count, with columns of their winner.

        `conflict` marks those with another subject, quantity or dimension than the winner.
        """
        return readers.duplicates(self.storage, self.meter(meter), (since, until))

    def partitions(self, meter: str) -> pl.LazyFrame:
        """Return the counts of the last aggregation by date: winning `events`, `duplicates`, `conflicts`, `invalid` rows.

        Columns: `date`, these counts, and `sealed_at`, which is null until retention drops the date's raw events. Sorted
        by date.
        """
        return readers.partitions(self.storage, self.meter(meter))

    def quarantine(self, meter: str | None = None) -> pl.LazyFrame:
        """Return the rejected rows of one meter, or of the whole lake, with their reason and original text.

        Columns: `meter` as in the row, null for rows without one; `date` of rejection; `reason`, `detail`, `raw`,
        `source`, `position` and `landed_at`. Sorted by meter, date and file.
        """
        return readers.quarantine(self.storage, meter)

    def revisions(self, meter: str, period: str | None = None) -> pl.LazyFrame:
        """Return the billing revisions of a month such as `2026-06`, or of all months, in the usual form.

        Columns: `period`, `revision`, `kind` (`usage`, or `adjustments` after the close), `rows`, `changed_dates` (whose
        inputs differ from the revision before), `meter_version`, `closed`. Sorted by month and number. Raises
        BrokenLakeError for a manifest that was changed after the next revision named it.
        """
        return exported.revisions(self.storage, self.meter(meter).name, period).lazy()

    def exported(
        self, meter: str, period: str, revision: int | None = None, table: str | None = None
    ) -> pl.LazyFrame:
        """Return the rows of a month's revision, by default the last: its `usage`, or after the close `adjustments`.

        Raises BrokenLakeError if a file of the revision was changed, and BadInputError if there is no such export.
        """
        return exported.exported(self.storage, self.meter(meter).name, period, revision, table)

    def usage(self, meter: str, since: dt.date | None = None, until: dt.date | None = None) -> pl.LazyFrame:
        """Return daily usage by subject and all dimensions: `date`, the keys, the measures; sorted by date and keys."""
        return readers.aggregate_rows(self.storage, self.meter(meter), "usage", (since, until))

    def usage_by_subject(
        self, meter: str, since: dt.date | None = None, until: dt.date | None = None
    ) -> pl.LazyFrame:
        """Return daily usage by subject: `date`, `subject`, the measures; sorted by date and subject."""
        return readers.aggregate_rows(self.storage, self.meter(meter), "usage_by_subject", (since, until))

    def usage_by_dimension(
        self, meter: str, since: dt.date | None = None, until: dt.date | None = None
    ) -> pl.LazyFrame:
        """Return daily usage by the values of each dimension: `date`, `dimension`, `value`, `subjects`, the measures.

        Sorted by date, dimension and value.
        """
        return readers.aggregate_rows(self.storage, self.meter(meter), "usage_by_dimension", (since, until))

    def totals(
        self,
        meter: str,
        by: Sequence[str] = (),
        since: dt.date | None = None,
        until: dt.date | None = None,
    ) -> pl.LazyFrame:
        """Return usage over all the dates together by subject or dimensions, merged exactly from the daily rows.

        The columns of `by`, then the measures, with `quantity` as the meter's aggregation has it: the month of a
        `max` meter is its greatest quantity. The bucket of a `rate` meter is all dates from the first to the last
        that are asked for, or that have rows. Sorted by `by`.
        """
        return readers.totals(self.storage, self.meter(meter), list(by), (since, until))

    def query(
        self,
        meter: str,
        since: dt.date | dt.datetime,
        until: dt.date | dt.datetime,
        *,
        by: Sequence[str] = (),
        **options: Unpack[QueryOptions],
    ) -> pl.LazyFrame:
        """Return usage of since <= time < until in buckets, by subject and dimensions.

        Keywords, all optional, with their defaults:
            by: the fields to group by, of `subject` and the dimensions.
            bucket ("day"): `hour`, `day`, `week`, `month`, `quarter`, `year` or `none`.
            zone ("UTC"): an IANA name; dates begin at midnight there, and so do buckets of a day and longer.
            where (None): a filter, see docs/reference/filters.md.
            top (None): how many groups to return, those with the greatest quantity over the whole range.
            fill (False): also return empty buckets, with 0 of what adds up, and of a gauge its last quantity before.
            measures (False): also return the other measures.
            distinct (None): a field whose distinct values are counted in place of the quantity.
            rolling (None): of how many days, which end with each day, the distinct values are counted.
            share (False): also return `share`, the part of the bucket's total.
            compare (None): `"previous"` also returns `usage_before`, that of the bucket before, `usage_change` and
                `usage_state` (new, active, returned, lost).
            over (None): the name of another meter; also returns its `over_quantity` and the `ratio` to it.

        Columns: `bucket_start`, `bucket_end`, the fields of `by`, `quantity` or `distinct`, `events`, then those that
        were asked for. Sorted by bucket, then by rank or fields. Raises BadInputError for a wrong question, and
        RefusedError where only raw events could answer and retention has dropped them.
        """
        definition, zone = self.meter(meter), options.get("zone", UTC)
        question = Question(since=instant(since, zone), until=instant(until, zone), by=tuple(by), **options)
        return compound.run_query(self.storage, definition, question).rows.lazy()

    def values(
        self, meter: str, dimension: str, since: dt.date | None = None, until: dt.date | None = None
    ) -> pl.LazyFrame:
        """Return the values of a dimension, or of `subject`, and how many events have each.

        `value` as text, null for events that have none, and `events`; the most frequent first, then by value.
        """
        return readers.values(self.storage, self.meter(meter), dimension, (since, until))


def _marker() -> bytes:
    return f'{{"meterlake": {FORMAT}}}\n'.encode()


def _format_of(marker: bytes, url: str) -> int:
    """Return the format that a marker names. Raises BrokenLakeError if this version can't read it."""
    what, where = "this lake was made by another program or version", f"{url}/{paths.MARKER}"
    expected = f'{{"meterlake": {FORMAT}}}'
    found = decode(marker, _Marker, what, where=where, expected=expected).meterlake
    if not EARLIEST_FORMAT <= found <= FORMAT:
        raise BrokenLakeError(
            what,
            where=where,
            expected=f"a format from {EARLIEST_FORMAT} to {FORMAT}",
            found=f"format {found}",
            hint="a newer version has written to this lake: upgrade meterlake here" if found > FORMAT else "",
        )
    return found
