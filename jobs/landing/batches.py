"""Batches of lines: large enough to be parsed at once, small enough for memory, cut where the content says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

BATCH_BYTES = 8 * 2**20
# Longer lines are rejected unread, so that a file without line ends can't fill the memory.
MAX_LINE_BYTES = 16 * 2**20
KEPT_OF_LONG_LINE_BYTES = 2**16
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Batch(NamedTuple):
    """Lines of JSON, one event each, and the number of the first; or the start of a line that is too long."""

    lines: bytes
    position: int
    too_large: bool = False


def cut(stream: pa.NativeFile) -> Iterator[Batch]:
    """Batches of the lines of a stream."""
    position, rest, first = 1, b"", True
    while block := stream.read(BATCH_BYTES):
        text = rest + (block.removeprefix(BYTE_ORDER_MARK) if first else block)
        first = False
        whole, line_end, rest = text.rpartition(b"\n")
        if line_end:
            yield from _without_long(whole, position)
            position += whole.count(b"\n") + 1
        if len(rest) > MAX_LINE_BYTES:
            yield Batch(rest[:KEPT_OF_LONG_LINE_BYTES], position, too_large=True)
            rest, position = _after_line(stream), position + 1
    if rest:
        yield from _without_long(rest, position)


def joined(texts: Iterable[bytes]) -> Iterator[Batch]:
    """Batches of texts that are a line each."""
    position, size_bytes = 1, 0
    held: list[bytes] = []
    for text in texts:
        held.append(text)
        size_bytes += len(text)
        if size_bytes >= BATCH_BYTES:
            yield from _without_long(b"\n".join(held), position)
            position, size_bytes, held = position + len(held), 0, []
    if held:
        yield from _without_long(b"\n".join(held), position)


def numbered(blocks: Iterable[bytes]) -> Iterator[Batch]:
    """Blocks of lines with the number of their first line."""
    position = 1
    for lines in blocks:
        yield Batch(lines, position)
        position += lines.count(b"\n") + 1


def _without_long(lines: bytes, position: int) -> Iterator[Batch]:
    if len(lines) <= MAX_LINE_BYTES or all(len(line) <= MAX_LINE_BYTES for line in lines.split(b"\n")):
        yield Batch(lines, position)
        return
    for number, line in enumerate(lines.split(b"\n"), position):
        large = len(line) > MAX_LINE_BYTES
        yield Batch(line[:KEPT_OF_LONG_LINE_BYTES] if large else line, number, too_large=large)


def _after_line(stream: pa.NativeFile) -> bytes:
    """Read on to the end of the line; gives what was read behind it."""
    while block := stream.read(BATCH_BYTES):
        _, line_end, rest = block.partition(b"\n")
        if line_end:
            return bytes(rest)
    return b""
