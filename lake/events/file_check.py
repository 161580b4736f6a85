"""Which files of the open partitions can be read, and what is wrong with the others."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lake import paths
from lake.events.partition import Partition, check_file
from lake.state.changes import file_name
from lake.state.records import READING_RULES, MeterState, PartitionState, RejectedFile
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import changed_files, is_missing_file
from lake.storage.errors import is_storage_failure
from schemas.errors import BadInputError, BrokenLakeError, StorageError
from schemas.meter import Meter

if TYPE_CHECKING:
    from lake.events.producer_files import FileCheck

# By date and name, the files that are not counted.
Rejected = dict[dt.date, dict[str, RejectedFile]]


def readable_partitions(
    storage: Storage, meter: Meter, listed: Mapping[dt.date, Sequence[StoredFile]], state: MeterState
) -> tuple[dict[dt.date, Partition], Rejected]:
    """Return the open partitions with the files that can be read, by date, and what is wrong with the others.

    Reads the footers of files that are not in the state; for others the state decides. A file that is gone when it is
    read, or was replaced and can't be read, is in neither result.
    """
    partitions: dict[dt.date, Partition] = {}
    rejected: Rejected = {}
    for date in sorted(listed.keys() - state.sealed):
        checked = _check_files(storage, meter, listed[date], state.partitions.get(date))
        if checked.unread:
            _ignore_changed(storage, paths.events(meter.name, date), checked)
        readable = tuple(
            file for file in listed[date] if file_name(file) not in checked.bad and file not in checked.unread
        )
        partitions[date] = Partition(storage, meter, date, readable, frozenset(checked.converted))
        rejected[date] = checked.bad
    return partitions, rejected


def find_damaged_files(partitions: dict[dt.date, Partition], rejected: Rejected, dates: set[dt.date]) -> bool:
    """Read every row of these dates' files, and move damaged files from `partitions` to `rejected`.

    Finds files with a valid footer and a broken page. Returns whether there were any.
    """
    before = sum(len(bad) for bad in rejected.values())
    for date in dates & partitions.keys():
        partition = partitions[date]
        for file in partition.files:
            error = _read_whole(partition.with_files([file]))
            if error:
                rejected[date][file_name(file)] = RejectedFile.of(file.identity, error)
        good = [file for file in partition.files if file_name(file) not in rejected[date]]
        partitions[date] = partition.with_files(good)
    return sum(len(bad) for bad in rejected.values()) > before


def recorded_partition(
    storage: Storage, meter: Meter, date: dt.date, files: Iterable[StoredFile], record: PartitionState
) -> Partition:
    """Return the partition with the files that its record counts; reads nothing."""
    counted = tuple(file for file in files if record.files.get(file_name(file)) == file.identity)
    return Partition(storage, meter, date, counted, frozenset(record.converted))


class _FileChecks(NamedTuple):
    """Errors of a partition's files by name, the files that can't be read now, and names of files to convert."""

    bad: dict[str, RejectedFile]
    unread: set[StoredFile]
    converted: set[str]


def _check_files(
    storage: Storage, meter: Meter, files: Sequence[StoredFile], record: PartitionState | None
) -> _FileChecks:
    known = record if record and record.meter_version == meter.version else None
    # Files that earlier rules rejected may be readable now.
    known_errors = known.rejected if known and known.rules == READING_RULES else {}
    result = _FileChecks({}, set(), set())
    for file in files:
        name = file_name(file)
        if name in known_errors and known_errors[name].identity == file.identity:
            result.bad[name] = known_errors[name]
        elif known and known.files.get(name) == file.identity:
            result.converted.update({name} & set(known.converted))
        else:
            check = _check_or_none(storage, meter, file)
            if check is None or check.error:
                result.unread.add(file)
                result.bad.update(
                    {name: RejectedFile.of(file.identity, check.error)} if check and check.error else {}
                )
            elif check.converted:
                result.converted.add(name)
    return result


def _ignore_changed(storage: Storage, folder: str, checked: _FileChecks) -> None:
    """Remove from `bad` the files that have changed since they were listed, which may be right by now."""
    for file in changed_files(storage, folder, checked.unread):
        checked.bad.pop(file_name(file), None)


def _check_or_none(storage: Storage, meter: Meter, file: StoredFile) -> FileCheck | None:
    try:
        return check_file(storage, meter, file)
    except StorageError as error:
        if is_missing_file(error):
            return None
        raise


def _read_whole(partition: Partition) -> BadInputError | None:
    try:
        # Batches are dropped at once: all rows may not fit into memory.
        deque(partition.rows().collect_batches(engine="streaming"), maxlen=0)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, BrokenLakeError) as error:
        if is_storage_failure(error):
            raise
        # Imported here, since a run that finds no damage needs no pyarrow.
        from lake.events.producer_files import damaged_file

        return damaged_file(partition.files[0].path, str(error).splitlines()[0])
    return None
