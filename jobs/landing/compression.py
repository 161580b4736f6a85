"""The bytes of an input without its compression."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def decompressed(path: Path) -> pa.NativeFile:
    """The decompressed bytes of a file; reading raises OSError where a compressed one ends too early."""
    with path.open("rb") as raw:
        magic = raw.read(4)
    compression = next((name for start, name in _COMPRESSIONS.items() if magic.startswith(start)), None)
    return pa.input_stream(str(path), compression=compression)
