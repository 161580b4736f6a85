"""Raw events as they lie in the lake: which files make up a partition, and their rows as one lazy frame."""

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
    # Names of those whose types are not the lake's own, so that they are converted while they are read.
    converted: frozenset[str] = frozenset()

    @property
    def file_identities(self) -> dict[str, str]:
        """The identity of each file, by its name in the partition's folder."""
        return {_file_name(file): file.identity for file in self.files}

    def with_files(self, files: Iterable[StoredFile]) -> Partition:
        """Return the same partition with some of its files."""
        return dataclasses.replace(self, files=tuple(files))

    def rows(self, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return every row, valid or not: the event columns, trimmed, and `row`, its position in the partition.

        `where` is a condition on columns as they lie in the files; where few rows meet it, little else is read.
        """
        stored = self._stored().drop(AS_WRITTEN)
        chosen = stored if where is None else stored.filter(where)
        return chosen.with_columns(*normalised(self.meter))

    def rows_as_written(self) -> pl.LazyFrame:
        """Return the columns of `rows`, and `#given`: the quantity as it is written, of whatever type."""
        given = pl.coalesce(AS_WRITTEN, pl.col("quantity").cast(pl.String)).alias(AS_WRITTEN)
        return self._stored().with_columns(*normalised(self.meter), given)

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
        """Return what is measured of every row, valid or not, and `row`: keys, quantity and times.

        Text of a key is Categorical: read, grouped and kept at the price of small numbers. The subject is as it lies
        in the file: where it is to be trimmed it breaks the rule of a subject, and to look at each one is enough.
        """
        keys = {"subject": pl.String(), **self.meter.dimension_dtypes}
        # Their own categories, so that memory holds the texts of no other partition.
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
        """Return the rows that break a rule, with `row`, `reason`, `detail` and `#given`, the quantity as it is written."""
        rules = [
            rule._replace(found=pl.col(AS_WRITTEN)) if rule.reason == "quantity_invalid" else rule
            for rule in self._rules
        ]
        rows = self.rows_as_written().with_columns(reason(rules), detail(rules))
        return rows.filter(pl.col("reason").is_not_null())

    def _stored(self) -> pl.LazyFrame:
        """Return every row as it lies in the files, `row`, and `#given`, where the quantity was not of the lake's type."""
        columns = event_columns(self.meter)
        given = pl.lit(None, pl.String).alias(AS_WRITTEN)
        if not self.files:
            return pl.LazyFrame(schema={**columns, ROW: pl.UInt32(), AS_WRITTEN: pl.String()})
        runs = list(self._runs())
        if runs == [(False, list(self.files))]:
            return self._scan(self.files, row_index_name=ROW).select(*columns, ROW, given)
        rows = [
            _converted(self.storage, run[0], columns).select(*columns, AS_WRITTEN)
            if converted
            else self._scan(run).select(*columns, given)
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
        """The files in order, those that are scanned as they are together, those that are converted one by one."""
        for converted, run in groupby(self.files, lambda file: _file_name(file) in self.converted):
            files = list(run)
            yield from ((True, [file]) for file in files) if converted else [(False, files)]

    @property
    def _rules(self) -> list[Rule]:
        return [*event_rules(self.meter), partition_rule(self.date)]


def fingerprint(identities: Mapping[str, str], *more: str) -> str:
    """Return sixteen hex digits that change whenever one of these files does, or one of the further texts."""
    said = [*more, *(f"{name}|{identity}" for name, identity in sorted(identities.items()))]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def optional_columns(meter: Meter) -> set[str]:
    """Return columns that a producer may leave out of a file; they read as null."""
    quantity = set() if meter.needs_quantity else {"quantity"}
    return {"metadata", *quantity, *(d.name for d in meter.dimensions if not d.needs_value)}


def check_file(storage: Storage, meter: Meter, file: StoredFile) -> FileCheck:
    """Return what is wrong with the structure of a producer's file, or how it is to be read. Reads its footer only."""
    # It loads pyarrow, which a run that finds no new file does without.
    from lake.events.producer_files import check_columns

    return check_columns(storage, file, event_columns(meter), optional_columns(meter))


def _converted(storage: Storage, file: StoredFile, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    from lake.events.producer_files import converted_rows

    return converted_rows(storage, file, columns)


def _file_name(file: StoredFile) -> str:
    return file.path.rsplit("/", 1)[-1]
