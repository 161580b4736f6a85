"""Raw events as they lie in the lake: which files make up a partition, and their rows as one lazy frame."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from lake import paths
from lake.storage import Storage, StoredFile
from schemas.errors import BadInputError, MeterlakeError
from schemas.meter import Meter
from schemas.rules import (
    Rule,
    detail,
    event_rules,
    keeps,
    normalised,
    normalised_measured,
    partition_rule,
    reason,
)
from schemas.tables import Event, column_types

ROW = "row"
MAX_REASON_CHARS = 200


@dataclass(frozen=True)
class Partition:
    """All events of one meter on one UTC date: the Parquet files that make it up, in order of their names."""

    storage: Storage
    meter: Meter
    date: dt.date
    files: tuple[StoredFile, ...] = field(default=())

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each file, by its name in the partition's folder."""
        return {file.path.rsplit("/", 1)[-1]: file.identity for file in self.files}

    def only(self, files: Iterable[StoredFile]) -> Partition:
        """The same partition with some of its files."""
        return Partition(self.storage, self.meter, self.date, tuple(files))

    def rows(self, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Every row, valid or not: the event columns, trimmed, and `row`, its position in the partition.

        `where` is a condition on columns as they lie in the files; where few rows meet it, little else is read.
        """
        chosen = self._stored() if where is None else self._stored().filter(where)
        return chosen.with_columns(*normalised(self.meter))

    def keys(self) -> pl.LazyFrame:
        """The trimmed idempotency keys of all rows that have one, valid or not."""
        if not self.files:
            return pl.LazyFrame(schema={"idempotency_key": pl.String()})
        key = pl.col("idempotency_key")
        trimmed = self.storage.scan(self.files, extra_columns="ignore").select(key.str.strip_chars())
        return trimmed.filter(key != "")

    def coded(self) -> pl.LazyFrame:
        """What is measured of every row, valid or not, and `row`: keys, quantity and times.

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
        """The rows that keep every rule of an event, with `row`; `where` as for `rows`."""
        return self.rows(where).filter(keeps(self._rules))

    def invalid(self) -> pl.LazyFrame:
        """The rows that break a rule, with `row`, `reason` and `detail`."""
        return (
            self.rows()
            .with_columns(reason(self._rules), detail(self._rules))
            .filter(pl.col("reason").is_not_null())
        )

    def _stored(self) -> pl.LazyFrame:
        """Every row as it lies in the files, and `row`."""
        columns = event_columns(self.meter)
        if not self.files:
            return pl.LazyFrame(schema={**columns, ROW: pl.UInt32()})
        return self.storage.scan(
            self.files,
            schema=columns,
            missing_columns="insert",
            extra_columns="ignore",
            row_index_name=ROW,
        ).select(*columns, ROW)

    @property
    def _rules(self) -> list[Rule]:
        return [*event_rules(self.meter), partition_rule(self.date)]


def fingerprint(identities: Mapping[str, str], *more: str) -> str:
    """Sixteen hex digits that change whenever one of these files does, or one of the further texts."""
    said = [*more, *(f"{name}|{identity}" for name, identity in sorted(identities.items()))]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def event_columns(meter: Meter) -> dict[str, pl.DataType]:
    """Columns and types of a meter's event files: `Event`'s, with the dimensions before `metadata`."""
    columns = column_types(Event)
    metadata = columns.pop("metadata")
    return columns | meter.dimension_dtypes | {"metadata": metadata}


def optional_columns(meter: Meter) -> set[str]:
    """Columns that a producer may leave out of a file; they read as null."""
    return {"metadata", *(d.name for d in meter.dimensions if not d.needs_value)}


def check_file(storage: Storage, meter: Meter, file: StoredFile) -> MeterlakeError | None:
    """What is wrong with the structure of a producer's file, or None. Reads its footer only."""
    try:
        found = storage.schema(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        return BadInputError(
            "unreadable file",
            where=file.path,
            expected="a Parquet file",
            found=f"{file.size_bytes} bytes: {str(error).splitlines()[0][:MAX_REASON_CHARS]}",
            hint="replace or remove the file; it is left where it is and not counted",
        )
    for name, dtype in event_columns(meter).items():
        if name not in found and name in optional_columns(meter):
            continue
        if found.get(name) != dtype:
            return BadInputError(
                f"column {name!r} is wrong",
                where=file.path,
                expected=str(dtype),
                found=str(found.get(name, "no such column")),
                hint="replace or remove the file; it is left where it is and not counted",
            )
    return None


def by_date(files: Iterable[StoredFile]) -> tuple[dict[dt.date, list[StoredFile]], list[MeterlakeError]]:
    """Return the listed event files of one meter by date, and an error for every file that no partition can hold.

    Files and folders whose names begin with `_` or `.` are other programs' and are passed over, as Hive readers do.
    """
    dates: dict[dt.date, list[StoredFile]] = {}
    strays: list[MeterlakeError] = []
    for file in files:
        if paths.is_hidden(file.path):
            continue
        place = paths.split_partition(file.path)
        if place and place.file.endswith(".parquet"):
            dates.setdefault(place.date, []).append(file)
        else:
            strays.append(
                BadInputError(
                    "stray file",
                    where=file.path,
                    expected="date=YYYY-MM-DD/<name>.parquet directly below the meter's folder",
                    found="/".join(file.path.split("/")[2:]) or file.path,
                    hint="move or remove the file; it is left where it is and not counted",
                )
            )
    return dates, strays


def by_meter_folder(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    """Return the listed event files by what lies directly in `events/`: a folder such as `events/meter=m/`, or a file."""
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        first, slash, _ = file.path.removeprefix(paths.EVENTS).partition("/")
        found.setdefault(f"{paths.EVENTS}{first}{slash}", []).append(file)
    return found


def find_strays(folders: Mapping[str, Sequence[StoredFile]]) -> list[MeterlakeError]:
    """Return an error for each of these folders of `events/`, which are no defined meter's, and for files beside them."""
    return [
        BadInputError(
            "stray files in the folder of events",
            where=folder,
            expected="meter=<encoded name>/ of a meter that is defined",
            found=f"{len(files):,} {'file' if len(files) == 1 else 'files'}",
            hint="define the meter with: meterlake meter add FILE; or move the files away; they are not counted",
        )
        for folder, files in sorted(folders.items())
        if not paths.is_hidden(folder)
    ]
