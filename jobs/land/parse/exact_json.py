"""Decode a line of JSON with its numbers as text, so that values can be written back exactly as they were."""

from __future__ import annotations

import json
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

MAX_DEPTH = 64
MAX_FOUND_CHARS = 120
# Quotes a text as JSON, and escapes only control characters, quotes and backslashes; `json.dumps` is far slower.
_quoted = encode_basestring
_CONSTANTS = {None: "null", True: "true", False: "false"}


class Number(str):
    """A JSON number as its text."""

    __slots__ = ()


class NotAnEvent(Exception):  # noqa: N818 - no error of the program, but the result for a line
    """Why a line is rejected: a reason code and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        """Store both; the detail is shortened."""
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail[: MAX_FOUND_CHARS * 3]


def decode_object(line: bytes) -> dict[str, Any]:
    """Return the object of a line; numbers are `Number`. Raises NotAnEvent if the line is anything else."""
    try:
        body = _DECODER.decode(line.decode().strip(" \t\r"))
    except RecursionError:
        raise NotAnEvent("too_large", f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise NotAnEvent("not_json", str(error)) from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        raise NotAnEvent("too_large", f"nested deeper than {MAX_DEPTH} levels")
    if b"\\u" in line and not _is_unicode(body):
        raise NotAnEvent("not_json", "half of a surrogate pair")
    if not isinstance(body, dict):
        raise NotAnEvent("not_an_object", f"expected an object, found {kind(body)}")
    return body


def to_json(value: Any) -> str:
    """Return compact JSON; numbers as they were written."""
    if type(value) is Number:
        return str(value)
    if type(value) is str:
        return _quoted(value)
    if isinstance(value, dict):
        members = [f"{_quoted(key)}:{to_json(inner)}" for key, inner in value.items()]
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return _CONSTANTS[value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotAnEvent("not_json", "a duplicate key in one object")
    return members


def _no_constant(name: str) -> Any:
    raise NotAnEvent("not_json", f"{name} is not a JSON number")


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether a value is nested deeper than this; looks no deeper, since Python's own stack is limited."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _is_unicode(value: Any) -> bool:
    try:
        to_json(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def kind(value: Any) -> str:
    """Return the type of a JSON value in words."""
    kinds = {dict: "an object", list: "an array", str: "text", Number: "a number", bool: "a boolean"}
    return kinds.get(type(value), "null")


def shortened(value: Any) -> str:
    """Return the JSON of a value for a message, cut to `MAX_FOUND_CHARS`."""
    text = to_json(value)
    return text if len(text) <= MAX_FOUND_CHARS else f"{text[:MAX_FOUND_CHARS]}… ({len(text)} characters)"


# One line may have millions of equal numbers.
_number = lru_cache(maxsize=2**14)(Number)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_number, parse_constant=_no_constant
)
