"""An input whose bytes stay those that were read first, whatever becomes of the file meanwhile."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

from schemas.errors import BadInputError

BLOCK_BYTES = 2**20


class SteadyFile:
    """An opened file, of which each block must be whenever it is read what it was when it was read first.

    It is opened once, so a file that is renamed over its path is not seen. What is appended is not read.
    """

    def __init__(self, path: Path, where: str) -> None:
        """Open a file, which errors call `where`. Raises OSError if it can't be opened."""
        self._where = where
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size_bytes = os.fstat(self._descriptor).st_size
        # SipHash by the number of the block: 64 bits under a key of this process, at a cost that does not show.
        self._hashes: dict[int, int] = {}

    def reader(self) -> BinaryIO:
        """Return a stream over the bytes from the start on; several may be read by turns."""
        # It has all of a binary stream that is read, which is no class that one can have as a parent.
        return cast("BinaryIO", _Reader(self))

    def check_size(self) -> None:
        """Raise BadInputError if the file has grown or shrunk since it was opened: its writer is still at work."""
        found = os.fstat(self._descriptor).st_size
        if found != self.size_bytes:
            raise self._changed(f"{self.size_bytes:,} bytes", f"{found:,} bytes")

    def block(self, number: int) -> bytes:
        """Return a block by its number. Raises BadInputError if it is another than at first."""
        start = number * BLOCK_BYTES
        expected_bytes = min(BLOCK_BYTES, self.size_bytes - start)
        content = self._pread(expected_bytes, start)
        if len(content) < expected_bytes:
            raise self._changed(f"{self.size_bytes:,} bytes", f"an end after {start + len(content):,}")
        if self._hashes.setdefault(number, hash(content)) != hash(content):
            raise self._changed("the bytes that were there at first", f"others behind byte {start:,}")
        return content

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _pread(self, size: int, start: int) -> bytes:
        content = os.pread(self._descriptor, size, start)
        while len(content) < size and (
            more := os.pread(self._descriptor, size - len(content), start + len(content))
        ):
            content += more
        return content

    def _changed(self, expected: str, found: str) -> BadInputError:
        return BadInputError(
            "the input changed while it was landed",
            where=self._where,
            expected=expected,
            found=found,
            hint="nothing of the changed bytes was landed; land a file only once it is whole",
        )


class _Reader(io.RawIOBase):
    """The bytes of a `SteadyFile` as a binary stream that can be searched."""

    def __init__(self, file: SteadyFile) -> None:
        """Begin at the start."""
        self._file, self._at = file, 0
        self._number, self._block = -1, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, counted from the start, from here or from the end; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, fewer only at the end; all that are left without a size."""
        left = max(0, self._file.size_bytes - self._at)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left > 0:
            number, start = divmod(self._at, BLOCK_BYTES)
            if number != self._number:
                self._number, self._block = number, self._file.block(number)
            part = self._block[start : start + left]
            parts.append(part)
            self._at += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: memoryview | bytearray, /) -> int:  # type: ignore[override] # it takes any buffer
        """Fill a buffer as far as there are bytes; return how many."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
