"""A storage that writes only while the lease of its lake is held."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from lake.storage.base import Storage
from lake.storage.exclusive_create import check_exclusive_create
from lake.storage.lease import LEASE_TIME, Lease, take_lease

# Operations that change nothing that anybody reads: all others are checked, those too that are not thought of here.
UNCHECKED = frozenset(
    {
        *("list", "read", "read_all", "exists", "modified", "server_time", "uri"),
        *("scan", "schema", "footer", "local", "metadata", "prefetch", "scratch"),
        # They remove what dead processes left, and make durable what is there.
        *("sweep", "sync"),
    }
)


@contextmanager
def leased(
    storage: Storage,
    job: str,
    *,
    wait: bool = False,
    take: bool = False,
    lease_time: dt.timedelta = LEASE_TIME,
) -> Iterator[Storage]:
    """Take the lease of the lake, and yield a storage that writes only while the lease is held.

    Raises RefusedError naming the holder if another job has it; with `wait`, waits for it instead. Raises RefusedError
    for a lease that ends later than any lease can, and BrokenLakeError for one that can't be read; with `take`, takes
    these over. Raises RefusedError on a storage where leases protect nothing, see `lake.storage.exclusive_create`.
    """
    check_exclusive_create(storage)
    lease = take_lease(storage, job, lease_time, wait=wait, take=take)
    try:
        # It has every member of the storage, which a type checker does not see.
        yield cast("Storage", LeasedStorage(storage, lease))
    finally:
        lease.release()


class LeasedStorage:
    """A storage that checks the lease before each operation, except those that change nothing in the lake."""

    def __init__(self, storage: Storage, lease: Lease) -> None:
        """Wrap a storage with the lease of its lake."""
        self._storage, self._lease = storage, lease

    def __getattr__(self, name: str) -> Any:
        """Return what the storage has of this name."""
        member = getattr(self._storage, name)
        return member if name in UNCHECKED or not callable(member) else partial(self._checked, member)

    def _checked(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._lease.check()
        return operation(*arguments, **options)
