"""Find the files that an interrupted attempt at an input left in the lake, so that each row ends in exactly one place."""

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
    """The files of an input in the lake.

    `quarantine_files` have its rejected rows. `meters` are the definitions, by name, by which its rows were validated:
    landed files never change, so the remaining rows are validated by the same ones. `start` is the start of the names
    of its event files, empty for a new input, and `event_files` are the paths of those in the lake.
    """

    quarantine_files: frozenset[str] = frozenset()
    meters: Mapping[str, Meter] = field(default_factory=dict)
    start: str = ""
    event_files: frozenset[str] = frozenset()

    def counted(self, meter: str, state: MeterState) -> set[str]:
        """Return the paths of its event files that were aggregated and then dropped with a sealed date of a meter."""
        if not self.start:
            return set()
        return {
            paths.events(meter, date) + name
            for date in state.sealed
            for name in state.partitions[date].files
            if name.startswith(self.start)
        }

    def dates(self, meter: str, state: MeterState) -> set[dt.date]:
        """Return the sealed dates of a meter that have rows of the input: aggregated ones, or landed during sealing."""
        if not state.sealed:
            return set()
        places = map(paths.split_partition, self.counted(meter, state) | self.event_files)
        return {place.date for place in places if place and place.meter == meter}


def find_earlier(storage: Storage, sha256: str) -> Earlier:
    """Return the files of an input. Lists quarantine and all events, and reads one footer for each meter."""
    start = paths.landed_files(sha256)
    quarantined = [file.path for file in storage.list(paths.QUARANTINE) if _name(file.path).startswith(start)]
    landed = [file for file in storage.list(paths.EVENTS) if _name(file.path).startswith(start)]
    meters: dict[str, Meter] = {}
    for file in landed:
        place = paths.split_partition(file.path)
        if place and place.meter not in meters:
            definition = definition_of(storage, file)
            meters |= {place.meter: definition} if definition else {}
    return Earlier(frozenset(quarantined), meters, start, frozenset(file.path for file in landed))


def definition_of(storage: Storage, file: StoredFile) -> Meter | None:
    """Return the definition in the metadata of a landed file; None for a file of an earlier version, which wrote none.

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
