"""What a lake needs of the place where its files are kept."""

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
    # Whether it is, or lies behind, a link inside the lake: it may be read, and is neither moved nor removed.
    linked: bool = False


class Storage(Protocol):
    """What a lake needs of a file system. Paths are relative to the lake's root, with `/`.

    A path that could leave the root is refused, and so is writing behind a link. Only regular files are opened: for
    anything else BrokenLakeError is raised.

    Every method raises StorageError naming the path when the storage fails or denies; what may pass by itself
    has then been tried again, a bounded number of times.
    """

    url: str
    # Whether `create` is known to be exclusive; where it depends on the server, the lease makes sure of it.
    creates_exclusively: bool

    @property
    def server(self) -> str:
        """What answers for the files: the server's URL, or the kind of file system. Holds no secret."""

    def list(self, prefix: str) -> list[StoredFile]:
        """All files below a folder, sorted by path; none if there is no such folder.

        What is there and can't be read as a file, such as a link that leads nowhere, is `unreadable` with the reason.
        """

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is none."""

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """The content of several files, in parallel where that is faster; None for one that is not there."""

    def publish(self, path: str, content: bytes) -> None:
        """Create or replace one file; readers see the old or the new content, never a part."""

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        """Like `publish`, with the content of a local file, which is taken away.

        Gives what `scan` and `metadata` take for it; with `keep` those read a copy on the local disk. Without,
        the identity is the one that `list` will tell, or empty where only `list` can.
        """

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Create a file if there is none, as one step; None, with nothing changed, if there is.

        The identity is as `publish_file` tells it.
        """

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove several files, with few requests; nothing happens for one that is not there."""

    def sync(self, paths: Iterable[str]) -> None:
        """See that files that are there outlast a loss of power, before something is done that can't be undone.

        Another process may have published them and been killed before it came to that.
        """

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    def modified(self, path: str) -> dt.datetime | None:
        """When a file was last written, by the storage; None if it is not there, or where that takes a request."""

    def server_time(self) -> dt.datetime | None:
        """The date of the server's last answer to a listing; None where there is none, or no server."""

    def uri(self, path: str) -> str:
        """The path as people and other programs name it."""

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """The rows of Parquet files, one below the other; `options` as for `polars.scan_parquet`.

        No option but these is set, and no path is expanded or taken apart. What can't be read is told when the
        frame is collected, by Polars; a failure of the storage may be told at once, as StorageError.
        """

    def schema(self, file: StoredFile) -> pl.Schema:
        """Columns and types of a Parquet file, from its footer. Raises PolarsError if it has none."""

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """A Parquet file as far as its footer is concerned: the file, or its end."""

    def local(self, file: StoredFile) -> Path:
        """A local file with this content: the file itself, or a copy, which ends with the process.

        Raises StorageError if there is another content now.
        """

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """The key-value metadata of a Parquet file. Raises PolarsError if it has no footer."""

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """Tell that these files will be read more than once.

        Where a request costs more than a read, copies are kept on the local disk: of small files, or of all
        with `whole`.
        """

    def scratch(self, suffix: str) -> Path:
        """A new name for a local temporary file, on the same disk as the lake where the lake is local."""

    def sweep(self) -> int:
        """Remove temporary files that dead processes have left; return how many.

        What is not certainly one of them is left alone, and so is what can't be removed: it raises nothing.
        """
