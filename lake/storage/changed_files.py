"""Files that are removed or replaced between being listed and being read, which producers and other jobs may do any time.

An error of reading is then no damage. A job lists and plans again; a reader tries once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import polars as pl

from lake import paths
from lake.storage import Storage, StoredFile
from schemas.errors import BrokenLakeError, RefusedError, StorageError

# How often something is planned or read in all.
ATTEMPTS = 5
# How a missing file appears in errors of libraries that have no type for it.
_GONE = re.compile(r"No such file or directory|\(os error 2\)|NoSuchKey")
# The errors of reading a file that was removed or replaced: each storage and library has its own.
READING_ERRORS = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    StorageError,
    BrokenLakeError,
)
Result = TypeVar("Result")


class FilesChangedError(RefusedError):
    """Listed files were removed or replaced, so nothing that was computed from them may be used."""


def is_missing_file(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, says that a file is missing."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, FileNotFoundError) or _GONE.search(str(each)):
            return True
        each = each.__cause__
    return False


@contextmanager
def watch_for_changes(storage: Storage, meter: str, files: Iterable[StoredFile]) -> Iterator[None]:
    """Raise FilesChangedError for an error of reading if one of these event files of a meter changed meanwhile."""
    try:
        yield
    except READING_ERRORS as error:
        if changed := changed_files(storage, paths.events(meter), files):
            raise files_changed_error(changed[0]) from error
        raise


def changed_files(storage: Storage, folder: str, files: Iterable[StoredFile]) -> list[StoredFile]:
    """Return those of the files below a folder that were removed or replaced since they were listed."""
    current = {file.path: file.identity for file in storage.list(folder)}
    return [file for file in files if not file.unreadable and current.get(file.path) != file.identity]


def files_changed_error(file: StoredFile) -> FilesChangedError:
    """Return the error for a file that was removed or replaced since it was listed."""
    return FilesChangedError(
        "files were replaced or removed while they were read",
        where=file.path,
        expected="the file as it was listed",
        found="another, or none",
        hint="run the job again; what it published is complete",
    )


def retry_if_missing(ask: Callable[[], Result]) -> Result:
    """Return the result of `ask`; it is called again if a file that it listed was removed before it was read."""
    for _ in range(1, ATTEMPTS):
        try:
            return ask()
        except READING_ERRORS as error:
            if not is_missing_file(error):
                raise
    return ask()
