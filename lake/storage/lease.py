"""The lease: one job at a time changes a lake, and a job that has lost the lease can't publish.

Leases are numbered files, and the one with the highest number counts. The next number can be created only once, so
exactly one contender gets a lease that has ended. Nobody ever removes or rewrites another job's lease, so two jobs
never hold it at once. Assumes clocks that agree to within `MAX_CLOCK_SKEW`; where they do not, a holder still sees
its successor's higher number at its next renewal, and stops. A lease that ends later than any lease can, taken by a
clock that was far ahead, is taken over only where the caller asks for it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import threading
import time
import uuid

import msgspec

from lake import paths
from lake.decoding import Moment, check_moments, decode
from lake.storage.base import Storage
from schemas.errors import BrokenLakeError, LeaseLostError, RefusedError, StorageError

LEASE_TIME = dt.timedelta(seconds=60)
MAX_CLOCK_SKEW = dt.timedelta(seconds=10)
# A lease that ends later than this from now was taken by a clock that was ahead, or this machine's clock is behind.
MAX_REMAINING = dt.timedelta(minutes=10)
POLL_SECONDS = 1.0
LOG = logging.getLogger("meterlake")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lease, and until when; `released` once it is returned."""

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
    """A lease that this process holds, renewed by a thread until `release`."""

    def __init__(
        self, storage: Storage, number: int, holder: Holder, lease_time: dt.timedelta, since: float
    ) -> None:
        """Made by `take_lease`; `since` is the moment of `holder.taken_at` by the monotonic clock."""
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
        """Return the lease at once, unless it was lost. Raises nothing: a lease that can't be returned expires."""
        self._ended.set()
        self._renewing.join()
        if not self._holds():
            return
        try:
            self._write(msgspec.structs.replace(self._holder, released=True))
        except StorageError as error:
            LOG.warning("the lease could not be returned, and expires by itself: %s", error)

    def _holds(self) -> bool:
        # By both clocks: one may be set back, the other stops while some machines are suspended.
        return not self._superseded and _now() < self._holder.expires_at and time.monotonic() < self._until

    def _renew(self) -> None:
        while not self._ended.wait(self._time.total_seconds() / 4):
            until = time.monotonic() + self._time.total_seconds()
            renewed = msgspec.structs.replace(self._holder, expires_at=self._now() + self._time)
            try:
                self._superseded = max(_numbers(self._storage), default=0) > self._number
                # Another job may have taken over an expired lease, so it is lost and not renewed.
                if not self._holds():
                    return
                self._write(renewed)
            except StorageError as error:
                LOG.warning("the lease could not be renewed; trying again: %s", error)
                continue
            # A renewal that ended after the expiry came too late: another job may not have seen it in time.
            if not self._holds():
                return
            self._holder, self._until = renewed, until

    def _now(self) -> dt.datetime:
        """Return the time that others compare the lease with; not earlier where this clock is set back meanwhile."""
        return max(_now(), self._holder.taken_at + dt.timedelta(seconds=time.monotonic() - self._since))

    def _write(self, holder: Holder) -> None:
        self._storage.publish(paths.lease(self._number), msgspec.json.encode(holder))


def current_holder(storage: Storage) -> Holder | None:
    """Return who holds the lease now; None if nobody does. Raises BrokenLakeError if the lease can't be read."""
    _, holder = _highest(storage)
    return holder if holder and not _has_ended(holder) else None


def take_lease(storage: Storage, job: str, lease_time: dt.timedelta, *, wait: bool, take: bool) -> Lease:
    """Take the lease, or wait for it, as `lake.storage.leased_storage.leased` says; it is renewed until its release."""
    owner, since, waiting = uuid.uuid4().hex, 0.0, _Waiting(storage, wait=wait)
    while True:
        number, holder = _highest(storage, skip_broken=take)
        if holder and holder.owner == owner and not _has_ended(holder):
            # It was created after all: a storage may answer only the second of two attempts, with a refusal.
            return Lease(storage, number, holder, lease_time, since)
        if holder and not _has_ended(holder) and not (take and _ends_too_late(holder)):
            waiting.wait_for(holder)
            continue
        since, own_holder = time.monotonic(), _holder(owner, job, lease_time)
        if storage.create(paths.lease(number + 1), msgspec.json.encode(own_holder)):
            numbers = _numbers(storage)
            # Meanwhile others may have taken, released and deleted this very number.
            if max(numbers) == number + 1:
                storage.delete_all(paths.lease(old) for old in numbers if old <= number)
                return Lease(storage, number + 1, own_holder, lease_time, since)
            storage.delete(paths.lease(number + 1))


class _Waiting:
    """Waits for holders of the lease, as long as each of them renews it."""

    def __init__(self, storage: Storage, *, wait: bool) -> None:
        self._storage, self._wait = storage, wait
        self._seen: Holder | None = None
        self._since = 0.0

    def wait_for(self, holder: Holder) -> None:
        """Wait a moment. Raises RefusedError where waiting was not asked for, or would never end."""
        if self._seen is None and self._wait:
            LOG.info("waiting for %s", holder)
        if self._seen != holder:
            self._seen, self._since = holder, time.monotonic()
        # A working job renews its lease even if its clock is wrong.
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
    """Return the highest lease number and its holder; None for no holder, or with `skip_broken` for an unreadable one."""
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


def _has_ended(holder: Holder) -> bool:
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
    """Return the numbers of all leases; other files in their folder have none."""
    numbers = [paths.lease_number(file.path) for file in storage.list(paths.LEASE)]
    return [number for number in numbers if number]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _utc(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
