"""Which event files of a meter are current, where compacted files have replaced others that still exist.

A compacted file names in its footer the files whose rows it has, so publishing it replaces them in one step: from then
on listings ignore them, until a later run removes them. It also names the files that were replaced by compacted files
which it replaces itself, so it stands for all of them in whatever order they are removed.
"""

from __future__ import annotations

import datetime as dt
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
# How long a reader may go on reading files that it has listed.
GRACE = dt.timedelta(hours=1)


class Compacted(msgspec.Struct, frozen=True):
    """The record in a compacted file: when it was made, and the identities of the files that it replaces, by name."""

    at: Moment
    replaces: dict[str, str]

    def __post_init__(self) -> None:
        """Raise ValueError for a moment that no run writes, and for a file in another folder."""
        check_moments(self.at)
        paths.check_stored_names(self.replaces)


class CurrentFiles(NamedTuple):
    """The files that count by date, replaced files with the time of their replacement, and errors of unexpected files."""

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

    Footers of compacted files are read only where the files of a date differ from its record: otherwise all of them
    count. A damaged compacted file is unexpected, and so is a replaced file that exists with another content. Raises
    FilesChangedError if a compacted file is gone: the files that it replaced may be gone too, or exist again.
    """
    listed = list(listed)
    files, unexpected = by_date(listed)
    for date, folder in unlisted_dates(listed).items():
        files |= _as_recorded(folder, date, state.partitions.get(date))
    replaced: dict[StoredFile, dt.datetime] = {}
    for date, present in files.items():
        compacted_files = [
            file for file in present if f"/{paths.COMPACTED}" in file.path and is_compacted(file)
        ]
        if not compacted_files or _match_record(present, state.partitions.get(date)):
            continue
        contents = [_read_or_error(storage, file) for file in compacted_files]
        errors = {error.where: error for error in contents if isinstance(error, MeterlakeError)}
        readable = [each for each in contents if isinstance(each, Compacted)]
        names = {name: (identity, each.at) for each in readable for name, identity in each.replaces.items()}
        for file in present:
            identity, since = names.get(file_name(file), (None, None))
            if identity == file.identity and since:
                replaced[file] = since
            elif identity:
                errors[file.path] = _changed_error(file)
        files[date] = [file for file in present if file not in replaced and file.path not in errors]
        unexpected += errors.values()
    # A date without files that count is left out, as if it were not listed.
    return CurrentFiles({date: present for date, present in files.items() if present}, replaced, unexpected)


def is_compacted(file: StoredFile) -> bool:
    """Return whether a file is compacted, by its name."""
    return paths.is_compacted(file_name(file))


def compacted_name(replaces: Mapping[str, str]) -> str:
    """Return the name of the compacted file that replaces these files."""
    return paths.compacted_file(fingerprint(replaces))


def read_compacted(storage: Storage, file: StoredFile) -> Compacted:
    """Return the record in a compacted file. Raises BadInputError if it is damaged, FilesChangedError if it is gone."""
    found = "its name does not match its list of files"
    try:
        text = storage.metadata(file).get(METADATA_KEY, "")
        record = decode(text, Compacted, "not the record of a compacted file", where=file.path)
        if file_name(file) == compacted_name(record.replaces):
            return record
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
        expected="a Parquet file whose footer names the files that it replaces",
        found=found,
        hint="restore it from a backup, or remove it if the files that it replaced still exist; it is not counted",
    )


def remove_replaced(storage: Storage, replaced: Mapping[StoredFile, dt.datetime], now: dt.datetime) -> int:
    """Remove the files that were replaced longer ago than any reader reads on; return their size in bytes."""
    expired = [file for file, since in replaced.items() if since + GRACE <= now and not file.linked]
    storage.delete_all(file.path for file in expired)
    return sum(file.size_bytes for file in expired)


def _as_recorded(
    folder: StoredFile, date: dt.date, record: PartitionState | None
) -> dict[dt.date, list[StoredFile]]:
    """Return the files of a date whose folder can't be listed: those of its record, which may still exist."""
    if record is None or record.sealed_at:
        return {}
    known = sorted(known_files(record).items())
    return {
        date: [folder._replace(path=f"{folder.path}/{name}", identity=identity) for name, identity in known]
    }


def _match_record(listed: Sequence[StoredFile], record: PartitionState | None) -> bool:
    known = known_files(record) if record else {}
    return len(listed) == len(known) and all(known.get(file_name(file)) == file.identity for file in listed)


def _read_or_error(storage: Storage, file: StoredFile) -> Compacted | MeterlakeError:
    try:
        return read_compacted(storage, file)
    except BadInputError as error:
        return error


def _changed_error(file: StoredFile) -> MeterlakeError:
    return BadInputError(
        "a file whose rows were merged into another exists again with other content",
        where=file.path,
        expected="no file of this name, or the one that was merged",
        found=f"another of {file.size_bytes} bytes",
        hint="if it is the merged file, as after copying the lake, remove it; if its events are new, land them "
        "under another name; it is left where it is and not counted",
    )
