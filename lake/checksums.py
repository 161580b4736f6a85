"""Checksums that show whether published files and rows were changed since.

Of a Parquet file: the SHA-256 of all its bytes, embedded in its own key-value metadata, where zeros stand while it is
computed. Of rows: the SHA-256 of their values, the same however and by whatever version they are written.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import polars as pl

from lake.storage.errors import writing

SHA256_KEY = "meterlake-sha256"
ZERO_SHA256 = "0" * 64
# The values in a row group of rows that are written as a stream.
ROW_GROUP_CELLS = 4 * 2**20
_SIZE = len(ZERO_SHA256)
# The key as Thrift encodes it, followed by a text of 64 bytes. The other values are JSON, which has no such control
# character, and names of users come before the key-value metadata.
_MARK = SHA256_KEY.encode() + b"\x18" + bytes([_SIZE])
_TAIL_BYTES = 8


def write_with_sha256(
    df: pl.DataFrame | pl.LazyFrame, local: Path, metadata: dict[str, str] | None = None, **options: Any
) -> None:
    """Write a Parquet file with its checksum embedded; `options` as for `DataFrame.write_parquet`.

    A lazy frame is written as a stream, so that few of its rows are in memory at once.
    """
    stored = (metadata or {}) | {SHA256_KEY: ZERO_SHA256}
    with writing(local):
        if isinstance(df, pl.DataFrame):
            df.write_parquet(local, metadata=stored, **options)
        else:
            rows = max(1, ROW_GROUP_CELLS // len(df.collect_schema()))
            df.sink_parquet(local, metadata=stored, row_group_size=rows, engine="streaming", **options)
    embed_sha256(local)


def embed_sha256(local: Path) -> None:
    """Embed its checksum in a Parquet file whose metadata has `SHA256_KEY` with the value `ZERO_SHA256`."""
    with local.open("r+b") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-_TAIL_BYTES, 2)
        (footer_bytes,) = struct.unpack("<I4x", file.read(_TAIL_BYTES))
        start = file.seek(-_TAIL_BYTES - footer_bytes, 2)
        at = file.read(footer_bytes).rindex(_MARK + ZERO_SHA256.encode())
        file.seek(start + at + len(_MARK))
        file.write(sha256.encode())


def embedded_and_actual_sha256(content: bytes) -> tuple[str, str]:
    """Return the checksum in a Parquet file's metadata, empty if there is none, and the one of its content now."""
    at = content.rfind(_MARK)
    if at < 0:
        return "", ""
    start, end = at + len(_MARK), at + len(_MARK) + _SIZE
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(ZERO_SHA256.encode())
    digest.update(view[end:])
    return content[start:end].decode(errors="replace"), digest.hexdigest()


def rows_checksum(df: pl.DataFrame) -> str:
    """Return the SHA-256 of the values of rows, in their order: names of columns, then column by column nulls and values."""
    digest = hashlib.sha256(f"{df.height}".encode())
    values = df.select(_value(name, dtype) for name, dtype in df.schema.items())
    for column in values.iter_columns():
        digest.update(f"\0{column.name}\0".encode())
        digest.update(_nulls(df[column.name]))
        if column.dtype == pl.String():
            text = column.to_arrow(compat_level=pl.CompatLevel.oldest())
            _, ends, content = text.buffers()
            digest.update(memoryview(ends)[: (len(text) + 1) * 8])
            digest.update(memoryview(content))
        else:
            digest.update(_bytes(column))
    return digest.hexdigest()


def _nulls(column: pl.Series) -> bytes | memoryview:
    """Return a byte for each value: 1 where it is null."""
    return _bytes(column.is_null().cast(pl.UInt8)) if column.null_count() else bytes(len(column))


def _value(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column without nulls, as text or as numbers of a fixed width."""
    if dtype == pl.String():
        return pl.col(name).fill_null("")
    # Decimals are written as Arrow's own integers, other types as the integers that Polars stores.
    plain = pl.col(name) if isinstance(dtype, pl.Decimal) else pl.col(name).to_physical()
    return (plain.cast(pl.UInt8) if dtype == pl.Boolean() else plain).fill_null(0)


def _bytes(column: pl.Series) -> memoryview:
    """Return numbers of a fixed width as little-endian bytes."""
    numbers = column.rechunk().to_arrow()
    width = numbers.type.bit_width // 8
    return memoryview(numbers.buffers()[1])[numbers.offset * width : (numbers.offset + len(numbers)) * width]
