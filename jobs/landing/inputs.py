"""Opening what is to be landed: its bytes decompressed, the hash of its content, and batches of its lines."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from jobs.landing.batches import Batch, cut, joined, numbered
from jobs.landing.elements import elements
from jobs.landing.rows import csv_lines, parquet_lines
from lake.storage import Storage
from schemas.errors import BadInputError
from schemas.meter import Meter

STDIN = "-"
FORMATS = ("json", "jsonl", "csv", "parquet")
PEEK_BYTES = 2**16
BLOCK_BYTES = 2**20
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET = b"PAR1"


class Input(NamedTuple):
    """An input that has been read through once: it is whole, and its content has this hash."""

    name: str
    path: Path
    sha256: str
    file_format: str

    def batches(self, meters: Mapping[str, Meter]) -> Iterator[Batch]:
        """Its events as lines of JSON, in order, in batches whose bounds depend on the content alone.

        Raises BadInputError if a table has not the columns of an event.
        """
        if self.file_format == "parquet":
            yield from numbered(parquet_lines(self.path, self.name))
            return
        with _opened(self.path) as stream:
            if self.file_format == "csv":
                yield from numbered(csv_lines(stream, self.name, meters))
            elif self.file_format == "json":
                yield from joined(elements(stream))
            else:
                yield from cut(stream)


def open_input(source: str, storage: Storage, file_format: str | None, meters: Mapping[str, Meter]) -> Input:
    """Read an input through once. Raises BadInputError if it can't be opened, is damaged, or ends too early."""
    name = "standard input" if source == STDIN else Path(source).name
    try:
        path = _spooled(storage) if source == STDIN else Path(source)
        with _opened(path) as stream:
            start = stream.read(PEEK_BYTES)
            digest = hashlib.sha256(start)
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise BadInputError(
            "could not read this input",
            where=name if source == STDIN else source,
            expected="a file that can be read to its end",
            found=error.strerror or str(error),
            hint="nothing of it was landed; land it again once it is whole",
        ) from error
    opened = Input(name, path, digest.hexdigest(), file_format or _format(name, start))
    if opened.file_format in ("csv", "parquet"):
        # Damage in the middle shows only on decoding, and must show before anything is landed.
        for _ in opened.batches(meters):
            pass
    return opened


def _spooled(storage: Storage) -> Path:
    path = storage.scratch(".input")
    with path.open("wb") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
    return path


def _opened(path: Path) -> pa.NativeFile:
    """The decompressed bytes of a file; reading raises OSError where a compressed one ends too early."""
    with path.open("rb") as raw:
        magic = raw.read(4)
    compression = next((name for start, name in _COMPRESSIONS.items() if magic.startswith(start)), None)
    return pa.input_stream(str(path), compression=compression)


def _format(name: str, start: bytes) -> str:
    suffixes = Path(name).suffixes
    if start.startswith(_PARQUET) or suffixes[-1:] == [".parquet"]:
        return "parquet"
    if ".csv" in suffixes:
        return "csv"
    if ".jsonl" in suffixes or ".ndjson" in suffixes:
        return "jsonl"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    spread = text.startswith(b"{") and not _is_json(text.split(b"\n", 1)[0])
    return "json" if ".json" in suffixes or text.startswith(b"[") or spread else "jsonl"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
