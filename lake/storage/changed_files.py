"""Files that go away, or are replaced, between being listed and being read: producers and other jobs may do so at any moment.

What failed is then no damage. Whoever changes the lake lists again and plans anew; a reader asks once more.
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

# So often something is planned, or asked, in all.
ATTEMPTS = 5
# How libraries that have no error of their own for it say that a file is not there.
_GONE = re.compile(r"No such file or directory|\(os error 2\)|NoSuchKey")
# What reading may end in where a file is gone, or another one by now: each storage and library has its own.
READING_ERRORS = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    StorageError,
    BrokenLakeError,
)
Result = TypeVar("Result")


class FilesChangedError(RefusedError):
    """Listed files are not there any more as they were: nothing that was concluded from them may be kept."""


def is_missing_file(error: BaseException) -> bool:
    """Return whether an error says that a file is not there."""
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
        if gone := changed_files(storage, paths.events(meter), files):
            raise files_changed_error(gone[0]) from error
        raise


def changed_files(storage: Storage, folder: str, files: Iterable[StoredFile]) -> list[StoredFile]:
    """Return those of the files below a folder that are not there as they were listed."""
    there = {file.path: file.identity for file in storage.list(folder)}
    return [file for file in files if not file.unreadable and there.get(file.path) != file.identity]


def files_changed_error(file: StoredFile) -> FilesChangedError:
    """Return the error for a file that is not there as it was listed."""
    return FilesChangedError(
        "files were replaced or removed while they were read",
        where=file.path,
        expected="the file as it was listed",
        found="another, or none",
        hint="run the job again; what it published is complete",
    )


def retry_if_missing(ask: Callable[[], Result]) -> Result:
    """Return what `ask` returns; it is called again where a file that it had found went away before it was read."""
    for _ in range(1, ATTEMPTS):
        try:
            return ask()
        except READING_ERRORS as error:
            if not is_missing_file(error):
                raise
    return ask()
