"""A lake on any file system that fsspec knows: read only, but for `memory://`, which tests write to."""

from __future__ import annotations

import datetime as dt
import io
import re
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import polars as pl

from lake.storage.base import Storage, StoredFile
from lake.storage.disk.temporary import sweep_folders
from lake.storage.download_cache import DownloadCache
from lake.storage.errors import has_secrets, storage_error
from lake.storage.local import scan_local
from lake.storage.path_checks import check_folder, check_path
from schemas.errors import StorageError

# Footers are rarely longer; the rest of a longer one is read with a second request.
FOOTER_BYTES = 64 * 2**10
FOOTER_END_BYTES = 8
# Members of a file's information that change with its content, by preference.
IDENTITIES = (
    "ETag",
    "etag",
    "md5",
    "md5Hash",
    "crc32c",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
)
USER = re.compile(r"(?<=://)[^/@]*@")


class FsspecStorage:
    """A lake that is read through fsspec. Whole Parquet files are copied to the local disk to be read."""

    creates_exclusively = False

    def __init__(self, url: str, fs: Any, root: str) -> None:
        """Take a file system of fsspec, and the lake's root in it."""
        # A password in a URL must not get into reports.
        self.url = USER.sub("", url.rstrip("/"))
        self._fs, self._root = fs, root.rstrip("/")
        self._cache = DownloadCache()

    @property
    def server(self) -> str:
        """The scheme of the lake's URL."""
        return self.url.partition("://")[0]

    def list(self, prefix: str) -> list[StoredFile]:
        """Return all files below a folder, sorted by path."""
        folder = f"{self._root}/{check_folder(prefix)}".rstrip("/")
        with self._naming(prefix, "list"):
            try:
                files = self._fs.find(folder, detail=True)
            except FileNotFoundError:
                return []
            start = folder.lstrip("/") + "/"
            inside = {path: info for path, info in files.items() if path.lstrip("/").startswith(start)}
            return sorted(self._stored(path, info) for path, info in inside.items())

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        with self._naming(path, "read"):
            try:
                return bytes(self._fs.cat_file(self._full(path)))
            except FileNotFoundError:
                return None

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """Return the content of several files, one after the other."""
        return [self.read(path) for path in paths]

    def publish(self, path: str, content: bytes) -> None:  # noqa: ARG002 - those who write take it
        """Raise StorageError: this storage is read-only."""
        raise self._read_only(path)

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        """Like `publish`; the local file is removed, or with `keep` becomes the cached copy."""
        stored = self._upload(path, local)
        if keep:
            return self._cache.adopt(path, local)
        local.unlink()
        return stored

    def create(self, path: str, content: bytes) -> StoredFile | None:  # noqa: ARG002 - those who write take it
        """Raise StorageError: this storage is read-only."""
        raise self._read_only(path)

    def delete(self, path: str) -> None:
        """Raise StorageError: this storage is read-only."""
        raise self._read_only(path)

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove several files, one after the other."""
        for path in paths:
            self.delete(path)

    def sync(self, paths: Iterable[str]) -> None:
        """Do nothing: published files are durable."""

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        with self._naming(path, "look for"):
            return bool(self._fs.isfile(self._full(path)))

    def modified(self, path: str) -> dt.datetime | None:  # noqa: ARG002 - only some storages know
        """Return None: it would take a request."""
        return None

    def server_time(self) -> dt.datetime | None:
        """Return None: not every file system has a server."""
        return None

    def uri(self, path: str) -> str:
        """Return the lake's URL and the path."""
        return f"{self.url}/{path}"

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """Return the rows of Parquet files, which are copied now."""
        # All together, which is faster than one by one.
        self.prefetch(files, whole=True)
        return scan_local([self.local(file) for file in files], **options)

    def schema(self, file: StoredFile) -> pl.Schema:
        """Return columns and types, from the footer."""
        return pl.Schema(pl.read_parquet_schema(self.footer(file)))

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """Return the cached copy of a Parquet file, or its end with the whole footer."""
        if copies := self._cache.get([file]):
            return copies[0]
        with self._naming(file.path, "read"):
            end = self._tail(file.path, FOOTER_BYTES)
            if len(end) < FOOTER_END_BYTES:
                return io.BytesIO(end)
            needed = struct.unpack("<I", end[-FOOTER_END_BYTES:-4])[0] + FOOTER_END_BYTES
            # In a file that is not Parquet these bytes mean nothing.
            long = end.endswith(b"PAR1") and needed > len(end) == FOOTER_BYTES
            return io.BytesIO(self._tail(file.path, needed) if long else end)

    def local(self, file: StoredFile) -> Path:
        """Return the cached copy, which is made now if there is none."""
        self.prefetch([file], whole=True)
        copies = self._cache.get([file])
        if copies is None:
            raise StorageError(
                "a file was replaced while it was read", where=file.path, hint="run the command again"
            )
        return copies[0]

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """Return the key-value metadata, from the footer."""
        return pl.read_parquet_metadata(self.footer(file))

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """Copy small files, or with `whole` all, to the local disk."""
        self._cache.add(files, self._fetch, whole=whole)

    def scratch(self, suffix: str) -> Path:
        """Return a name in this process's temporary folder."""
        return self._cache.new_path(suffix)

    def sweep(self) -> int:
        """Remove temporary folders that dead processes have left; return how many."""
        return sweep_folders(Path(tempfile.gettempdir()))

    def _full(self, path: str) -> str:
        return f"{self._root}/{check_path(path)}"

    def _stored(self, path: str, info: Mapping[str, Any]) -> StoredFile:
        relative = path.lstrip("/").removeprefix(self._root.lstrip("/")).lstrip("/")
        identity = next((str(info[name]) for name in IDENTITIES if info.get(name)), "")
        return StoredFile(relative, info["size"], f"{info['size']}-{identity}")

    def _fetch(self, path: str, local: Path) -> None:
        with self._naming(path, "read"):
            self._fs.get_file(self._full(path), str(local))

    def _tail(self, path: str, size_bytes: int) -> bytes:
        """Return the last bytes of a file, or all if it has fewer."""
        return bytes(self._fs.cat_file(self._full(path), start=-size_bytes))

    def _upload(self, path: str, local: Path) -> StoredFile:
        content = local.read_bytes()
        self.publish(path, content)
        return StoredFile(path, len(content), "")

    @contextmanager
    def _naming(self, path: str, action: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        # Each file system raises the errors of its own library.
        except Exception as error:  # noqa: BLE001
            what = f"could not {action} this file of the lake"
            cause = None if has_secrets(error, self._secrets()) else error
            raise storage_error(what, path, error, self._secrets(), retried=self._retried(error)) from cause

    def _retried(self, error: BaseException) -> bool:  # noqa: ARG002 - those who try again look at it
        """Return whether the failed operation was tried more than once."""
        return False

    def _secrets(self) -> tuple[str, ...]:
        return ()

    def _read_only(self, path: str) -> StorageError:
        return StorageError(
            "a lake on this kind of storage can only be read",
            where=path,
            expected="a local path or s3://",
            found=self.url.split("://")[0] + "://",
        )


class MemoryStorage(FsspecStorage):
    """A lake in the memory of this process, for tests."""

    creates_exclusively = True
    _lock = threading.Lock()

    def list(self, prefix: str) -> list[StoredFile]:
        """Return all files below a folder, sorted by path; an identity is the moment when the content was written."""
        with self._lock:
            return super().list(prefix)

    def publish(self, path: str, content: bytes) -> None:
        """Create or replace one file."""
        with self._lock, self._naming(path, "write"):
            self._fs.pipe_file(self._full(path), content)

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Create a file if there is none."""
        with self._lock, self._naming(path, "create"):
            if self._fs.isfile(self._full(path)):
                return None
            self._fs.pipe_file(self._full(path), content)
            return StoredFile(path, len(content), "")

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._lock, self._naming(path, "delete"):
            if self._fs.isfile(self._full(path)):
                self._fs.rm_file(self._full(path))


def open_other(url: str, options: Mapping[str, str]) -> Storage:
    """Return the storage of a URL that fsspec knows. Raises StorageError if it knows none of this scheme."""
    try:
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    except OSError as error:
        raise storage_error("could not reach the lake", USER.sub("", url), error) from error
    except (ValueError, ImportError) as error:
        raise StorageError(
            "this kind of lake URL is not supported",
            where=url.split("://", maxsplit=1)[0] + "://",
            expected="a local path, file://, s3://, or for reading a file system that fsspec knows",
            found=str(error).splitlines()[0],
        ) from error
    return (MemoryStorage if url.startswith("memory://") else FsspecStorage)(url, fs, root)
