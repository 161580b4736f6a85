"""The lease: one job at a time changes a lake, and a job that no longer holds the lease can't publish.

Leases are numbered files, and the highest number holds. The next number can be created only once, so of any
number of contenders for a lease that ended exactly one gets it. Nobody ever removes or rewrites the lease of
another, so there is no moment at which two hold it. Assumes clocks that agree to within `MAX_CLOCK_SKEW`; where they
do not, a holder still finds the higher number of a successor at its next renewal, and stops. A lease that ends later
than any can, by a clock that was far ahead, is taken over only where the caller asks for it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import polars as pl

from lake import paths
from lake.decoding import Moment, check_moments, decode
from lake.storage import Storage, StoredFile
from lake.storage.exclusive_create import check_exclusive_create
from schemas.errors import BrokenLakeError, LeaseLostError, RefusedError, StorageError

LEASE_TIME = dt.timedelta(seconds=60)
MAX_CLOCK_SKEW = dt.timedelta(seconds=10)
# What ends later than this from now was taken by a clock that was ahead, or this machine's clock is behind.
MAX_REMAINING = dt.timedelta(minutes=10)
POLL_SECONDS = 1.0
LOG = logging.getLogger("meterlake")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lease, and until when; `released` once it is given back."""

    owner: str
    job: str
    host: str
    process: int
    taken_at: Moment
    expires_at: Moment
    released: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a moment that nothing can be added to."""
        check_moments(self.taken_at, self.expires_at)

    def __str__(self) -> str:
        """Return the holder as errors name it."""
        return f"{self.job} of process {self.process} on {self.host} since {_utc(self.taken_at)}"


class Lease:
    """A lease that is held: renewed by a thread until `release`."""

    def __init__(
        self, storage: Storage, number: int, holder: Holder, lease_time: dt.timedelta, since: float
    ) -> None:
        """Made by `_take`; `since` is the moment of `holder.taken_at` by the monotonic clock."""
        self._storage, self._number, self._holder, self._time = storage, number, holder, lease_time
        self._since, self._until = since, since + lease_time.total_seconds()
        self._superseded = False
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Raise LeaseLostError if the lease may have gone to another job, so that nothing more is published."""
        if self._holds():
            return
        raise LeaseLostError(
            "this job lost its lease of the lake and stops before it publishes anything more",
            where=self._storage.url,
            expected=f"a renewal before {_utc(self._holder.expires_at)}",
            found="none: the process was suspended, or the storage did not answer, or a clock is wrong",
            hint="run the job again; what it published is complete",
        )

    def release(self) -> None:
        """Give the lease back at once, unless it was lost. Where that fails it ends by itself, so nothing is raised."""
        self._ended.set()
        self._renewing.join()
        if not self._holds():
            return
        try:
            self._write(msgspec.structs.replace(self._holder, released=True))
        except StorageError as error:
            LOG.warning("the lease could not be given back, and ends by itself: %s", error)

    def _holds(self) -> bool:
        # By both clocks: one may be set back, the other stands still in some suspended machines.
        return not self._superseded and _now() < self._holder.expires_at and time.monotonic() < self._until

    def _renew(self) -> None:
        while not self._ended.wait(self._time.total_seconds() / 4):
            until = time.monotonic() + self._time.total_seconds()
            renewed = msgspec.structs.replace(self._holder, expires_at=self._now() + self._time)
            try:
                self._superseded = max(_numbers(self._storage), default=0) > self._number
                # Once it has expired, another may have taken over: it is not renewed then, but lost.
                if not self._holds():
                    return
                self._write(renewed)
            except StorageError as error:
                LOG.warning("the lease could not be renewed, and is tried again: %s", error)
                continue
            # A renewal that took until after the end came too late: another may not have seen it in time.
            if not self._holds():
                return
            self._holder, self._until = renewed, until

    def _now(self) -> dt.datetime:
        """Return the time by which others see the lease: a clock that is set back while it is held does not end it for them."""
        return max(_now(), self._holder.taken_at + dt.timedelta(seconds=time.monotonic() - self._since))

    def _write(self, holder: Holder) -> None:
        self._storage.publish(paths.lease(self._number), msgspec.json.encode(holder))


@contextmanager
def leased(
    storage: Storage,
    job: str,
    *,
    wait: bool = False,
    take: bool = False,
    lease_time: dt.timedelta = LEASE_TIME,
) -> Iterator[Storage]:
    """Hold the lease of the lake, and return a storage that writes only while it is held.

    Raises RefusedError naming the holder if another job has it; with `wait`, waits for it instead. Raises it for a
    lease that ends later than any can, and BrokenLakeError for one that can't be read; with `take`, takes those over.
    Raises RefusedError too on a storage on which leases protect nothing, see `lake.storage.exclusive_create`.
    """
    check_exclusive_create(storage)
    lease = _take(storage, job, lease_time, wait=wait, take=take)
    try:
        yield GuardedStorage(storage, lease)
    finally:
        lease.release()


def current_holder(storage: Storage) -> Holder | None:
    """Return who holds the lease now; None if nobody does. Raises BrokenLakeError if the lease can't be read."""
    _, holder = _highest(storage)
    return holder if holder and not _over(holder) else None


class GuardedStorage:
    """A storage that checks the lease before each operation that changes something."""

    def __init__(self, storage: Storage, lease: Lease) -> None:
        """Wrap a storage."""
        self._storage, self._lease, self.url = storage, lease, storage.url
        self.creates_exclusively = storage.creates_exclusively

    @property
    def server(self) -> str:
        """As the storage."""
        return self._storage.server

    def list(self, prefix: str) -> list[StoredFile]:
        """As the storage."""
        return self._storage.list(prefix)

    def read(self, path: str) -> bytes | None:
        """As the storage."""
        return self._storage.read(path)

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """As the storage."""
        return self._storage.read_all(paths)

    def publish(self, path: str, content: bytes) -> None:
        """As the storage, while the lease is held."""
        self._lease.check()
        self._storage.publish(path, content)

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        """As the storage, while the lease is held."""
        self._lease.check()
        return self._storage.publish_file(path, local, keep=keep)

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """As the storage, while the lease is held."""
        self._lease.check()
        return self._storage.create(path, content)

    def delete(self, path: str) -> None:
        """As the storage, while the lease is held."""
        self._lease.check()
        self._storage.delete(path)

    def delete_all(self, paths: Iterable[str]) -> None:
        """As the storage, while the lease is held."""
        self._lease.check()
        self._storage.delete_all(paths)

    def sync(self, paths: Iterable[str]) -> None:
        """As the storage."""
        self._storage.sync(paths)

    def exists(self, path: str) -> bool:
        """As the storage."""
        return self._storage.exists(path)

    def modified(self, path: str) -> dt.datetime | None:
        """As the storage."""
        return self._storage.modified(path)

    def server_time(self) -> dt.datetime | None:
        """As the storage."""
        return self._storage.server_time()

    def uri(self, path: str) -> str:
        """As the storage."""
        return self._storage.uri(path)

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """As the storage."""
        return self._storage.scan(files, **options)

    def schema(self, file: StoredFile) -> pl.Schema:
        """As the storage."""
        return self._storage.schema(file)

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """As the storage."""
        return self._storage.footer(file)

    def local(self, file: StoredFile) -> Path:
        """As the storage."""
        return self._storage.local(file)

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """As the storage."""
        return self._storage.metadata(file)

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """As the storage."""
        self._storage.prefetch(files, whole=whole)

    def scratch(self, suffix: str) -> Path:
        """As the storage."""
        return self._storage.scratch(suffix)

    def sweep(self) -> int:
        """As the storage."""
        return self._storage.sweep()


def _take(storage: Storage, job: str, lease_time: dt.timedelta, *, wait: bool, take: bool) -> Lease:
    owner, since, waiting = uuid.uuid4().hex, 0.0, _Waiting(storage, wait=wait)
    while True:
        number, holder = _highest(storage, skip_broken=take)
        if holder and holder.owner == owner and not _over(holder):
            # It was created after all: a storage may answer only the second of two attempts, with a no.
            return Lease(storage, number, holder, lease_time, since)
        if holder and not _over(holder) and not (take and _ends_too_late(holder)):
            waiting.wait_for(holder)
            continue
        since, mine = time.monotonic(), _holder(owner, job, lease_time)
        if storage.create(paths.lease(number + 1), msgspec.json.encode(mine)):
            numbers = _numbers(storage)
            # While we looked and created, others may have taken, released and tidied away this very number.
            if max(numbers) == number + 1:
                storage.delete_all(paths.lease(old) for old in numbers if old <= number)
                return Lease(storage, number + 1, mine, lease_time, since)
            storage.delete(paths.lease(number + 1))


class _Waiting:
    """Waiting for holders of the lease, as long as each of them renews it."""

    def __init__(self, storage: Storage, *, wait: bool) -> None:
        self._storage, self._wait = storage, wait
        self._seen: Holder | None = None
        self._since = 0.0

    def wait_for(self, holder: Holder) -> None:
        """Wait a moment. Raises RefusedError unless waiting was asked for, or where it would not end."""
        if self._seen is None and self._wait:
            LOG.info("waiting for %s", holder)
        if self._seen != holder:
            self._seen, self._since = holder, time.monotonic()
        # By the wrong clock of one who works on, the lease is renewed all the same.
        renewed = time.monotonic() - self._since < (LEASE_TIME + MAX_CLOCK_SKEW).total_seconds()
        if _ends_too_late(holder) and not (self._wait and renewed):
            raise _refused_end(self._storage, holder)
        if not self._wait:
            raise RefusedError(
                "another job is working on this lake",
                where=self._storage.url,
                found=str(holder),
                hint=f"wait for it with --wait; if it died, its lease ends at {_utc(holder.expires_at)}",
            )
        time.sleep(POLL_SECONDS)


def _refused_end(storage: Storage, holder: Holder) -> RefusedError:
    return RefusedError(
        "the lease of this lake ends later than any lease can",
        where=storage.url,
        expected=f"an end before {_utc(_now() + MAX_REMAINING)}",
        found=f"{holder}, until {_utc(holder.expires_at)}",
        hint="check the clocks of both machines; if no job works on this lake, run this one with --take-lease",
    )


def _highest(storage: Storage, *, skip_broken: bool = False) -> tuple[int, Holder | None]:
    """Return the highest number there is, and who holds it; None if nobody, or if `skip_broken` and it can't be read."""
    number = max(_numbers(storage), default=0)
    body = storage.read(paths.lease(number)) if number else None
    if body is None:
        return number, None
    try:
        hint = "if no job works on this lake, run the job with --take-lease"
        return number, decode(body, Holder, "not a lease", where=paths.lease(number), hint=hint)
    except BrokenLakeError:
        if not skip_broken:
            raise
        return number, None


def _over(holder: Holder) -> bool:
    return holder.released or _now() - MAX_CLOCK_SKEW > holder.expires_at


def _ends_too_late(holder: Holder) -> bool:
    return holder.expires_at > _now() + MAX_REMAINING


def _holder(owner: str, job: str, lease_time: dt.timedelta) -> Holder:
    start = _now()
    return Holder(
        owner=owner,
        job=job,
        host=socket.gethostname(),
        process=os.getpid(),
        taken_at=start,
        expires_at=start + lease_time,
    )


def _numbers(storage: Storage) -> list[int]:
    """Return the numbers of all leases there are; other files in their folder have none."""
    numbers = [paths.lease_number(file.path) for file in storage.list(paths.LEASE)]
    return [number for number in numbers if number]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _utc(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
