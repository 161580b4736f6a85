"""Opening what is to be landed: its bytes decompressed, the hash of its content, and batches of its lines."""

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
# What an event names, and little else does.
_EVENT = frozenset({"meter", "specversion"})


class Input(NamedTuple):
    """An input that has been read through once: it is whole, and its content has this hash."""

    name: str
    file: SteadyFile
    sha256: str
    file_format: str

    def batches(self, meters: Mapping[str, Meter]) -> Iterator[Batch]:
        """Its events as lines of JSON, in order, in batches whose bounds depend on the content alone.

        Raises BadInputError if a table has not the columns of an event.
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
    """Open an input for the time of the body, and read it through once.

    Raises BadInputError if it can't be opened, is damaged, or ends too early; and in the body, where its bytes are
    other ones when they are read again.
    """
    if file_format not in (None, *FORMATS):
        raise BadInputError("unknown format", expected=", ".join(FORMATS), found=repr(file_format))
    name = "standard input" if source == STDIN else Path(source).name
    where = name if source == STDIN else source
    with ExitStack() as opened:
        try:
            path = Path(source)
            # A pipe, as of `land <(zcat usage.gz)`, can be read only once; here it is hashed, then read.
            if source == STDIN or not (path.is_file() or path.is_dir() or not path.exists()):
                path = storage.scratch(".input")
                opened.callback(path.unlink, missing_ok=True)
                _spool(source, path)
            file = SteadyFile(path, where)
            opened.callback(file.close)
            found = _read_through(Input(name, file, "", file_format or ""), meters)
            # Who goes on writing may have written half a row.
            file.check_size()
        except OSError as error:
            raise _unreadable(where, error) from error
        yield found


def _read_through(source: Input, meters: Mapping[str, Meter]) -> Input:
    check_form(source.file.reader().read(PEEK_BYTES), source.name)
    with decompressed(source.file.reader()) as stream:
        # In the blocks of the file, which need not be put together then.
        block = stream.read(BLOCK_BYTES)
        start = block[:PEEK_BYTES]
        check_form(start, source.name, decompressed=True)
        digest = hashlib.sha256()
        while block:
            digest.update(block)
            block = stream.read(BLOCK_BYTES)
    found = source.file_format or _format(source.name, start)
    opened = source._replace(sha256=digest.hexdigest(), file_format=found)
    if opened.file_format == "csv":
        # Only its header can refuse the whole of it.
        next(opened.batches(meters), None)
    if opened.file_format == "parquet":
        # Damage in the middle shows only on decoding, and must show before anything is landed.
        for _ in opened.batches(meters):
            pass
    return opened


def _unreadable(where: str, error: OSError) -> BadInputError:
    return BadInputError(
        "could not read this input",
        where=where,
        expected="a file that can be read to its end",
        found=error.strerror or str(error),
        hint="nothing of it was landed; land it again once it is whole",
    )


def _spool(source: str, path: Path) -> None:
    """Copy what can be read only once."""
    if source == STDIN:
        _copy(sys.stdin.buffer, path)
        return
    with Path(source).open("rb") as pipe:
        _copy(pipe, path)


def _copy(pipe: BinaryIO, path: Path) -> None:
    with writing(path), path.open("wb") as spool:
        shutil.copyfileobj(pipe, spool)


def _format(name: str, start: bytes) -> str:
    """What the content is; of `.json` too, since many a file of that name holds one object a line."""
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
    """Whether lines are objects by themselves: the first, or if that is broken, one that looks like an event."""
    first, *others = text.split(b"\n")
    return _object(first) is not None or any(_EVENT.intersection(_object(line) or ()) for line in others)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
