"""Batches of lines: large enough for fast parsing, small enough for memory, with bounds that the content decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from itertools import islice
from typing import NamedTuple

from jobs.land.read.byte_values import count_line_ends
from jobs.land.read.compression import ByteStream

BATCH_BYTES = 8 * 2**20
# A batch of very short lines would need many times its bytes, since every line becomes an object.
BATCH_LINES = 100_000
# Longer lines are rejected without parsing, so that a file without line ends can't fill the memory.
MAX_LINE_BYTES = 16 * 2**20
KEPT_OF_LONG_LINE_BYTES = 2**16
# A batch with a longer line may need many times its bytes: it is parsed alone, and written soon.
LONG_LINE_BYTES = 2**14
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TOO_LONG = "the line is longer than 16 MiB; this is its start"


class Refused(NamedTuple):
    """A text that can't be an event: its reason code, and what was found."""

    text: bytes
    reason: str
    detail: str


@dataclass(frozen=True)
class Batch:
    """Lines of JSON, one event each, and their numbers in the input; with `refused`, all of them are rejected.

    `position` is the number of the first line, and the others follow; or `positions` has the number of each. `texts`
    has the original text of each line where it differs from the line.
    """

    lines: bytes
    position: int
    refused: Refused | None = None
    positions: Sequence[int] | None = None
    texts: list[bytes] | None = None
    # Bounds of landed files depend on these: whether the batch ends a block of rows, and whether buffered rows may be
    # written after it.
    ends_block: bool = True
    may_flush: bool = True

    @cached_property
    def has_long_line(self) -> bool:
        """Whether a line has twice LONG_LINE_BYTES; False where all have fewer than LONG_LINE_BYTES."""
        return has_long_line(self.lines, LONG_LINE_BYTES)

    def in_pieces(self) -> Iterator[Batch]:
        """Yield the lines in batches that are small enough for memory; the last of them ends the block."""
        if len(self.lines) <= MAX_LINE_BYTES and count_line_ends(self.lines) < BATCH_LINES:
            yield self
            return
        pieces = list(cut(BytesIO(self.lines)))
        for number, piece in enumerate(pieces, start=1):
            part = self._part(piece.lines, piece.position - 1, is_last=number == len(pieces))
            yield replace(part, refused=piece.refused or self.refused)

    def in_parts(self, number: int) -> Iterator[Batch]:
        """Yield the lines in batches of `number`; only the last may end a block, or be followed by a flush."""
        lines = self.lines.split(b"\n")
        for start in range(0, len(lines), number):
            is_last = start + number >= len(lines)
            part = self._part(b"\n".join(lines[start : start + number]), start, is_last=is_last)
            yield replace(part, may_flush=self.may_flush and is_last)

    def _part(self, lines: bytes, start: int, *, is_last: bool) -> Batch:
        numbers = slice(start, start + count_line_ends(lines) + 1)
        return replace(
            self,
            lines=lines,
            position=self.position + start,
            positions=self.positions and self.positions[numbers],
            texts=self.texts and self.texts[numbers],
            ends_block=self.ends_block and is_last,
        )


def has_long_line(lines: bytes, size_bytes: int) -> bool:
    """Return True if a line has twice `size_bytes` or more, False if all have fewer than `size_bytes`."""
    starts = range(0, len(lines) - size_bytes + 1, size_bytes)
    return any(lines.find(b"\n", start, start + size_bytes) < 0 for start in starts)


def cut(stream: ByteStream) -> Iterator[Batch]:
    """Yield the lines of a stream in batches."""
    position, rest, first = 1, b"", True
    while block := stream.read(BATCH_BYTES):
        text = rest + (block.removeprefix(BYTE_ORDER_MARK) if first else block)
        first = False
        whole, line_end, rest = text.rpartition(b"\n")
        if line_end:
            ends = count_line_ends(whole)
            yield from _bounded(whole, position, ends)
            position += ends + 1
        if len(rest) > MAX_LINE_BYTES:
            yield _too_long(rest, position)
            rest, position = _skip_line(stream), position + 1
    if rest:
        yield from _bounded(rest, position, 0)


def joined(texts: Iterable[bytes | Refused]) -> Iterator[Batch]:
    """Yield texts, each of which is a line, in batches; a refused text is a batch of its own."""
    position, size_bytes = 1, 0
    lines: list[bytes] = []
    for text in texts:
        refused = text if isinstance(text, Refused) else None
        if not isinstance(text, Refused):
            lines.append(text)
            size_bytes += len(text)
        ends_batch = refused is not None or size_bytes >= BATCH_BYTES
        # Very short texts take many times their bytes.
        if lines and (ends_batch or len(lines) == BATCH_LINES):
            yield from _bounded(b"\n".join(lines), position, len(lines) - 1)
            position, lines = position + len(lines), []
        size_bytes = 0 if ends_batch else size_bytes
        if refused:
            yield Batch(refused.text, position, refused)
            position += 1
    if lines:
        yield from _bounded(b"\n".join(lines), position, len(lines) - 1)


def _bounded(lines: bytes, position: int, ends: int) -> Iterator[Batch]:
    """Yield lines, which have `ends` line ends, in batches of a bounded number; too long lines are refused."""
    if len(lines) <= MAX_LINE_BYTES and ends < BATCH_LINES:
        yield Batch(lines, position)
        return
    each = iter(lines.split(b"\n"))
    while some := list(islice(each, BATCH_LINES)):
        yield from _without_long(some, position)
        position += len(some)


def _without_long(lines: list[bytes], position: int) -> Iterator[Batch]:
    start = 0
    for number, line in enumerate(lines):
        if len(line) > MAX_LINE_BYTES:
            if number > start:
                yield Batch(b"\n".join(lines[start:number]), position + start)
            yield _too_long(line, position + number)
            start = number + 1
    if start < len(lines):
        yield Batch(b"\n".join(lines[start:]), position + start)


def _too_long(line: bytes, position: int) -> Batch:
    start = line[:KEPT_OF_LONG_LINE_BYTES]
    return Batch(start, position, Refused(start, "too_large", TOO_LONG))


def _skip_line(stream: ByteStream) -> bytes:
    """Skip to the end of a line; return the bytes that were read after it."""
    while block := stream.read(BATCH_BYTES):
        _, line_end, rest = block.partition(b"\n")
        if line_end:
            return bytes(rest)
    return b""
