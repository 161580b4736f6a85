"""A file that is read several times with the same bytes, or not at all, even if somebody changes it meanwhile."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

from schemas.errors import BadInputError

BLOCK_BYTES = 2**20


class SteadyFile:
    """An open file; each block must have the same bytes whenever it is read.

    It is opened once, so a file that is renamed over its path has no effect. Appended bytes are not read.
    """

    def __init__(self, path: Path, where: str) -> None:
        """Open a file; `where` is its name in errors. Raises OSError if it can't be opened."""
        self._where = where
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size_bytes = os.fstat(self._descriptor).st_size
        # SipHash by the number of the block: 64 bits under a key of this process, at no measurable cost.
        self._hashes: dict[int, int] = {}

    def reader(self) -> BinaryIO:
        """Return a stream over the bytes from the start; several streams may be read in turn."""
        # `BinaryIO` can't be subclassed; the reader has all methods that reading needs.
        return cast("BinaryIO", _Reader(self))

    def check_size(self) -> None:
        """Raise BadInputError if the file has grown or shrunk since it was opened: its writer is still at work."""
        found = os.fstat(self._descriptor).st_size
        if found != self.size_bytes:
            raise self._changed(f"{self.size_bytes:,} bytes", f"{found:,} bytes")

    def block(self, number: int) -> bytes:
        """Return a block by its number. Raises BadInputError if its bytes have changed since the first read."""
        start = number * BLOCK_BYTES
        expected_bytes = min(BLOCK_BYTES, self.size_bytes - start)
        content = self._pread(expected_bytes, start)
        if len(content) < expected_bytes:
            raise self._changed(f"{self.size_bytes:,} bytes", f"an end after {start + len(content):,}")
        if self._hashes.setdefault(number, hash(content)) != hash(content):
            raise self._changed("the bytes that were read first", f"other bytes after byte {start:,}")
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
            hint="nothing of the changed bytes was landed; land a file only once it is complete",
        )


class _Reader(io.RawIOBase):
    """The bytes of a `SteadyFile` as a seekable binary stream."""

    def __init__(self, file: SteadyFile) -> None:
        """Start at the first byte."""
        self._file, self._at = file, 0
        self._number, self._block = -1, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position, counted from the start, from the current one or from the end; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes, fewer only at the end; all remaining ones without a size."""
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
        """Fill a buffer with the next bytes; return how many there were."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
