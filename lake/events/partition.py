"""A partition of raw events: its files, and their rows as one lazy frame."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.storage import Storage, StoredFile
from schemas.columns import ROW, event_columns
from schemas.event_rules import (
    Rule,
    detail,
    event_rules,
    keeps,
    normalised,
    normalised_measured,
    partition_rule,
    reason,
)
from schemas.fields import AS_WRITTEN
from schemas.meter import Meter

if TYPE_CHECKING:
    from lake.events.producer_files import FileCheck


@dataclasses.dataclass(frozen=True)
class Partition:
    """All events of one meter on one UTC date: the Parquet files that make it up, in order of their names."""

    storage: Storage
    meter: Meter
    date: dt.date
    files: tuple[StoredFile, ...] = ()
    # Names of the files whose types are not the lake's own, which are converted while they are read.
    converted: frozenset[str] = frozenset()

    @property
    def file_identities(self) -> dict[str, str]:
        """The identity of each file, by its name in the partition's folder."""
        return {_file_name(file): file.identity for file in self.files}

    def with_files(self, files: Iterable[StoredFile]) -> Partition:
        """Return the same partition with only these of its files."""
        return dataclasses.replace(self, files=tuple(files))

    def rows(self, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return every row, valid or not: the event columns, trimmed, and `row`, its position in the partition.

        `where` is a condition on the columns as stored; where few rows meet it, little else is read.
        """
        stored = self._stored().drop(AS_WRITTEN)
        selected = stored if where is None else stored.filter(where)
        return selected.with_columns(*normalised(self.meter))

    def rows_as_written(self) -> pl.LazyFrame:
        """Return the columns of `rows`, and `#as_written`: the text of the quantity as stored, whatever its type."""
        as_written = pl.coalesce(AS_WRITTEN, pl.col("quantity").cast(pl.String)).alias(AS_WRITTEN)
        return self._stored().with_columns(*normalised(self.meter), as_written)

    def keys(self) -> pl.LazyFrame:
        """Return the trimmed idempotency keys of all rows that have one, valid or not."""
        if not self.files:
            return pl.LazyFrame(schema={"idempotency_key": pl.String()})
        key = pl.col("idempotency_key")
        runs = [
            _converted(self.storage, run[0], event_columns(self.meter))
            if converted
            else self.storage.scan(run, extra_columns="ignore")
            for converted, run in self._runs()
        ]
        return pl.concat([rows.select(key.str.strip_chars()) for rows in runs]).filter(key != "")

    def measured_rows(self) -> pl.LazyFrame:
        """Return the measured columns of every row, valid or not: `row`, subject, dimensions, quantity and times.

        Text is Categorical, which is read, grouped and stored at the cost of small numbers. The subject is not trimmed:
        one that needs trimming breaks the rule of a subject, which is checked once for each distinct subject.
        """
        keys = {"subject": pl.String(), **self.meter.dimension_dtypes}
        # Categories of this partition alone, so that no other partition's texts stay in memory.
        coded = [
            pl.col(name).cast(pl.Categorical(pl.Categories.random()))
            if dtype == pl.String()
            else pl.col(name)
            for name, dtype in keys.items()
        ]
        rows = self._stored().with_columns(*normalised_measured(self.meter))
        return rows.select(ROW, *coded, "quantity", "timestamp", "received_at")

    def valid(self, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return the rows that keep every rule of an event, with `row`; `where` as for `rows`."""
        return self.rows(where).filter(keeps(self._rules))

    def invalid(self) -> pl.LazyFrame:
        """Return the rows that break a rule, with `row`, `reason`, `detail` and `#as_written`, the stored quantity."""
        rules = [
            rule._replace(found=pl.col(AS_WRITTEN)) if rule.reason == "quantity_invalid" else rule
            for rule in self._rules
        ]
        rows = self.rows_as_written().with_columns(reason(rules), detail(rules))
        return rows.filter(pl.col("reason").is_not_null())

    def _stored(self) -> pl.LazyFrame:
        """Return every stored row with `row` and `#as_written`, which is null for a quantity of the lake's own type."""
        columns = event_columns(self.meter)
        as_written = pl.lit(None, pl.String).alias(AS_WRITTEN)
        if not self.files:
            return pl.LazyFrame(schema={**columns, ROW: pl.UInt32(), AS_WRITTEN: pl.String()})
        runs = list(self._runs())
        if runs == [(False, list(self.files))]:
            return self._scan(self.files, row_index_name=ROW).select(*columns, ROW, as_written)
        rows = [
            _converted(self.storage, run[0], columns).select(*columns, AS_WRITTEN)
            if converted
            else self._scan(run).select(*columns, as_written)
            for converted, run in runs
        ]
        return pl.concat(rows).with_row_index(ROW).select(*columns, ROW, AS_WRITTEN)

    def _scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        return self.storage.scan(
            files,
            schema=event_columns(self.meter),
            missing_columns="insert",
            extra_columns="ignore",
            **options,
        )

    def _runs(self) -> Iterator[tuple[bool, list[StoredFile]]]:
        """Yield the files in order: runs of those that are scanned as they are, and converted ones one by one."""
        for converted, run in groupby(self.files, lambda file: _file_name(file) in self.converted):
            files = list(run)
            yield from ((True, [file]) for file in files) if converted else [(False, files)]

    @property
    def _rules(self) -> list[Rule]:
        return [*event_rules(self.meter), partition_rule(self.date)]


def fingerprint(identities: Mapping[str, str], *more: str) -> str:
    """Return sixteen hex digits that change when one of these files or one of the further texts changes."""
    lines = [*more, *(f"{name}|{identity}" for name, identity in sorted(identities.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def optional_columns(meter: Meter) -> set[str]:
    """Return the columns that a producer may leave out of a file; they are read as null."""
    quantity = set() if meter.needs_quantity else {"quantity"}
    return {"metadata", *quantity, *(d.name for d in meter.dimensions if not d.needs_value)}


def check_file(storage: Storage, meter: Meter, file: StoredFile) -> FileCheck:
    """Return what is wrong with the structure of a producer's file, or how to read it. Reads its footer only."""
    # Imported here, since a run that finds no new file needs no pyarrow.
    from lake.events.producer_files import check_columns

    return check_columns(storage, file, event_columns(meter), optional_columns(meter))


def _converted(storage: Storage, file: StoredFile, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    from lake.events.producer_files import converted_rows

    return converted_rows(storage, file, columns)


def _file_name(file: StoredFile) -> str:
    return file.path.rsplit("/", 1)[-1]
