"""Files of a lake: list, read, publish atomically, delete. The only place that knows where they are kept."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from lake import paths
from schemas.errors import StorageError


class StoredFile(NamedTuple):
    """One file of the lake; `identity` changes whenever its content does."""

    path: str
    size_bytes: int
    identity: str


class Storage(Protocol):
    """What a lake needs of a file system. Paths are relative to the lake's root, with `/`.

    Every method raises StorageError naming the path when the storage fails.
    """

    url: str

    def list(self, prefix: str) -> list[StoredFile]:
        """All files below a folder, sorted by path; none if there is no such folder."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is none."""

    def publish(self, path: str, content: bytes) -> None:
        """Create or replace one file; readers see the old or the new content, never a part."""

    def publish_file(self, path: str, local: Path) -> None:
        """Like `publish`, with the content of a local file, which is taken away."""

    def create(self, path: str, content: bytes) -> bool:
        """Create a file if there is none, as one step; False, with nothing changed, if there is."""

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    def uri(self, path: str) -> str:
        """What Polars' and pyarrow's own readers take for this path."""

    def scratch(self, suffix: str) -> Path:
        """A new name for a local temporary file, on the same disk as the lake where the lake is local."""

    def sweep(self) -> int:
        """Remove temporary files that earlier processes left; gives how many."""


class LocalStorage:
    """A lake in a local folder: temporary name, fsync, rename, fsync of the folder."""

    def __init__(self, root: str | Path) -> None:
        """Take a folder, which need not exist yet."""
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)

    def list(self, prefix: str) -> list[StoredFile]:
        """All files below a folder, sorted by path."""
        with _naming(prefix, "list"):
            return sorted(self._walk(prefix.rstrip("/")))

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is none."""
        with _naming(path, "read"):
            try:
                return (self.root / path).read_bytes()
            except FileNotFoundError:
                return None

    def publish(self, path: str, content: bytes) -> None:
        """Write under a temporary name, then rename."""
        local = self.scratch("")
        with _naming(path, "write"):
            local.write_bytes(content)
        self.publish_file(path, local)

    def publish_file(self, path: str, local: Path) -> None:
        """Fsync, then rename over the target."""
        target = self.root / path
        with _naming(path, "write"):
            _fsync(local)
            target.parent.mkdir(parents=True, exist_ok=True)
            local.replace(target)
            _fsync(target.parent)

    def create(self, path: str, content: bytes) -> bool:
        """Write under a temporary name, then link, which fails where the target exists."""
        target, local = self.root / path, self.scratch("")
        with _naming(path, "create"):
            local.write_bytes(content)
            _fsync(local)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(local)
            except FileExistsError:
                return False
            finally:
                local.unlink()
            _fsync(target.parent)
            return True

    def delete(self, path: str) -> None:
        """Remove the file, and folders that it leaves empty."""
        target = self.root / path
        with _naming(path, "delete"):
            target.unlink(missing_ok=True)
            for folder in target.relative_to(self.root).parents:
                if len(folder.parts) <= 1 or not _remove_if_empty(self.root / folder):
                    break

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return (self.root / path).is_file()

    def uri(self, path: str) -> str:
        """The absolute path."""
        return str(self.root / path)

    def scratch(self, suffix: str) -> Path:
        """A name in the lake's own temporary folder."""
        folder = self.root / paths.TEMPORARY
        with _naming(paths.TEMPORARY, "create"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{os.getpid()}-{uuid.uuid4().hex}{suffix}"

    def sweep(self) -> int:
        """Remove temporary files of processes that no longer run."""
        folder = self.root / paths.TEMPORARY
        left = [file for file in folder.glob("*") if not _runs(file.name.split("-")[0])]
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)

    def _walk(self, folder: str) -> Iterator[StoredFile]:
        try:
            entries = list(os.scandir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                yield from self._walk(path)
            else:
                stat = entry.stat()
                yield StoredFile(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}")


def open_storage(url: str) -> Storage:
    """The storage of a lake's URL: a local path, or `file://`. Raises StorageError for other schemes."""
    if url.startswith("file://"):
        return LocalStorage(url.removeprefix("file://"))
    if "://" in url:
        raise StorageError(
            "this kind of lake URL is not supported yet",
            where=url.split("://", maxsplit=1)[0] + "://",
            expected="a local path or file://",
        )
    return LocalStorage(url)


@contextmanager
def _naming(path: str, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"could not {action} this file of the lake", where=path, found=error.strerror or str(error)
        ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        # Not empty, or somebody landed a file at this very moment: the folder stays.
        return False
    return True


def _runs(process_id: str) -> bool:
    if not process_id.isdigit():
        return False
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
