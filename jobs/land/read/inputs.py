"""Open an input: check that all of it can be read, hash its content, and read it in batches of lines."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jobs.land.read.compression import decompressed
from jobs.land.read.csv_rows import csv_batches
from jobs.land.read.json_stream import json_elements
from jobs.land.read.line_batches import BYTE_ORDER_MARK, Batch, cut, joined
from jobs.land.read.parquet_rows import parquet_batches
from jobs.land.read.recognition import check_form
from jobs.land.read.steady_file import BLOCK_BYTES, SteadyFile
from lake.storage import Storage
from lake.storage.errors import writing
from schemas.errors import BadInputError
from schemas.meter import Meter

STDIN = "-"
FORMATS = ("json", "jsonl", "csv", "parquet")
PEEK_BYTES = 2**16
_PARQUET = b"PAR1"
# Keys that events have, and few other objects.
_EVENT = frozenset({"meter", "specversion"})


class Input(NamedTuple):
    """An input that was read to its end once; `sha256` is of its decompressed content."""

    name: str
    file: SteadyFile
    sha256: str
    file_format: str

    def batches(self, meters: Mapping[str, Meter]) -> Iterator[Batch]:
        """Yield its events as lines of JSON, in order, in batches whose bounds depend on the content alone.

        Raises BadInputError if a table lacks columns of an event.
        """
        if self.file_format == "parquet":
            yield from parquet_batches(self.file.reader, self.name, meters)
            return
        with decompressed(self.file.reader()) as stream:
            if self.file_format == "csv":
                yield from csv_batches(stream, self.name, meters)
            elif self.file_format == "json":
                yield from joined(json_elements(stream))
            else:
                yield from cut(stream)


@contextmanager
def open_input(
    source: str, storage: Storage, file_format: str | None, meters: Mapping[str, Meter]
) -> Iterator[Input]:
    """Open an input for the body of a `with`, and read it to its end once.

    Raises BadInputError if it can't be opened, is damaged, or ends too early; in the body too, if its bytes have
    changed when they are read again.
    """
    if file_format not in (None, *FORMATS):
        raise BadInputError("unknown format", expected=", ".join(FORMATS), found=repr(file_format))
    name = "standard input" if source == STDIN else Path(source).name
    where = name if source == STDIN else source
    with ExitStack() as opened:
        try:
            path = Path(source)
            # A pipe, as of `land <(zcat usage.gz)`, can be read only once, and an input is read twice.
            if source == STDIN or not (path.is_file() or path.is_dir() or not path.exists()):
                path = storage.scratch(".input")
                opened.callback(path.unlink, missing_ok=True)
                _spool(source, path)
            file = SteadyFile(path, where)
            opened.callback(file.close)
            opened_input = _read_through(Input(name, file, "", file_format or ""), meters)
            # A writer that is still at work may have written half a row.
            file.check_size()
        except OSError as error:
            raise _unreadable(where, error) from error
        yield opened_input


def _read_through(source: Input, meters: Mapping[str, Meter]) -> Input:
    check_form(source.file.reader().read(PEEK_BYTES), source.name)
    with decompressed(source.file.reader()) as stream:
        # In the blocks of the file, which then need not be joined.
        block = stream.read(BLOCK_BYTES)
        start = block[:PEEK_BYTES]
        check_form(start, source.name, decompressed=True)
        digest = hashlib.sha256()
        while block:
            digest.update(block)
            block = stream.read(BLOCK_BYTES)
    file_format = source.file_format or _detect_format(source.name, start)
    opened = source._replace(sha256=digest.hexdigest(), file_format=file_format)
    if opened.file_format == "csv":
        # Only a wrong header refuses the whole file.
        next(opened.batches(meters), None)
    if opened.file_format == "parquet":
        # Damage in the middle is found only by decoding, and must be found before anything is landed.
        for _ in opened.batches(meters):
            pass
    return opened


def _unreadable(where: str, error: OSError) -> BadInputError:
    return BadInputError(
        "could not read this input",
        where=where,
        expected="a file that can be read to its end",
        found=error.strerror or str(error),
        hint="nothing of it was landed; land it again once it is complete",
    )


def _spool(source: str, path: Path) -> None:
    """Copy a stream that can be read only once."""
    if source == STDIN:
        _copy(sys.stdin.buffer, path)
        return
    with Path(source).open("rb") as pipe:
        _copy(pipe, path)


def _copy(pipe: BinaryIO, path: Path) -> None:
    with writing(path), path.open("wb") as spool:
        shutil.copyfileobj(pipe, spool)


def _detect_format(name: str, start: bytes) -> str:
    """Return the format by name and first bytes; for `.json` by the bytes alone, since many are JSON Lines."""
    suffixes = Path(name).suffixes
    if start.startswith(_PARQUET) or suffixes[-1:] == [".parquet"]:
        return "parquet"
    if ".csv" in suffixes:
        return "csv"
    text = start.removeprefix(BYTE_ORDER_MARK).lstrip()
    if ".jsonl" in suffixes or ".ndjson" in suffixes or not text.startswith((b"{", b"[")):
        return "jsonl"
    return "json" if text.startswith(b"[") or not _has_lines(text) else "jsonl"


def _has_lines(text: bytes) -> bool:
    """Return whether single lines are objects: the first, or if that is broken, one that looks like an event."""
    first, *others = text.split(b"\n")
    return _object(first) is not None or any(_EVENT.intersection(_object(line) or ()) for line in others)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
