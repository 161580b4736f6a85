"""Read a file of a delivered folder, where anything may have its name."""

from __future__ import annotations

import stat
from pathlib import Path

from schemas.errors import BadInputError


def read_delivered(file: Path, name: str, max_bytes: int) -> bytes:
    """Return the content of a regular file; `name` is its name in errors.

    Raises BadInputError for anything else, such as a named pipe, which is never opened, and for a larger file.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _wrong(file, f"{name} is no file", "a regular file", stat.filemode(status.st_mode))
        if status.st_size > max_bytes:
            raise _wrong(file, f"{name} is too large", f"at most {max_bytes:,} bytes", f"{status.st_size:,}")
        return file.read_bytes()
    except OSError as error:
        raise _wrong(file, f"{name} can't be read", "a file", error.strerror or str(error)) from error


def _wrong(file: Path, what: str, expected: str, found: str) -> BadInputError:
    return BadInputError(what, where=str(file), expected=expected, found=found)
