"""Answers of one moment, while other jobs land, aggregate, compact, seal and drop.

Retention seals a date in the state before it drops the first file. So of a listing, and a state that is read after it,
the files of every date that is not sealed were all there, and those of a sealed one are passed over as a whole.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple, TypeVar

from lake import paths
from lake.events.file_check import readable_partitions
from lake.events.listing import current_files
from lake.events.partition import Partition
from lake.state.records import MeterState
from lake.state.state_file import decode_or_rebuild_state
from lake.storage import Storage, StoredFile
from lake.storage.changed_files import ATTEMPTS, READING_ERRORS, FilesChangedError
from schemas.errors import StorageError
from schemas.meter import Meter

Seen = TypeVar("Seen")
Answer = TypeVar("Answer")


def read_consistently(
    look: Callable[[], Seen], work: Callable[[Seen], Answer], where: str, *, is_whole: bool = False
) -> Answer:
    """Return what `work` makes of what `look` sees; anew, a few times, where it fails and something else is seen then.

    With `is_whole` nothing is left to be read of the answer, and it is taken anew wherever something else is seen
    after it; if that is so each time, the last one holds of each file what it was or has become. Raises what `work`
    raises where nothing has changed, and StorageError where it fails and something has changed each time.
    """
    seen, attempt = look(), 1
    while True:
        try:
            found = work(seen)
            if not is_whole or attempt == ATTEMPTS:
                return found
        except (*READING_ERRORS, FilesChangedError) as error:
            before, seen = seen, look()
            if seen == before:
                raise
            if attempt == ATTEMPTS:
                raise _changed_each_time(where, error) from error
        else:
            before, seen = seen, look()
            if seen == before:
                return found
        attempt += 1


def _changed_each_time(where: str, failed: BaseException) -> StorageError:
    return StorageError(
        "files were replaced or removed each time that they were read",
        where=where,
        found=str(failed).splitlines()[0] if str(failed) else type(failed).__name__,
        hint="other jobs are working on the lake: ask again",
    )


class Listed(NamedTuple):
    """What was seen of a meter: its event files, and then the text of its state."""

    files: list[StoredFile]
    state: bytes | None


class Snapshot:
    """A meter's events as of one moment."""

    def __init__(self, storage: Storage, meter: Meter, seen: Listed) -> None:
        """Take what was seen; files that the state does not know are looked at when they are asked for."""
        self.storage, self.meter, self._seen = storage, meter, seen
        self.state: MeterState = decode_or_rebuild_state(storage, meter.name, seen.state)

    @cached_property
    def partitions(self) -> Mapping[dt.date, Partition]:
        """The open partitions with the files that can be read; one that is gone by now is passed over, see `check`."""
        files = current_files(self.storage, self._seen.files, self.state).files
        return readable_partitions(self.storage, self.meter, files, self.state)[0]

    def check(self) -> None:
        """Raise StorageError if a date was sealed since, whose files may be gone."""
        now = self.storage.read(paths.state(self.meter.name))
        if now == self._seen.state:
            return
        sealed = decode_or_rebuild_state(self.storage, self.meter.name, now).sealed - self.state.sealed
        if sealed:
            raise StorageError(
                "a date was sealed while it was read", where=paths.events(self.meter.name, min(sealed))
            )


def with_snapshot(storage: Storage, meter: Meter, work: Callable[[Snapshot], Answer]) -> Answer:
    """Return what `work` makes of the meter's events, as of one moment."""

    def look() -> Listed:
        files = storage.list(paths.events(meter.name))
        return Listed(files, storage.read(paths.state(meter.name)))

    def checked(seen: Listed) -> Answer:
        snapshot = Snapshot(storage, meter, seen)
        found = work(snapshot)
        snapshot.check()
        return found

    return read_consistently(look, checked, paths.events(meter.name))
