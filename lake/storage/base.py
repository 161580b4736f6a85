"""The storage interface of a lake, and one file of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import polars as pl


class StoredFile(NamedTuple):
    """One file of the lake; `identity` changes whenever its content does."""

    path: str
    size_bytes: int
    identity: str
    # Why it can't be read, such as "a named pipe"; empty for a regular file.
    unreadable: str = ""
    # Whether it is a link inside the lake, or is reached through one: it may be read, and is neither moved nor removed.
    linked: bool = False


class Storage(Protocol):
    """The interface of a file system below a lake. Paths are relative to the lake's root, with `/`.

    A path that could leave the root is refused, and so is writing through a link. Only regular files are opened: for
    anything else BrokenLakeError is raised.

    Every method raises StorageError naming the path when the storage fails or denies access; transient failures
    have then been retried a bounded number of times.
    """

    url: str
    # Whether `create` is known to be exclusive; where it depends on the server, taking the lease checks it.
    creates_exclusively: bool

    @property
    def server(self) -> str:
        """The server's URL, or the kind of file system. Contains no secret."""

    def list(self, prefix: str) -> list[StoredFile]:
        """Return all files below a folder, sorted by path; none if there is no such folder.

        An entry that can't be read as a file, such as a link that leads nowhere, is `unreadable` with the reason.
        """

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none."""

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """Return the content of several files, in parallel where that is faster; None for one that is not there."""

    def publish(self, path: str, content: bytes) -> None:
        """Create or replace one file; readers see the old or the new content, never a part."""

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        """Publish the content of a local file, which is removed.

        Returns the file as `scan` and `metadata` take it; with `keep` they read a copy on the local disk. Without,
        its identity is the one that `list` will return, or empty where only `list` knows it.
        """

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Create a file if there is none, in one step; return None, with nothing changed, if there is one.

        Its identity is as of `publish_file`.
        """

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove several files, with few requests; nothing happens for one that is not there."""

    def sync(self, paths: Iterable[str]) -> None:
        """Make existing files durable against a loss of power, before a step that can't be undone.

        Another process may have published them and been killed before it synced them.
        """

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""

    def modified(self, path: str) -> dt.datetime | None:
        """Return when a file was last written, by the storage's clock; None if it is missing, or that takes a request."""

    def server_time(self) -> dt.datetime | None:
        """Return the date of the server's last answer to a listing; None where there is none, or no server."""

    def uri(self, path: str) -> str:
        """Return the path as people and other programs name it."""

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """Return the rows of Parquet files, one below the other; `options` as for `polars.scan_parquet`.

        No other option is set, and no path is expanded or split. Polars raises for what can't be read when the frame
        is collected; a failure of the storage may be raised at once, as StorageError.
        """

    def schema(self, file: StoredFile) -> pl.Schema:
        """Return columns and types of a Parquet file, from its footer. Raises PolarsError if it has none."""

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """Return what a Parquet footer can be read from: the file, or its end."""

    def local(self, file: StoredFile) -> Path:
        """Return a local file with this content: the file itself, or a copy, which is removed when the process ends.

        Raises StorageError if the content has changed since the listing.
        """

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """Return the key-value metadata of a Parquet file. Raises PolarsError if it has no footer."""

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """Prepare for files that will be read more than once.

        Where requests cost more than reads, files are copied to the local disk: small ones, or all with `whole`.
        """

    def scratch(self, suffix: str) -> Path:
        """Return a new name for a local temporary file, on the same disk as the lake where the lake is local."""

    def sweep(self) -> int:
        """Remove temporary files that dead processes have left; return how many.

        Anything that is not certainly such a file, or can't be removed, is left. Raises nothing.
        """
