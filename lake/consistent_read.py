"""Consistent reads while other jobs land, aggregate, compact, seal and drop.

Retention seals a date in the state before it drops the first file. So if the state is read after the listing, the
listing has all files of every date that is not sealed, and the files of sealed dates are ignored.
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

Listing = TypeVar("Listing")
Answer = TypeVar("Answer")


def read_consistently(
    observe: Callable[[], Listing], work: Callable[[Listing], Answer], where: str, *, is_whole: bool = False
) -> Answer:
    """Return the result of `work` on what `observe` returns; a few attempts, while it fails and files change.

    With `is_whole` the answer needs no further reads, so it is computed again whenever files have changed meanwhile;
    after the last attempt it has the earlier or later content of each file. Raises what `work` raises where nothing
    has changed, and StorageError where every attempt failed and files changed each time.
    """
    observed, attempt = observe(), 1
    while True:
        try:
            answer = work(observed)
            if not is_whole or attempt == ATTEMPTS:
                return answer
        except (*READING_ERRORS, FilesChangedError) as error:
            earlier, observed = observed, observe()
            if observed == earlier:
                raise
            if attempt == ATTEMPTS:
                raise _changed_each_time(where, error) from error
        else:
            earlier, observed = observed, observe()
            if observed == earlier:
                return answer
        attempt += 1


def _changed_each_time(where: str, failed: BaseException) -> StorageError:
    return StorageError(
        "files were replaced or removed each time they were read",
        where=where,
        found=str(failed).splitlines()[0] if str(failed) else type(failed).__name__,
        hint="other jobs are working on the lake: ask again",
    )


class Listed(NamedTuple):
    """A meter's event files, and the content of its state, which was read after the listing."""

    files: list[StoredFile]
    state: bytes | None


class Snapshot:
    """A meter's events at one moment."""

    def __init__(self, storage: Storage, meter: Meter, listed: Listed) -> None:
        """Take a listing; footers of files that are not in the state are read when `partitions` are first used."""
        self.storage, self.meter, self._listed = storage, meter, listed
        self.state: MeterState = decode_or_rebuild_state(storage, meter.name, listed.state)

    @cached_property
    def partitions(self) -> Mapping[dt.date, Partition]:
        """The open partitions with the files that can be read; files that are gone by now are ignored, see `check`."""
        files = current_files(self.storage, self._listed.files, self.state).files
        return readable_partitions(self.storage, self.meter, files, self.state)[0]

    def check(self) -> None:
        """Raise StorageError if a date was sealed since the listing, whose files may be gone."""
        body = self.storage.read(paths.state(self.meter.name))
        if body == self._listed.state:
            return
        sealed = decode_or_rebuild_state(self.storage, self.meter.name, body).sealed - self.state.sealed
        if sealed:
            raise StorageError(
                "a date was sealed while it was read", where=paths.events(self.meter.name, min(sealed))
            )


def with_snapshot(storage: Storage, meter: Meter, work: Callable[[Snapshot], Answer]) -> Answer:
    """Return the result of `work` on the meter's events at one moment."""

    def list_files() -> Listed:
        files = storage.list(paths.events(meter.name))
        return Listed(files, storage.read(paths.state(meter.name)))

    def checked(listed: Listed) -> Answer:
        snapshot = Snapshot(storage, meter, listed)
        answer = work(snapshot)
        snapshot.check()
        return answer

    return read_consistently(list_files, checked, paths.events(meter.name))
