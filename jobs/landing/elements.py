"""The elements of a JSON document, an array or objects one after the other, each as one line of its own text."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator

import pyarrow as pa

BLOCK_BYTES = 2**20
MAX_ELEMENT_CHARS = 16 * 2**20
_SPACE = " \t\r\n"
_BETWEEN = _SPACE + ","
_DECODER = json.JSONDecoder()


def elements(stream: pa.NativeFile) -> Iterator[bytes]:
    """Each element's own text, with line ends made spaces, in bounded memory.

    Where the text stops being JSON, the rest of the document is one last element, cut to 16 Mi characters.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
    buffer, ended, opened = "", False, False
    while True:
        # Space is dropped at once, since there may be more of it than memory.
        buffer = buffer.lstrip(_BETWEEN if opened else _SPACE)
        if not opened and buffer:
            opened = True
            buffer = buffer.removeprefix("[").lstrip(_BETWEEN)
        try:
            _, end = _DECODER.raw_decode(buffer)
            # What ends with the buffer may go on: 12 of 123.
            whole = ended or end < len(buffer)
        except (ValueError, RecursionError):
            whole, end = False, 0
        if whole:
            yield _line(buffer[:end])
            buffer = buffer[end:]
        elif ended or len(buffer) > MAX_ELEMENT_CHARS:
            rest = buffer.strip()
            if rest not in ("", "]"):
                yield _line(rest[:MAX_ELEMENT_CHARS])
            return
        else:
            block = stream.read(max(BLOCK_BYTES, len(buffer)))
            ended = not block
            buffer += decode(block, final=ended)


def _line(text: str) -> bytes:
    return text.replace("\n", " ").replace("\r", " ").encode("utf-8", errors="surrogateescape")
