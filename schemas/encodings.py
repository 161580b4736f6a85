"""Recognises encodings other than UTF-8 by the first bytes of a text."""

from __future__ import annotations

import codecs

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# Without a byte order mark: the positions of zeros in ASCII text.
_ZEROS = {
    (False, True): "UTF-16",
    (True, False): "UTF-16",
    (False, True, True, True): "UTF-32",
    (True, True, True, False): "UTF-32",
}
_LOOK_BYTES = 16


def other_encoding(start: bytes) -> str | None:
    """Return `UTF-16` or `UTF-32` if a text that begins so has that encoding; else None."""
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name
    zeros = tuple(byte == 0 for byte in start[:_LOOK_BYTES])
    for pattern, name in _ZEROS.items():
        if len(zeros) >= 2 * len(pattern) and zeros == (pattern * _LOOK_BYTES)[: len(zeros)]:
            return name
    return None
