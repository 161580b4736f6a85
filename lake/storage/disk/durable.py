"""Durable changes of a local folder tree: once done, they survive a loss of power.

A new, renamed or removed name is on the disk only once its folder is synced, and a new folder only once the folder
above it is. So each change ends with these syncs, and an interrupted change is either made or not.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

# Another process may repeatedly remove a new, empty folder before a file gets its name in it.
ATTEMPTS = 100
# A process that made a folder may have ended before it synced the one above; after so long the system has synced it.
FRESH_SECONDS = 60


class Disk:
    """The folders from a root on down."""

    def __init__(self, root: Path) -> None:
        """Take the root, which need not exist yet."""
        self._root = root
        # When each folder had last changed, as of its last sync by this object.
        self._synced: dict[str, int] = {}

    def put(self, local: Path, target: Path, name: Callable[[Path, Path], None]) -> None:
        """Sync a file, and give it its name in the tree with `name`, `os.replace` or `os.link`."""
        sync_file(local)
        folder, above = str(target.parent), list[str]()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                above = self._make(folder)
                name(local, target)
                break
            except FileNotFoundError:
                if attempt == ATTEMPTS or not local.exists():
                    raise
            except FileExistsError:
                # By another process, which may not have synced it yet.
                self._sync_all(folder, *above)
                raise
        # From the file up: a disk that writes at once all that has changed has little to do for the folders above.
        self._sync_all(folder, *above)

    def make(self, folder: Path) -> None:
        """Make a folder and all above it, with durable names."""
        self._sync_all(*self._make(str(folder)))

    def sync_names(self, folder: Path) -> None:
        """Make the names in a folder, and its own, durable against a loss of power, whoever made them."""
        if folder.is_dir():
            self.make(folder)
            self._sync_if_fresh(str(folder))

    def unlink(self, target: Path) -> bool:
        """Remove a file, for good only after `remove_empty`; return whether it existed."""
        try:
            target.unlink()
        except FileNotFoundError:
            # Removed before, perhaps by a process that ended before it synced that.
            self._sync_if_fresh(str(_existing(target.parent)))
            return False
        return True

    def remove_empty(self, folders: Iterable[Path]) -> None:
        """Remove the empty ones of these folders, and sync each folder that stays once."""
        for folder in {self._remove_while_empty(folder) for folder in folders}:
            self._sync(str(folder))

    def _remove_while_empty(self, folder: Path) -> Path:
        """Remove a folder and those above it while they are empty; return the first that stays.

        Folders directly below the root always stay.
        """
        while len(folder.parts) > len(self._root.parts) + 1:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                # Not empty, or somebody landed a file at this very moment: the folder stays.
                break
            folder = folder.parent
        return folder

    def _make(self, folder: str) -> list[str]:
        """Make a folder and all above it; return the folders to sync for durable names, from the lowest up."""
        if _changed(folder) is None:
            above = self._make(_above(folder))
            # Another process may make it first; what is no folder fails when it is written to.
            with suppress(FileExistsError):
                os.mkdir(folder)  # noqa: PTH102 - here and below, paths as text: an object for each takes longer
            return [_above(folder), *above]
        unsynced = []
        while len(folder) > len(str(self._root)):
            folder = _above(folder)
            if self._is_unsynced(folder):
                unsynced.append(folder)
        return unsynced

    def _sync_all(self, *folders: str) -> None:
        for folder in folders:
            self._sync(folder)

    def _sync(self, folder: str) -> None:
        """Sync a folder, or the first above it where another process has removed it."""
        while True:
            changed = _changed(folder)
            try:
                sync_folder(folder)
            except FileNotFoundError:
                folder = _above(folder)
            else:
                self._synced[folder] = changed or 0
                return

    def _sync_if_fresh(self, folder: str) -> None:
        """Sync a folder that changed recently, unless this object has synced it since."""
        if self._is_unsynced(folder):
            self._sync(folder)

    def _is_unsynced(self, folder: str) -> bool:
        """Return whether a folder changed recently and after this object synced it, or no longer exists."""
        changed = _changed(folder)
        if changed is None:
            return True
        return time.time() - changed / 1e9 < FRESH_SECONDS and self._synced.get(folder) != changed


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    _sync_descriptor(os.open(path, os.O_RDONLY))


def sync_folder(folder: str) -> None:
    """Flush the names in a folder to the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        # A folder that may be written but not read can't be opened, so everything is synced.
        os.sync()
    else:
        _sync_descriptor(descriptor)


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _above(folder: str) -> str:
    return folder.rpartition("/")[0] or "/"


def _changed(folder: str) -> int | None:
    """Return when a folder last changed; None where there is none."""
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return status.st_mtime_ns if stat.S_ISDIR(status.st_mode) else None


def _existing(folder: Path) -> Path:
    """Return the folder, or the first above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())
