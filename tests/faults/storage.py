"""A storage that fails, or breaks off, before or after one of its operations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lake.storage import LocalStorage, StoredFile
from schemas.errors import StorageError

OPERATIONS = (
    "list",
    "read",
    "read_all",
    "publish",
    "publish_file",
    "create",
    "delete",
    "delete_all",
    "exists",
)


class BrokenOffError(BaseException):
    """The process is gone: nothing that handles errors may handle this."""


class FaultyStorage(LocalStorage):
    """Counts its operations; the one with the number `fails_at` raises, before or after it has done its work.

    Reports of runs do not count: they are written whatever happens.
    """

    def __init__(self, root: str | Path, fails_at: int, *, after: bool, error: type[BaseException]) -> None:
        super().__init__(root)
        self.done, self._fails_at, self._after, self._error = 0, fails_at, after, error
        self._inside = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return self._counted(found) if name in OPERATIONS else found

    def _counted(self, operation: Any) -> Any:
        def counted(about: Any, *more: Any, **options: Any) -> Any:
            # What an operation calls itself is part of it.
            path = about if isinstance(about, str) else ", ".join(about := list(about))
            if self._inside or path.startswith("runs/"):
                return operation(about, *more, **options)
            self.done += 1
            if self.done == self._fails_at and not self._after:
                raise self._failure(path)
            self._inside = True
            try:
                result = operation(about, *more, **options)
            finally:
                self._inside = False
            if self.done == self._fails_at:
                raise self._failure(path)
            return result

        return counted

    def _failure(self, path: str) -> BaseException:
        if self._error is StorageError:
            return StorageError("the test says no", where=path)
        return self._error(path)


class DyingStorage(LocalStorage):
    """Breaks off before it changes a file below `prefix`, once it has changed so many others there."""

    def __init__(self, root: str | Path, prefix: str, survives: int = 0) -> None:
        super().__init__(root)
        self._prefix, self._survives = prefix, survives

    def publish(self, path: str, content: bytes) -> None:
        self._live(path)
        super().publish(path, content)

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        self._live(path)
        return super().publish_file(path, local, keep=keep)

    def delete_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._live(path)
            super().delete_all([path])

    def _live(self, path: str) -> None:
        if path.startswith(self._prefix):
            if not self._survives:
                raise BrokenOffError(path)
            self._survives -= 1
