"""The record of one landed input in the lake, named by the hash of its content, so that none is landed twice.

It lies here and not in `lake/`, since it names the version of the flush bounds, which are part of landing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobs.land.flush_bounds import NEWEST
from jobs.run_report import now
from lake import paths
from lake.decoding import Count, Moment, check_moments, decode
from lake.storage import Storage
from schemas.errors import BrokenLakeError


class LandedInput(msgspec.Struct, kw_only=True):
    """The record of one input: where it came from, whether all of it is landed, and the files that have its rows."""

    source: str
    landed_at: Moment
    # The version of its `FlushBounds`; absent in records of the first one.
    bounds: Annotated[int, msgspec.Meta(ge=0, le=NEWEST)] = 0
    # Stands for the second version in records of a program that was never released.
    long_line_weight: Count | msgspec.UnsetType = msgspec.UNSET
    complete: bool = False
    events: Count = 0
    quarantined: dict[str, Count] = msgspec.field(default_factory=dict)
    files: list[str] = msgspec.field(default_factory=list)
    quarantine_files: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ValueError for a moment that no run has written."""
        check_moments(self.landed_at)
        if self.long_line_weight is not msgspec.UNSET:
            self.bounds = self.bounds or 1


def find_or_create(storage: Storage, sha256: str, source: str) -> tuple[LandedInput, bool]:
    """Return the record of an input, and whether this call created it."""
    path = paths.landed(sha256)
    record = LandedInput(source=source, landed_at=now(), bounds=NEWEST)
    if storage.create(path, msgspec.json.encode(record)):
        return record, True
    return decode_landed(storage.read(path) or b"", path), False


def reopen(storage: Storage, sha256: str, record: LandedInput) -> LandedInput:
    """Return the record as incomplete, and publish it so: `compact` does not merge the files of such an input."""
    reopened = msgspec.structs.replace(record, complete=False)
    if record.complete:
        save(storage, sha256, reopened)
    return reopened


def save(storage: Storage, sha256: str, record: LandedInput) -> None:
    """Publish the record of an input."""
    storage.publish(paths.landed(sha256), msgspec.json.encode(record))


def decode_landed(body: bytes, path: str) -> LandedInput:
    """Return the record that a file contains.

    Raises BrokenLakeError if it contains none, or if the record names files of another input.
    """
    what = "not a record of a landed input"
    hint = "remove it if the input was never landed; else its events would be landed twice"
    record = decode(body, LandedInput, what, where=path, hint=hint)
    start = paths.landed_files(path.removeprefix(paths.LANDED))
    try:
        paths.check_stored_paths(record.files, paths.EVENTS, start)
        paths.check_stored_paths(record.quarantine_files, paths.QUARANTINE, start)
    except ValueError as error:
        raise BrokenLakeError(what, where=path, found=str(error), hint=hint) from error
    return record
