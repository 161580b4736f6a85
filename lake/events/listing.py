"""Files that stand for others: which of the files that are there hold the rows of others that are there still.

A compacted file names in its footer the files whose rows it holds, so publishing it is the one step by which they are
replaced: from then on they are passed over wherever files are listed, until a later run removes them. What it names
includes what the files named that it replaces itself, so it stands for all of them in whatever order they go.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import polars as pl

from lake import paths
from lake.decoding import Moment, check_moments, decode
from lake.events.partition import fingerprint
from lake.partition_files import by_date, unlisted_dates
from lake.state.changes import file_name, known_files
from lake.state.records import MeterState, PartitionState
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import ATTEMPTS, FilesChangedError, files_changed_error, is_missing_file
from schemas.errors import BadInputError, BrokenLakeError, MeterlakeError, StorageError

METADATA_KEY = "meterlake-compacted"
# For so long a reader may go on reading the files that it has listed.
GRACE = dt.timedelta(hours=1)
_NAME = re.compile(re.escape(paths.COMPACTED) + r"[0-9a-f]{16}\.parquet")


class Compacted(msgspec.Struct, frozen=True):
    """What a compacted file says of itself: when it was made, and the identities of the files it replaces, by name."""

    at: Moment
    replaces: dict[str, str]

    def __post_init__(self) -> None:
        """Raise ValueError for a moment that no run has written, and for a file in another folder."""
        check_moments(self.at)
        paths.check_stored_names(self.replaces)


class CurrentFiles(NamedTuple):
    """The files that count by date, the replaced ones with the moment when they were, and files that can't count."""

    files: dict[dt.date, list[StoredFile]]
    replaced: dict[StoredFile, dt.datetime]
    unexpected: list[MeterlakeError]


def list_events(storage: Storage, meter: str, state: MeterState) -> CurrentFiles:
    """Return the event files of a meter. Raises FilesChangedError if they change faster than they can be listed."""
    for _ in range(1, ATTEMPTS):
        with suppress(FilesChangedError):
            return current_files(storage, storage.list(paths.events(meter)), state)
    return current_files(storage, storage.list(paths.events(meter)), state)


def current_files(storage: Storage, listed: Iterable[StoredFile], state: MeterState) -> CurrentFiles:
    """Return which of the listed files of one meter count.

    The footers of compacted files are read only where the files of a date are not those of its record: there is
    nothing to pass over where all are counted. A damaged one is among the strays, as is a file that came back. Raises
    FilesChangedError if a compacted one is gone: what it stood for may be gone too, or be there again.
    """
    listed = list(listed)
    files, strays = by_date(listed)
    for date, folder in unlisted_dates(listed).items():
        files |= _as_recorded(folder, date, state.partitions.get(date))
    replaced: dict[StoredFile, dt.datetime] = {}
    for date, there in files.items():
        ours = [file for file in there if f"/{paths.COMPACTED}" in file.path and is_compacted(file)]
        if not ours or _are_known(there, state.partitions.get(date)):
            continue
        said = [_said_or_error(storage, file) for file in ours]
        errors = {error.where: error for error in said if isinstance(error, MeterlakeError)}
        held = [each for each in said if isinstance(each, Compacted)]
        names = {name: (identity, each.at) for each in held for name, identity in each.replaces.items()}
        for file in there:
            identity, since = names.get(file_name(file), (None, None))
            if identity == file.identity and since:
                replaced[file] = since
            elif identity:
                errors[file.path] = _came_back(file)
        files[date] = [file for file in there if file not in replaced and file.path not in errors]
        strays += errors.values()
    # A date with no file that counts has none, as if it were not listed.
    return CurrentFiles({date: there for date, there in files.items() if there}, replaced, strays)


def is_compacted(file: StoredFile) -> bool:
    """Return whether a file is a compacted one, by its name."""
    return bool(_NAME.fullmatch(file_name(file)))


def compacted_name(replaces: Mapping[str, str]) -> str:
    """Return the name of the file that stands for these."""
    return f"{paths.COMPACTED}{fingerprint(replaces)}.parquet"


def read_compacted(storage: Storage, file: StoredFile) -> Compacted:
    """Return what a compacted file says of itself. Raises BadInputError if it is damaged, FilesChangedError if it is gone."""
    found = "other files than its name tells of"
    try:
        record = storage.metadata(file).get(METADATA_KEY, "")
        said = decode(record, Compacted, "not the record of a compacted file", where=file.path)
        if file_name(file) == compacted_name(said.replaces):
            return said
    except (
        BrokenLakeError,
        StorageError,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
    ) as error:
        if is_missing_file(error):
            raise files_changed_error(file) from error
        if isinstance(error, StorageError):
            raise
        found = str(error).splitlines()[0]
    raise BadInputError(
        "a compacted file is damaged",
        where=file.path,
        expected="a Parquet file whose footer names the files whose rows it holds",
        found=found,
        hint="restore it from a backup, or remove it if the files that it was made of are still there; it is not counted",
    )


def remove_replaced(storage: Storage, replaced: Mapping[StoredFile, dt.datetime], now: dt.datetime) -> int:
    """Remove the files that were replaced longer ago than any reader reads on; return their size in bytes."""
    gone = [file for file, since in replaced.items() if since + GRACE <= now and not file.linked]
    storage.delete_all(file.path for file in gone)
    return sum(file.size_bytes for file in gone)


def _as_recorded(
    folder: StoredFile, date: dt.date, record: PartitionState | None
) -> dict[dt.date, list[StoredFile]]:
    """Return the files of a date whose folder can't be listed: as far as anybody knows they are there still."""
    if record is None or record.sealed_at:
        return {}
    known = sorted(known_files(record).items())
    return {date: [folder._replace(path=f"{folder.path}/{name}", identity=said) for name, said in known]}


def _are_known(listed: Sequence[StoredFile], record: PartitionState | None) -> bool:
    known = known_files(record) if record else {}
    return len(listed) == len(known) and all(known.get(file_name(file)) == file.identity for file in listed)


def _said_or_error(storage: Storage, file: StoredFile) -> Compacted | MeterlakeError:
    try:
        return read_compacted(storage, file)
    except BadInputError as error:
        return error


def _came_back(file: StoredFile) -> MeterlakeError:
    return BadInputError(
        "a file whose rows were merged into another came back changed",
        where=file.path,
        expected="no file of this name, or the one that was merged",
        found=f"another of {file.size_bytes} bytes",
        hint="if it is the merged file, as after copying the lake, remove it; if its events are new, land them "
        "under another name; it is left where it is and not counted",
    )
