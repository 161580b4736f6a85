"""Which of the files that lie in the open partitions can be read, and what is wrong with the others."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lake import paths
from lake.events.partition import Partition, check_file
from lake.state.changes import file_name
from lake.state.records import READING_RULES, MeterState, PartitionState
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import changed_files, is_missing_file
from lake.storage.errors import is_storage_failure
from schemas.errors import BadInputError, BrokenLakeError, MeterlakeError, StorageError
from schemas.meter import Meter

if TYPE_CHECKING:
    from lake.events.producer_files import FileCheck

# Of each date, the files that are not counted: their identity and the parts of the error, by name.
Rejected = dict[dt.date, dict[str, dict[str, str]]]


def readable_partitions(
    storage: Storage, meter: Meter, listing: Mapping[dt.date, Sequence[StoredFile]], state: MeterState
) -> tuple[dict[dt.date, Partition], Rejected]:
    """Return the open partitions with the files that can be read, by date, and what is wrong with the others.

    Reads the footers of files that the state does not know; of known files it believes the state. A file that is gone
    when it is to be read, or was replaced and can't be read, is in neither.
    """
    partitions: dict[dt.date, Partition] = {}
    rejected: Rejected = {}
    for date in sorted(listing.keys() - state.sealed):
        checked = _checked(storage, meter, listing[date], state.partitions.get(date))
        if checked.unread:
            _pass_over_changed(storage, paths.events(meter.name, date), checked)
        left = tuple(
            file
            for file in listing[date]
            if file_name(file) not in checked.bad and file not in checked.unread
        )
        partitions[date] = Partition(storage, meter, date, left, frozenset(checked.converted))
        rejected[date] = checked.bad
    return partitions, rejected


def find_damaged_files(partitions: dict[dt.date, Partition], rejected: Rejected, dates: set[dt.date]) -> bool:
    """Read every row of these dates' files, and move those that can't be read from the one to the other.

    For files with a whole footer and a broken page. Returns whether there were any.
    """
    before = sum(len(bad) for bad in rejected.values())
    for date in dates & partitions.keys():
        partition = partitions[date]
        for file in partition.files:
            error = _read_through(partition.with_files([file]))
            if error:
                rejected[date][file_name(file)] = _said(file, error)
        good = [file for file in partition.files if file_name(file) not in rejected[date]]
        partitions[date] = partition.with_files(good)
    return sum(len(bad) for bad in rejected.values()) > before


def recorded_partition(
    storage: Storage, meter: Meter, date: dt.date, files: Iterable[StoredFile], record: PartitionState
) -> Partition:
    """Return the partition with those of the files that its record counts; reads nothing."""
    counted = tuple(file for file in files if record.files.get(file_name(file)) == file.identity)
    return Partition(storage, meter, date, counted, frozenset(record.converted))


class _Checked(NamedTuple):
    """Of a partition's files what is wrong with some, by name, those found unreadable now, and names of those to convert."""

    bad: dict[str, dict[str, str]]
    unread: set[StoredFile]
    converted: set[str]


def _checked(
    storage: Storage, meter: Meter, files: Sequence[StoredFile], record: PartitionState | None
) -> _Checked:
    known = record if record and record.meter_version == meter.version else None
    # What earlier rules refused may be read by now.
    remembered = known.rejected if known and known.rules == READING_RULES else {}
    found = _Checked({}, set(), set())
    for file in files:
        name = file_name(file)
        if remembered.get(name, {}).get("identity") == file.identity:
            found.bad[name] = remembered[name]
        elif known and known.files.get(name) == file.identity:
            found.converted.update({name} & set(known.converted))
        else:
            check = _check_or_gone(storage, meter, file)
            if check is None or check.error:
                found.unread.add(file)
                found.bad.update({name: _said(file, check.error)} if check and check.error else {})
            elif check.converted:
                found.converted.add(name)
    return found


def _pass_over_changed(storage: Storage, folder: str, checked: _Checked) -> None:
    """Take out of `bad` what is not there any more as it was listed: nothing can be said of that."""
    for file in changed_files(storage, folder, checked.unread):
        checked.bad.pop(file_name(file), None)


def _check_or_gone(storage: Storage, meter: Meter, file: StoredFile) -> FileCheck | None:
    try:
        return check_file(storage, meter, file)
    except StorageError as error:
        if is_missing_file(error):
            return None
        raise


def _read_through(partition: Partition) -> BadInputError | None:
    try:
        # Nothing is kept: there may be more than fits into memory.
        deque(partition.rows().collect_batches(engine="streaming"), maxlen=0)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, BrokenLakeError) as error:
        if is_storage_failure(error):
            raise
        # It loads pyarrow, which a run that finds no damage may do without.
        from lake.events.producer_files import damaged_file

        return damaged_file(partition.files[0].path, str(error).splitlines()[0])
    return None


def _said(file: StoredFile, error: MeterlakeError) -> dict[str, str]:
    return {"identity": file.identity, **error.to_dict()}
