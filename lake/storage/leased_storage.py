"""A storage that writes only while the lease of its lake is held."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from lake.storage.base import Storage, StoredFile
from lake.storage.exclusive_create import check_exclusive_create
from lake.storage.lease import LEASE_TIME, Lease, take_lease


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
        yield LeasedStorage(storage, lease)
    finally:
        lease.release()


class LeasedStorage:
    """A storage that checks the lease before each operation that changes something."""

    def __init__(self, storage: Storage, lease: Lease) -> None:
        """Wrap a storage with the lease of its lake."""
        self._storage, self._lease, self.url = storage, lease, storage.url
        self.creates_exclusively = storage.creates_exclusively

    @property
    def server(self) -> str:
        """The server of the storage."""
        return self._storage.server

    def list(self, prefix: str) -> list[StoredFile]:
        """Forward to the storage."""
        return self._storage.list(prefix)

    def read(self, path: str) -> bytes | None:
        """Forward to the storage."""
        return self._storage.read(path)

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """Forward to the storage."""
        return self._storage.read_all(paths)

    def publish(self, path: str, content: bytes) -> None:
        """Forward to the storage while the lease is held."""
        self._lease.check()
        self._storage.publish(path, content)

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        """Forward to the storage while the lease is held."""
        self._lease.check()
        return self._storage.publish_file(path, local, keep=keep)

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Forward to the storage while the lease is held."""
        self._lease.check()
        return self._storage.create(path, content)

    def delete(self, path: str) -> None:
        """Forward to the storage while the lease is held."""
        self._lease.check()
        self._storage.delete(path)

    def delete_all(self, paths: Iterable[str]) -> None:
        """Forward to the storage while the lease is held."""
        self._lease.check()
        self._storage.delete_all(paths)

    def sync(self, paths: Iterable[str]) -> None:
        """Forward to the storage."""
        self._storage.sync(paths)

    def exists(self, path: str) -> bool:
        """Forward to the storage."""
        return self._storage.exists(path)

    def modified(self, path: str) -> dt.datetime | None:
        """Forward to the storage."""
        return self._storage.modified(path)

    def server_time(self) -> dt.datetime | None:
        """Forward to the storage."""
        return self._storage.server_time()

    def uri(self, path: str) -> str:
        """Forward to the storage."""
        return self._storage.uri(path)

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """Forward to the storage."""
        return self._storage.scan(files, **options)

    def schema(self, file: StoredFile) -> pl.Schema:
        """Forward to the storage."""
        return self._storage.schema(file)

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """Forward to the storage."""
        return self._storage.footer(file)

    def local(self, file: StoredFile) -> Path:
        """Forward to the storage."""
        return self._storage.local(file)

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """Forward to the storage."""
        return self._storage.metadata(file)

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """Forward to the storage."""
        self._storage.prefetch(files, whole=whole)

    def scratch(self, suffix: str) -> Path:
        """Forward to the storage."""
        return self._storage.scratch(suffix)

    def sweep(self) -> int:
        """Forward to the storage."""
        return self._storage.sweep()
