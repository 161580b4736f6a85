"""Recognise formats that can't be landed by their first bytes, to name them in the error."""

from __future__ import annotations

import re
import zlib

from schemas.encodings import other_encoding
from schemas.errors import BadInputError

_COMPRESSED = "decompress it first; gzip and zstd need not be"
_ARCHIVE = "unpack it and land the files in it; a spreadsheet is saved as CSV"
_TABLE = "write it as Parquet"
_KNOWN = (
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2", _COMPRESSED),
    (rb"\xfd7zXZ\0", "xz", _COMPRESSED),
    (rb"\x04\x22\x4d\x18", "lz4", _COMPRESSED),
    (rb"\xff\x06\0\0sNaPpY", "snappy", _COMPRESSED),
    (rb"\x1f\x9d", "compress (.Z)", _COMPRESSED),
    (rb"LZIP\x01", "lzip", _COMPRESSED),
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive", _ARCHIVE),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _ARCHIVE),
    (rb"Rar!\x1a\x07", "a RAR archive", _ARCHIVE),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Office", _ARCHIVE),
    (rb"(?s:.{257})ustar", "a tar archive", _ARCHIVE),
    (rb"ARROW1\0\0", "an Arrow file", _TABLE),
    (rb"Obj\x01", "an Avro file", _TABLE),
)
# Text may look like the first bytes of zlib, but not for this many.
_LOOK_BYTES = 2**16
_TWICE = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))


def check_form(start: bytes, where: str, *, decompressed: bool = False) -> None:
    """Raise BadInputError if an input with this start has a known format that can't be landed."""
    for pattern, name, hint in _KNOWN:
        if re.match(pattern, start):
            raise _not_landed(where, name, hint)
    for magic, name in _TWICE:
        if decompressed and start.startswith(magic):
            raise _not_landed(
                where, f"{name} in a compressed file", "it is compressed twice; decompress it once"
            )
    if _is_zlib(start):
        raise _not_landed(where, "zlib", _COMPRESSED)
    encoding = other_encoding(start)
    if encoding:
        raise _not_landed(where, encoding, "save it as UTF-8, for instance with iconv -t UTF-8")


def _is_zlib(start: bytes) -> bool:
    """Return whether this starts a zlib stream; two bytes alone do not prove it, since `x^` is text as well."""
    if start[:1] != b"x" or int.from_bytes(start[:2], "big") % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(start, _LOOK_BYTES))
    except zlib.error:
        return False


def _not_landed(where: str, found: str, hint: str) -> BadInputError:
    expected = "JSON or CSV in UTF-8, plain or in gzip or zstd, or Parquet"
    return BadInputError(
        "this input has another form", where=where, expected=expected, found=found, hint=hint
    )
