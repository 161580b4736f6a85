"""Lists every file below a folder of a lake on a disk, and entries that can't be read as a file.

A producer may rename and remove at any time: entries that are gone when they are read are ignored.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from lake.storage.base import StoredFile
from lake.storage.path_checks import DEAD_LINK, LINK_LOOP, kind_of


def walk(root: str, folder: str, *, linked: bool) -> Iterator[StoredFile]:
    """Yield the files below a folder, in no order; `linked` says whether a link leads to the folder.

    Links are followed to files, and to folders of partitions (`name=value`): a link to any other folder could lead
    all over the machine. What can't be read as a file, a folder included, is yielded with the reason. Raises OSError
    if the folder itself can't be listed.
    """
    # By text, since a lake has many folders and a path object for each takes as long as the rest.
    folders = [(folder, linked)]
    while folders:
        inner, is_linked = folders.pop()
        try:
            entries = list(os.scandir(f"{root}/{inner}"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if inner == folder:
                raise
            yield StoredFile(inner, 0, "", f"a folder that can't be listed: {error.strerror}", is_linked)
            continue
        for entry in entries:
            path = f"{inner}/{entry.name}" if inner else entry.name
            if not _is_unicode(path):
                escaped = os.fsencode(path).decode(errors="backslashreplace")
                yield StoredFile(escaped, 0, "", "a name that is not UTF-8", is_linked)
            elif entry.is_dir(follow_symlinks=False):
                folders.append((path, is_linked))
            else:
                entry_file = _look_at(root, path, entry, linked=is_linked)
                if isinstance(entry_file, str):
                    folders.append((entry_file, True))
                elif entry_file:
                    yield entry_file


def regular_file(path: str, status: os.stat_result, *, linked: bool = False) -> StoredFile:
    """Return a regular file as storages know it."""
    identity = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
    return StoredFile(path, status.st_size, identity, "", linked)


def _look_at(root: str, path: str, entry: os.DirEntry[str], *, linked: bool) -> StoredFile | str | None:
    """Return the file, or the path of a linked folder that must be listed too; None for an entry that is gone."""
    is_link = entry.is_symlink()
    try:
        status = entry.stat(follow_symlinks=is_link)
        if stat.S_ISREG(status.st_mode):
            return regular_file(path, status, linked=linked or is_link)
        is_folder = is_link and stat.S_ISDIR(status.st_mode)
        reason = _why_not_followed(root, path, status) if is_folder else kind_of(status.st_mode)
    except FileNotFoundError:
        if not (is_link and os.path.islink(f"{root}/{path}")):  # noqa: PTH114 - as above
            return None
        reason = DEAD_LINK
    except OSError as error:
        reason = LINK_LOOP if error.errno == errno.ELOOP else f"no access: {error.strerror}"
    return StoredFile(path, 0, "", reason, linked or is_link) if reason else path


def _why_not_followed(root: str, path: str, target: os.stat_result) -> str:
    """Return why a link to a folder is not followed; empty if it is."""
    if "=" not in path.rsplit("/", 1)[-1]:
        return "a link to a folder"
    parents = path.split("/")[:-1]
    folders = (f"{root}/{'/'.join(parents[:end])}" for end in range(len(parents) + 1))
    return LINK_LOOP if any(os.path.samestat(target, os.stat(each)) for each in folders) else ""  # noqa: PTH116


def _is_unicode(path: str) -> bool:
    return path.isascii() or not any("\udc80" <= character <= "\udcff" for character in path)
