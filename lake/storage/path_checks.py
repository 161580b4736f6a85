"""Checks of every storage: paths stay inside the lake, and on a disk nothing is written through a link."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from lake.storage.base import StoredFile
from schemas.errors import BrokenLakeError, PathRefusedError

# One or more names with `/` between them; none is empty, `.` or `..`, and none has a NUL.
_PATH = re.compile(r"(?:(?!\.{1,2}(?:/|\Z))[^/\0]+(?:/|\Z))+(?<!/)")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
DEAD_LINK = "a link that leads nowhere"
LINK_LOOP = "a link that leads in a circle"


def check_path(path: str) -> str:
    """Return a path relative to the lake's root as it is. Raises PathRefusedError for one that could leave the root."""
    if _PATH.fullmatch(path) and (path.isascii() or _is_unicode(path)):
        return path
    raise PathRefusedError(
        "not a path inside a lake",
        where=repr(path),
        expected="names with / between them, none of them empty, . or ..",
        hint="a record in the lake may be damaged or planted; nothing was read or written there",
    )


def check_folder(prefix: str) -> str:
    """Return a folder's path without its last `/`; empty is the lake's root. Raises PathRefusedError as `check_path` does."""
    return check_path(prefix.removesuffix("/")) if prefix else prefix


def check_no_links(root: Path, path: str) -> None:
    """Raise PathRefusedError if a folder on the way from the lake's root to a file is a link: nothing is written there."""
    if link := linked_folder(root, path):
        raise PathRefusedError(
            "nothing is written through a link inside a lake",
            where=link,
            expected="a folder",
            found="a link",
            hint="replace the link by the folder that it leads to, or mount that; the lake's root itself may be a link",
        )


def linked_folder(root: Path, path: str) -> str:
    """Return the first folder on the way from the lake's root to a file that is a link; empty if none is."""
    folder = ""
    for name in path.lstrip("/").split("/")[:-1]:
        folder = f"{folder}/{name}" if folder else name
        if os.path.islink(f"{root}/{folder}"):  # noqa: PTH114 - a path object takes longer than the question
            return folder
    return ""


def open_regular(root: Path, path: str) -> BinaryIO:
    """Open a file of the lake for reading, without waiting, as one would for the writer of a named pipe.

    Raises BrokenLakeError for anything but a regular file, and OSError for a folder, a missing file, and as `open`.
    """
    local = root / path
    try:
        descriptor = os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        kind = _kind_of_unopened(local, error)
        if kind:
            raise not_regular_error(path, kind) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(local))
    raise not_regular_error(path, kind_of(mode))


def check_readable(file: StoredFile) -> StoredFile:
    """Return a listed file as it is. Raises BrokenLakeError if it can't be read as one."""
    if file.unreadable:
        raise not_regular_error(file.path, file.unreadable)
    check_path(file.path)
    return file


def check_regular(root: Path, path: str) -> None:
    """Raise BrokenLakeError for anything but a regular file; for readers that open the path themselves."""
    try:
        kind = kind_of(os.stat(f"{root}/{path}").st_mode)  # noqa: PTH116 - as above
    except OSError:
        # Opening it will raise the error.
        return
    if kind:
        raise not_regular_error(path, kind)


def kind_of(mode: int) -> str:
    """Return what a file of this mode is, in words; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def not_regular_error(path: str, found: str) -> BrokenLakeError:
    """Return the error for something in the lake that can't be read as a file."""
    return BrokenLakeError(
        "this can't be read",
        where=path,
        expected="a regular file",
        found=found,
        hint="replace or remove it",
    )


def _kind_of_unopened(local: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT and local.is_symlink():
        return DEAD_LINK
    return {errno.ELOOP: LINK_LOOP, errno.ENXIO: _KINDS[stat.S_IFSOCK]}.get(error.errno or 0, "")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
