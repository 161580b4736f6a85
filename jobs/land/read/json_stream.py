"""Split a JSON document, an array or a sequence of objects, into its elements, each as one line of text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from jobs.land.parse import value_limit
from jobs.land.parse.value_limit import TOO_MANY, count_marks, has_too_many_values
from jobs.land.read.compression import ByteStream
from jobs.land.read.line_batches import Refused

BLOCK_BYTES = 2**20
MAX_ELEMENT_CHARS = 16 * 2**20
# Why an element can't be read: its reason code, and what was found.
_Why = tuple[str, str]
_NOT_JSON = ("not_json", "text that is not JSON")
_TOO_DEEP = ("too_large", "nested too deep")
_TOO_LONG = ("too_large", "an element of more than 16 Mi characters")
_TOO_MANY = ("too_large", TOO_MANY)
# A text that is cut by the end of the buffer matches too, so that brackets in it are not counted.
_BRACKET_OR_TEXT = re.compile(r'[\[\]{}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BETWEEN = re.compile(r"[ \t\r\n,]*")
# Python refuses to convert numbers of more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=str)


def json_elements(stream: ByteStream) -> Iterator[bytes | Refused]:
    """Yield the text of each element, with spaces for line ends, in bounded memory.

    Where the text stops being JSON, the rest of the document is one last, refused element, cut to 16 Mi characters.
    The missing end of an array is refused too, since elements may be missing with it. An element with too many values
    for memory is refused alone.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
    buffer, at, ended, opened, array, dense = "", 0, False, False, False, False
    while True:
        if not opened:
            # Spaces are dropped at once: there may be more of them than memory.
            buffer = buffer.lstrip()
            opened, array = bool(buffer), buffer.startswith("[")
            at = int(array)
        at = _end_of_blank(buffer, at) if opened else at
        end, why = _end_of_element(buffer, at, dense=dense)
        if end and (ended or end < len(buffer)):
            # An element that ends with the buffer may be cut: 12 of 123.
            element = _line(buffer[at:end])
            yield Refused(element, *why) if why else element
            at = end
        elif ended or len(buffer) - at > MAX_ELEMENT_CHARS:
            rest = buffer[at:].strip()
            if rest != ("]" if array else ""):
                yield _refused(rest, why or _TOO_LONG)
            return
        else:
            block = stream.read(max(BLOCK_BYTES, len(buffer) - at))
            ended = not block
            buffer, at = buffer[at:] + decode(block, final=ended), 0
            dense = (
                len(buffer) > 2 * value_limit.MAX_VALUES
                and count_marks(_line(buffer)) > value_limit.MAX_VALUES
            )


def _end_of_blank(buffer: str, at: int) -> int:
    match = _BETWEEN.match(buffer, at)
    return match.end() if match else at


def _end_of_element(buffer: str, at: int, *, dense: bool) -> tuple[int, _Why | None]:
    """Return where the element that begins here ends (0 if it does not), and why it can't be read (None if it can).

    In a `dense` buffer, which has many values, brackets are counted first.
    """
    if dense and buffer.startswith(("[", "{"), at):
        end = _end_of_brackets(buffer, at)
        if not end or has_too_many_values(_line(buffer[at:end])):
            return end, _TOO_MANY if end else _TOO_LONG
    try:
        return _DECODER.raw_decode(buffer, at)[1], None
    except json.JSONDecodeError as error:
        goes_on = error.pos >= len(buffer) or error.msg.startswith("Unterminated string")
        return 0, _TOO_LONG if goes_on else _NOT_JSON
    except RecursionError:
        return 0, _TOO_DEEP


def _end_of_brackets(buffer: str, at: int) -> int:
    """Return the end of the bracket that opens here; 0 if it is not closed."""
    depth = 0
    for match in _BRACKET_OR_TEXT.finditer(buffer, at):
        mark = buffer[match.start()]
        depth += (mark in "[{") - (mark in "]}")
        if not depth:
            return match.end()
    return 0


def _refused(rest: str, why: _Why) -> Refused:
    if not rest:
        return Refused(b"", "not_json", "expected ] at the end of the array, found the end of the input")
    # A shorter rest is not too long: the document ends in the middle of an element.
    reason, found = _NOT_JSON if why == _TOO_LONG and len(rest) <= MAX_ELEMENT_CHARS else why
    return Refused(
        _line(rest[:MAX_ELEMENT_CHARS]), reason, f"{found}; this and everything after it was not read"
    )


def _line(text: str) -> bytes:
    return text.replace("\n", " ").replace("\r", " ").encode("utf-8", errors="surrogateescape")
