"""A disk that loses power: of what was not synced, each content and each name in a folder is there afterwards or not.

It stands below a lake in a folder and records the calls of `os` that change one. POSIX promises no more than this: a
file's content after `fsync` of the file, a name after `fsync` of its folder, and of the rest nothing, in no order.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any
from unittest.mock import patch

# The calls that are recorded, with how many paths each takes.
CHANGES = {"mkdir": 1, "rmdir": 1, "unlink": 1, "replace": 2, "link": 2, "fsync": 1}
NEVER = 10**9
# Not the recorded one.
LINK = os.link


class EndedError(BaseException):
    """The process is killed, or there is no power: nothing that handles errors may handle this."""


class File:
    """A file, with a link to it by which it can be brought back as it was: with its times and its inode."""

    def __init__(self, kept: Path, *, synced: bool) -> None:
        self.kept, self.synced = kept, synced


class Folder:
    """A folder: its names as of the last sync, and for each name that changed since all that it has stood for."""

    def __init__(self) -> None:
        self.now: dict[str, File | Folder] = {}
        self.synced: dict[str, File | Folder] = {}
        self.since: dict[str, list[File | Folder | None]] = {}

    def change(self, name: str, node: File | Folder | None) -> None:
        """Have a name stand for another file or folder, or for none."""
        self.since.setdefault(name, []).append(node)
        self.now.pop(name, None)
        if node:
            self.now[name] = node

    def sync(self) -> None:
        """Have the names as they are now on the disk."""
        self.synced, self.since = dict(self.now), {}


class LosingDisk:
    """Records what happens to the folders below `root` while it is `recording`; all that is there first is synced."""

    def __init__(self, root: Path, kept: Path) -> None:
        """Take the root, and a folder on the same disk for links to files that may come back."""
        self._root, self._paths = root, kept
        kept.mkdir()
        self._files = 0
        # Above the root there is one folder more, so that the root's own name can be lost.
        self._top = Folder()
        if root.is_dir():
            self._top.change(root.name, self._as_it_is(root))
        self._top.sync()
        self.done, self._fails_at = 0, NEVER
        self.syncs = 0
        self._lock = RLock()

    @contextmanager
    def recording(self, fails_at: int = NEVER) -> Iterator[None]:
        """Record the changes of the body; it ends before the one of this number, and changes nothing any more."""
        self.done, self._fails_at = 0, fails_at
        calls = {name: self._recorded(name, getattr(os, name)) for name in CHANGES}
        with patch.multiple(os, **calls):
            yield

    def lose(self, chance: random.Random) -> None:
        """Leave the folder as it may be once there is power again."""
        keeps = chance.choice([lambda: False, lambda: True, lambda: chance.random() < 0.5])
        if self._root.exists():
            shutil.rmtree(self._root)
        self._restore(self._top, self._root.parent, chance, keeps)

    def _recorded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*given: Any, **options: Any) -> Any:
            with self._lock:
                places = [self._place(each, options) for each in given[: CHANGES[name]]]
                if not any(places):
                    return call(*given, **options)
                self.done += 1
                if self.done >= self._fails_at:
                    raise EndedError
                if name == "fsync":
                    self.syncs += 1
                    return self._sync(places[0])
                nodes = [self._node(place) for place in places]
                result = call(*given, **options)
                self._changed(name, places, nodes)
                return result

        return recorded

    def _place(self, given: str | int | Path, options: dict[str, Any]) -> Path | None:
        """The path that a call is about; None outside the root."""
        if isinstance(given, int):
            path = Path(f"/proc/self/fd/{given}").readlink()
        elif options.get("dir_fd") is not None:
            path = Path(f"/proc/self/fd/{options['dir_fd']}").readlink() / given
        else:
            path = Path(given)
        return path if path == self._root.parent or path.is_relative_to(self._root) else None

    def _sync(self, place: Path | None) -> None:
        assert place
        node = self._node(place)
        if isinstance(node, Folder):
            node.sync()
        elif node:
            node.synced = True

    def _changed(self, name: str, places: list[Path | None], nodes: list[File | Folder | None]) -> None:
        first, last = places[0], places[-1]
        assert first
        assert last
        if name in {"rmdir", "unlink"}:
            self._folder(first).change(first.name, None)
        elif name == "mkdir":
            self._folder(first).change(first.name, Folder())
        else:
            if name == "replace":
                self._folder(first).change(first.name, None)
            self._folder(last).change(last.name, nodes[0])

    def _folder(self, path: Path) -> Folder:
        found = self._node(path.parent)
        assert isinstance(found, Folder), path
        return found

    def _node(self, path: Path) -> File | Folder | None:
        """What is at a path now; a file that somebody has written there since is not synced."""
        if path == self._root.parent:
            return self._top
        folder = self._node(path.parent)
        if not isinstance(folder, Folder):
            return None
        if path.name not in folder.now and path.is_file():
            folder.change(path.name, self._file(path, synced=False))
        return folder.now.get(path.name)

    def _as_it_is(self, path: Path) -> Folder:
        folder = Folder()
        for entry in path.iterdir():
            folder.now[entry.name] = (
                self._as_it_is(entry) if entry.is_dir() else self._file(entry, synced=True)
            )
        folder.sync()
        return folder

    def _file(self, path: Path, *, synced: bool) -> File:
        self._files += 1
        kept = self._paths / str(self._files)
        LINK(path, kept)
        return File(kept, synced=synced)

    def _restore(self, folder: Folder, path: Path, chance: random.Random, keeps: Callable[[], bool]) -> None:
        for name in folder.synced.keys() | folder.since.keys():
            node = folder.synced.get(name)
            if name in folder.since and keeps():
                node = folder.since[name][-1]
            elif name in folder.since and keeps():
                node = chance.choice(folder.since[name])
            if isinstance(node, Folder):
                (path / name).mkdir()
                self._restore(node, path / name, chance, keeps)
            elif node and (node.synced or keeps()):
                (path / name).hardlink_to(node.kept)
            elif node:
                content = node.kept.read_bytes()
                (path / name).write_bytes(content[: chance.choice([0, len(content) // 2])])
