"""Which of the files that lie in the open partitions can be read, and what is wrong with the others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from lake.events import Partition, check_file
from lake.planning import file_name
from lake.state import READING_RULES, MeterState, PartitionState
from lake.storage import Storage, StoredFile
from lake.storage.faults import is_storage_failure
from schemas.errors import BadInputError, BrokenLakeError, MeterlakeError
from schemas.meter import Meter

# Of each date, the files that are not counted: their identity and the parts of the error, by name.
Rejected = dict[dt.date, dict[str, dict[str, str]]]


def admit(
    storage: Storage, meter: Meter, listing: Mapping[dt.date, Sequence[StoredFile]], state: MeterState
) -> tuple[dict[dt.date, Partition], Rejected]:
    """The open partitions with the files that can be read, by date, and what is wrong with the others.

    Reads the footers of files that the state does not know; of known files it believes the state.
    """
    partitions: dict[dt.date, Partition] = {}
    rejected: Rejected = {}
    for date in sorted(listing.keys() - state.sealed):
        bad, converted = _checked(storage, meter, listing[date], state.partitions.get(date))
        good = tuple(file for file in listing[date] if file_name(file) not in bad)
        partitions[date] = Partition(storage, meter, date, good, converted)
        rejected[date] = bad
    return partitions, rejected


def reject_unreadable(partitions: dict[dt.date, Partition], rejected: Rejected, dates: set[dt.date]) -> bool:
    """Read every row of these dates' files, and move those that can't be read from the one to the other.

    For files with a whole footer and a broken page. Gives whether there were any.
    """
    before = sum(len(bad) for bad in rejected.values())
    for date in dates & partitions.keys():
        partition = partitions[date]
        for file in partition.files:
            error = _read_through(partition.only([file]))
            if error:
                rejected[date][file_name(file)] = _said(file, error)
        good = [file for file in partition.files if file_name(file) not in rejected[date]]
        partitions[date] = partition.only(good)
    return sum(len(bad) for bad in rejected.values()) > before


def recorded_partition(
    storage: Storage, meter: Meter, date: dt.date, files: Iterable[StoredFile], record: PartitionState
) -> Partition:
    """Return the partition with those of the files that its record counts; reads nothing."""
    counted = tuple(file for file in files if record.files.get(file_name(file)) == file.identity)
    return Partition(storage, meter, date, counted, frozenset(record.converted))


def _checked(
    storage: Storage, meter: Meter, files: Sequence[StoredFile], record: PartitionState | None
) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """What is wrong with files, by name, and the names of those that are to be converted."""
    known = record if record and record.meter_version == meter.version else None
    # What earlier rules refused may be read by now.
    remembered = known.rejected if known and known.rules == READING_RULES else {}
    bad: dict[str, dict[str, str]] = {}
    converted = set()
    for file in files:
        name = file_name(file)
        if remembered.get(name, {}).get("identity") == file.identity:
            bad[name] = remembered[name]
        elif known and known.files.get(name) == file.identity:
            converted |= {name} & set(known.converted)
        else:
            check = check_file(storage, meter, file)
            if check.error:
                bad[name] = _said(file, check.error)
            elif check.converted:
                converted.add(name)
    return bad, frozenset(converted)


def _read_through(partition: Partition) -> BadInputError | None:
    try:
        partition.rows().collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, BrokenLakeError) as error:
        if is_storage_failure(error):
            raise
        return BadInputError(
            "damaged file",
            where=partition.files[0].path,
            expected="a Parquet file that can be read to its end",
            found=str(error).splitlines()[0],
            hint="replace or remove the file; it is left where it is and not counted",
        )
    return None


def _said(file: StoredFile, error: MeterlakeError) -> dict[str, str]:
    return {"identity": file.identity, **error.to_dict()}
