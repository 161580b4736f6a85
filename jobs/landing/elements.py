"""The elements of a JSON document, an array or objects one after the other, each as one line of its own text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from jobs.landing.batches import Refused
from jobs.landing.compression import ByteStream

BLOCK_BYTES = 2**20
MAX_ELEMENT_CHARS = 16 * 2**20
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DECODER = json.JSONDecoder()


def elements(stream: ByteStream) -> Iterator[bytes | Refused]:
    """Each element's own text, with line ends made spaces, in bounded memory.

    Where the text stops being JSON, the rest of the document is one last, refused element, cut to 16 Mi characters;
    so is the missing end of an array, since what is missing with it can't be known.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
    buffer, at, ended, opened, array = "", 0, False, False, False
    while True:
        if not opened:
            # Space is dropped at once, since there may be more of it than memory.
            buffer = buffer.lstrip()
            opened, array = bool(buffer), buffer.startswith("[")
            at = int(array)
        at = _end_of_blank(buffer, at) if opened else at
        end, why = _end_of_element(buffer, at)
        if end and (ended or end < len(buffer)):
            # What ends with the buffer may go on: 12 of 123.
            yield _line(buffer[at:end])
            at = end
        elif ended or len(buffer) - at > MAX_ELEMENT_CHARS:
            rest = buffer[at:].strip()
            if rest != ("]" if array else ""):
                yield _refused(rest, why)
            return
        else:
            block = stream.read(max(BLOCK_BYTES, len(buffer) - at))
            ended = not block
            buffer, at = buffer[at:] + decode(block, final=ended), 0


def _end_of_blank(buffer: str, at: int) -> int:
    found = _BETWEEN.match(buffer, at)
    return found.end() if found else at


def _end_of_element(buffer: str, at: int) -> tuple[int, str]:
    """Where the element that begins here ends; else 0, and the reason code of what stands there."""
    try:
        return _DECODER.raw_decode(buffer, at)[1], ""
    except ValueError:
        return 0, "not_json"
    except RecursionError:
        return 0, "too_large"


def _refused(rest: str, reason: str) -> Refused:
    if not rest:
        return Refused(b"", "not_json", "expected ] at the end of the array, found the end of the input")
    found = "nested too deep" if reason == "too_large" else "what is no JSON"
    return Refused(
        _line(rest[:MAX_ELEMENT_CHARS]), reason, f"{found}; this and all that follows was not read"
    )


def _line(text: str) -> bytes:
    return text.replace("\n", " ").replace("\r", " ").encode("utf-8", errors="surrogateescape")
