"""A lake in a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from lake import paths
from lake.storage.disk import Disk
from lake.storage.protocol import StoredFile
from lake.storage.temporary import own_name, sweep_files
from schemas.errors import StorageError


class LocalStorage:
    """A lake in a local folder: temporary name, sync, rename, sync of the folder."""

    creates_exclusively = True
    server = "file"

    def __init__(self, root: str | Path) -> None:
        """Take a folder, which need not exist yet."""
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)
        self._disk = Disk(self.root)

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

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """The content of several files, one after the other."""
        return [self.read(path) for path in paths]

    def publish(self, path: str, content: bytes) -> None:
        """Write under a temporary name, then rename."""
        local = self.scratch("")
        with _naming(path, "write"):
            local.write_bytes(content)
        self.publish_file(path, local)

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:  # noqa: ARG002
        """Sync, then rename over the target."""
        target = self.root / path
        with _naming(path, "write"):
            stored = _stored(path, local.stat())
            self._disk.put(local, target, os.replace)
        return stored

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Write under a temporary name, then link, which fails where the target exists."""
        target, local = self.root / path, self.scratch("")
        with _naming(path, "create"):
            local.write_bytes(content)
            stored = _stored(path, local.stat())
            try:
                self._disk.put(local, target, os.link)
            except FileExistsError:
                return None
            finally:
                local.unlink()
            return stored

    def delete(self, path: str) -> None:
        """Remove the file, and folders that it leaves empty."""
        self.delete_all([path])

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove the files, and folders that they leave empty; each folder that stays is synced once."""
        folders: dict[Path, str] = {}
        for path in paths:
            with _naming(path, "delete"):
                if self._disk.unlink(self.root / path):
                    folders[(self.root / path).parent] = path
        with _naming(next(iter(folders.values()), ""), "delete"):
            self._disk.tidy(folders)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return (self.root / path).is_file()

    def uri(self, path: str) -> str:
        """The absolute path."""
        return str(self.root / path)

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """The rows of Parquet files."""
        return scan_local([self.root / file.path for file in files], **options)

    def schema(self, file: StoredFile) -> pl.Schema:
        """Columns and types, from the footer."""
        # By a handle, since a producer's name with brackets would be taken for a pattern.
        with (self.root / file.path).open("rb") as handle:
            return pl.Schema(pl.read_parquet_schema(handle))

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """The file."""
        return self.root / file.path

    def local(self, file: StoredFile) -> Path:
        """The file."""
        return self.root / file.path

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """The key-value metadata, from the footer."""
        with (self.root / file.path).open("rb") as handle:
            return pl.read_parquet_metadata(handle)

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """Nothing: the files are here."""

    def scratch(self, suffix: str) -> Path:
        """A name in the lake's own temporary folder. Raises StorageError if that is a link, which is not followed."""
        folder = self.root / paths.TEMPORARY
        with _naming(paths.TEMPORARY, "create"):
            self._disk.make(folder)
            if folder.is_symlink():
                raise StorageError(
                    "the folder of temporary files is a link",
                    where=paths.TEMPORARY,
                    expected="a folder",
                    found=f"a link to {folder.readlink()}",
                    hint="remove the link: jobs write through none inside a lake",
                )
        return folder / own_name(suffix)

    def sweep(self) -> int:
        """Remove temporary files that dead processes have left."""
        return sweep_files(self.root / paths.TEMPORARY)

    def _walk(self, folder: str) -> Iterator[StoredFile]:
        # By text, since a lake has many folders and a path object for each takes as long as the rest.
        left = [folder]
        while left:
            inner = left.pop()
            try:
                entries = list(os.scandir(f"{self.url}/{inner}"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                path = f"{inner}/{entry.name}" if inner else entry.name
                if entry.is_dir():
                    left.append(path)
                else:
                    yield _stored(path, entry.stat())


def scan_local(files: Sequence[Path], **options: Any) -> pl.LazyFrame:
    """The rows of local Parquet files, exactly these."""
    return pl.scan_parquet(list(files), glob=False, hive_partitioning=False, **options)


@contextmanager
def _naming(path: str, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"could not {action} this file of the lake", where=path, found=error.strerror or str(error)
        ) from error


def _stored(path: str, stat: os.stat_result) -> StoredFile:
    return StoredFile(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}")
