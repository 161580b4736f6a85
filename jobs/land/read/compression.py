"""Decompress an input that is gzip or zstd."""

from __future__ import annotations

import gzip
import zlib
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import pyarrow as pa

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
# Frames that hold no data, with which some programs begin a file: 0x184D2A50 to 0x184D2A5F, little-endian.
_ZSTD_SKIPPED = b"\x2a\x4d\x18"


class ByteStream(Protocol):
    """A stream that is read once, from its start to its end."""

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes; fewer before the end of the stream, none at it."""

    def __enter__(self) -> Self:
        """Return the stream itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the stream."""


class _Gzip(gzip.GzipFile):
    """Gzip as gzip(1) reads it: several members, and zeros after the last one. Anything else there is damage."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes. Raises OSError if the stream is damaged or ends too early."""
        try:
            return super().read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error


def decompressed(raw: BinaryIO) -> ByteStream:
    """Return the decompressed bytes of a file; reading raises OSError where a compressed file is damaged or cut."""
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP):
        return _Gzip(fileobj=raw)
    if magic == _ZSTD or (magic[1:] == _ZSTD_SKIPPED and magic[0] >> 4 == 5):
        stream: ByteStream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        return stream
    return raw
