"""Names of temporary files, and removing those that dead processes have left.

A name has its owner: the process and its start, the process namespace, and the kernel's boot. A sweep asks the kernel
whether a process of its own boot and namespace is running. For others, in another container, on another machine or
before a restart, age decides.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lake import paths

# The prefix of our folders in the system's temporary folder; the owner follows.
PREFIX = "meterlake-"
# Files that have not changed for so long have no owner.
MAX_AGE_SECONDS = 7 * 24 * 60 * 60
UNKNOWN = "0"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Versions before format 2 named the process alone.
_OWNER = r"(?P<process>[1-9]\d*)-(?:(?P<boot>[0-9a-f]+)-(?P<namespace>\d+)-(?P<started>\d+)-)?"
_FILE = re.compile(_OWNER + r"[0-9a-f]{32}(?:\.\w+)*")
# The end is that of `tempfile.mkdtemp`.
_FOLDER = re.compile(PREFIX + _OWNER + r"[a-z0-9_]{8}")


class Owner(NamedTuple):
    """A process, as in names of temporary files; parts that the system does not provide are `UNKNOWN`."""

    process: str
    boot: str
    namespace: str
    started: str

    def __str__(self) -> str:
        """Return the parts with `-` between."""
        return "-".join(self)


def own_name(suffix: str) -> str:
    """Return a new name for a temporary file of this process."""
    return f"{this_process()}-{uuid.uuid4().hex}{suffix}"


def this_process() -> Owner:
    """Return this process; not cached across a fork."""
    return _owner(os.getpid())


def sweep_files(folder: Path) -> int:
    """Remove the temporary files in a folder whose owners are dead; return how many.

    Files with other names, anything but regular files, and files that can't be removed are left. A folder that is a link
    is not followed.
    """
    with _opened(folder, os.O_NOFOLLOW) as descriptor:
        abandoned = [entry for entry in _abandoned(descriptor, _FILE) if entry.is_file(follow_symlinks=False)]
        return sum(_removed(os.unlink, entry.name, descriptor) for entry in abandoned)


def sweep_folders(folder: Path) -> int:
    """Remove this user's temporary folders in a folder whose owners are dead; return how many.

    A folder of such a name that contains a folder or a lake's marker is not ours, and is left.
    """
    with _opened(folder) as descriptor:
        abandoned = [
            entry.name for entry in _abandoned(descriptor, _FOLDER) if entry.is_dir(follow_symlinks=False)
        ]
        return sum(_emptied(folder / name) and _removed(os.rmdir, name, descriptor) for name in abandoned)


def _emptied(folder: Path) -> bool:
    """Remove the files in a temporary folder of this user; return whether it is empty then."""
    with _opened(folder, os.O_NOFOLLOW) as descriptor:
        if descriptor is None or os.fstat(descriptor).st_uid != os.geteuid():
            return False
        entries = _entries(descriptor)
        if not all(entry.is_file(follow_symlinks=False) and entry.name != paths.MARKER for entry in entries):
            return False
        return all(_removed(os.unlink, entry.name, descriptor) for entry in entries)


def _abandoned(descriptor: int | None, pattern: re.Pattern[str]) -> list[os.DirEntry[str]]:
    """Return the entries with such names whose owners are dead, or that are too old to have one."""
    matches = [(entry, pattern.fullmatch(entry.name)) for entry in _entries(descriptor)]
    return [entry for entry, match in matches if match and _is_abandoned(entry, match)]


def _is_abandoned(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    owner = Owner(**{part: text or UNKNOWN for part, text in match.groupdict().items()})
    here = this_process()
    if owner.boot != UNKNOWN and (owner.boot, owner.namespace) == (here.boot, here.namespace):
        return not _is_running(owner)
    try:
        changed = entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return False
    return time.time() - changed > MAX_AGE_SECONDS


def _is_running(owner: Owner) -> bool:
    """Return whether the owner, of this boot and namespace, is running; its number may have been reused."""
    try:
        os.kill(int(owner.process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return _started(owner.process) in {UNKNOWN, owner.started} or owner.started == UNKNOWN


@lru_cache(maxsize=1)
def _owner(process: int) -> Owner:
    try:
        boot = _BOOT.read_text().strip().replace("-", "")
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
        return Owner(str(process), boot, namespace, _start_in(Path("/proc/self/stat")))
    except OSError:
        # A system without /proc.
        return Owner(str(process), UNKNOWN, UNKNOWN, UNKNOWN)


def _started(process: str) -> str:
    """Return when a process was started, in the kernel's ticks."""
    try:
        # /proc may be of another namespace, where other processes have these numbers.
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return UNKNOWN
        return _start_in(Path(f"/proc/{process}/stat"))
    except OSError:
        return UNKNOWN


def _start_in(stat: Path) -> str:
    # The second field is the program's name in parentheses, which may contain anything; the start is the 22nd.
    return stat.read_text(errors="replace").rpartition(")")[2].split()[19]


@contextmanager
def _opened(folder: Path, flags: int = 0) -> Iterator[int | None]:
    """Yield the descriptor of a folder; None if it can't be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _entries(descriptor: int | None) -> list[os.DirEntry[str]]:
    try:
        return [] if descriptor is None else list(os.scandir(descriptor))
    except OSError:
        return []


def _removed(remove: Callable[..., None], name: str, descriptor: int | None) -> bool:
    """Remove an entry; return whether that worked."""
    try:
        remove(name, dir_fd=descriptor)
    except OSError:
        return False
    return True
