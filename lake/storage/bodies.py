"""Reads several files, so that one that can't be read does not affect the others."""

from __future__ import annotations

from collections.abc import Sequence

from lake.storage.base import Storage
from schemas.errors import BrokenLakeError, MeterlakeError, StorageError

Body = bytes | None | MeterlakeError


def read_each(storage: Storage, paths: Sequence[str]) -> Sequence[Body]:
    """Return the contents of files as `Storage.read_all`; the error in place of one that can't be read.

    Raises StorageError where the storage itself fails.
    """
    try:
        return storage.read_all(paths)
    except (BrokenLakeError, StorageError) as error:
        if not _is_of_one_file(error):
            raise
    return [_read_or_error(storage, path) for path in paths]


def body_of(body: Body) -> bytes | None:
    """Return the content that `read_each` returned for a file. Raises the error if it could not be read."""
    if isinstance(body, MeterlakeError):
        raise body
    return body


def _read_or_error(storage: Storage, path: str) -> Body:
    try:
        return storage.read(path)
    except (BrokenLakeError, StorageError) as error:
        if not _is_of_one_file(error):
            raise
        return error


def _is_of_one_file(error: MeterlakeError) -> bool:
    """Return whether the error is about the file's path alone, and not the storage."""
    return isinstance(error, BrokenLakeError) or isinstance(
        error.__cause__, IsADirectoryError | PermissionError
    )
