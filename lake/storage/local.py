"""A lake in a local folder."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from lake import paths
from lake.storage.base import StoredFile
from lake.storage.disk.durable import Disk
from lake.storage.disk.temporary import own_name, sweep_files
from lake.storage.disk.walk import regular_file, walk
from lake.storage.path_checks import (
    DEAD_LINK,
    check_folder,
    check_no_links,
    check_path,
    check_readable,
    check_regular,
    linked_folder,
    open_regular,
)
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
        """Return all files below a folder, sorted by path."""
        folder = check_folder(prefix)
        link = linked_folder(self.root, f"{folder}/")
        with _naming(prefix, "list"):
            if link and not (self.root / link).exists():
                raise StorageError("could not list this folder of the lake", where=link, found=DEAD_LINK)
            return sorted(walk(self.url, folder, linked=bool(link)))

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        with _naming(path, "read"):
            try:
                with open_regular(self.root, check_path(path)) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """Return the content of several files, one after the other."""
        return [self.read(path) for path in paths]

    def publish(self, path: str, content: bytes) -> None:
        """Write under a temporary name, then rename."""
        local = self.scratch("")
        with _naming(path, "write"):
            local.write_bytes(content)
        self.publish_file(path, local)

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:  # noqa: ARG002
        """Sync, then rename over the target."""
        target = self._target(path)
        with _naming(path, "write"):
            stored = regular_file(path, local.stat())
            self._disk.put(local, target, os.replace)
        return stored

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Write under a temporary name, then link, which fails where the target exists."""
        target, local = self._target(path), self.scratch("")
        with _naming(path, "create"):
            local.write_bytes(content)
            stored = regular_file(path, local.stat())
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
            target = self._target(path)
            with _naming(path, "delete"):
                if self._disk.unlink(target):
                    folders[target.parent] = path
        with _naming(next(iter(folders.values()), ""), "delete"):
            self._disk.remove_empty(folders)

    def sync(self, paths: Iterable[str]) -> None:
        """Sync the folders of these files if they changed recently."""
        for folder, path in {self._target(path).parent: path for path in paths}.items():
            with _naming(path, "sync"):
                self._disk.sync_names(folder)

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        return (self.root / check_path(path)).is_file()

    def modified(self, path: str) -> dt.datetime | None:
        """Return when a file was last written."""
        try:
            return dt.datetime.fromtimestamp((self.root / check_path(path)).lstat().st_mtime, dt.UTC)
        except (OSError, ValueError, OverflowError):
            # It is gone, or dated beyond the calendar.
            return None

    def server_time(self) -> dt.datetime | None:
        """Return None: the disk of this machine has its clock."""
        return None

    def uri(self, path: str) -> str:
        """Return the absolute path."""
        return str(self.root / path)

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """Return the rows of Parquet files."""
        return scan_local([self._source(file) for file in files], **options)

    def schema(self, file: StoredFile) -> pl.Schema:
        """Return columns and types, from the footer."""
        # As an open file, since a name with brackets would be taken for a pattern.
        with open_regular(self.root, check_readable(file).path) as handle:
            return pl.Schema(pl.read_parquet_schema(handle))

    def footer(self, file: StoredFile) -> Path | BinaryIO:
        """Return the file."""
        return self._source(file)

    def local(self, file: StoredFile) -> Path:
        """Return the file."""
        return self._source(file)

    def metadata(self, file: StoredFile) -> dict[str, str]:
        """Return the key-value metadata, from the footer."""
        with open_regular(self.root, check_readable(file).path) as handle:
            return pl.read_parquet_metadata(handle)

    def prefetch(self, files: Sequence[StoredFile], *, whole: bool = False) -> None:
        """Do nothing: the files are local."""

    def scratch(self, suffix: str) -> Path:
        """Return a name in the lake's own temporary folder. Raises StorageError if that is a link, which is not followed."""
        folder = self.root / paths.TEMPORARY
        with _naming(paths.TEMPORARY, "create"):
            self._disk.make(folder)
            if folder.is_symlink():
                raise StorageError(
                    "the folder of temporary files is a link",
                    where=paths.TEMPORARY,
                    expected="a folder",
                    found=f"a link to {folder.readlink()}",
                    hint="remove the link: jobs write through no link inside a lake",
                )
        return folder / own_name(suffix)

    def sweep(self) -> int:
        """Remove temporary files that dead processes have left; return how many."""
        return sweep_files(self.root / paths.TEMPORARY)

    def _source(self, file: StoredFile) -> Path:
        """Return where a listed file is read. Raises BrokenLakeError unless it is a regular file, or gone."""
        check_regular(self.root, check_readable(file).path)
        return self.root / file.path

    def _target(self, path: str) -> Path:
        """Return where a file is written or removed. Raises StorageError outside the lake, and behind a link."""
        check_no_links(self.root, check_path(path))
        return self.root / path


def scan_local(files: Sequence[Path], **options: Any) -> pl.LazyFrame:
    """Return the rows of local Parquet files, exactly these."""
    return pl.scan_parquet(list(files), glob=False, hive_partitioning=False, **options)


@contextmanager
def _naming(path: str, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"could not {action} this file of the lake", where=path, found=error.strerror or str(error)
        ) from error
