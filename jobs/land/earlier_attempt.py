"""What an interrupted attempt at an input left in the lake, so that each of its rows ends in exactly one place."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from lake import paths
from lake.state.records import MeterState
from lake.storage import Storage, StoredFile
from schemas.errors import BrokenLakeError
from schemas.meter import Meter, parse_meter

# In a landed file's metadata: the definition by which its rows were validated.
DEFINITION_KEY = "meterlake-definition"


@dataclass(frozen=True)
class Earlier:
    """What there is of an input.

    `quarantine_files` are its files of rejected rows. `meters` are the definitions, by name, by which rows of it were
    landed: landed files never change, so the others are validated by the same. `start` is how its event files are named,
    if there may be any, and `event_files` are those that are there.
    """

    quarantine_files: frozenset[str] = frozenset()
    meters: Mapping[str, Meter] = field(default_factory=dict)
    start: str = ""
    event_files: frozenset[str] = frozenset()

    def counted(self, meter: str, state: MeterState) -> set[str]:
        """Return its event files that were dropped with a sealed date of a meter, which had counted them."""
        if not self.start:
            return set()
        return {
            paths.events(meter, date) + name
            for date in state.sealed
            for name in state.partitions[date].files
            if name.startswith(self.start)
        }

    def dates(self, meter: str, state: MeterState) -> set[dt.date]:
        """Return the sealed dates of a meter with rows of the input: counted, or landed as they were being sealed."""
        if not state.sealed:
            return set()
        places = map(paths.split_partition, self.counted(meter, state) | self.event_files)
        return {place.date for place in places if place and place.meter == meter}


def find_earlier(storage: Storage, sha256: str) -> Earlier:
    """Return what there is of an input: lists the quarantine and all events, and reads a footer for each meter."""
    start = paths.landed_files(sha256)
    quarantined = [file.path for file in storage.list(paths.QUARANTINE) if _name(file.path).startswith(start)]
    landed = [file for file in storage.list(paths.EVENTS) if _name(file.path).startswith(start)]
    meters: dict[str, Meter] = {}
    for file in landed:
        place = paths.split_partition(file.path)
        if place and place.meter not in meters:
            found = definition_of(storage, file)
            meters |= {place.meter: found} if found else {}
    return Earlier(frozenset(quarantined), meters, start, frozenset(file.path for file in landed))


def definition_of(storage: Storage, file: StoredFile) -> Meter | None:
    """Return the definition that a landed file names; None for one of an earlier version, which wrote none.

    Raises BrokenLakeError if the file can't be read.
    """
    try:
        stored = storage.metadata(file).get(DEFINITION_KEY)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BrokenLakeError(
            "a landed file can't be read",
            where=file.path,
            found=str(error).splitlines()[0],
            hint="restore it from a backup, or remove it, and land the input again",
        ) from error
    return parse_meter(stored.encode(), file.path) if stored else None


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
