"""Find in the text of many lines of JSON what pyarrow's reader would read wrongly, or crash on, before it reads them.

It lets a quantity of too many digits overflow in silence, so that these searches guard what is billed: each accepts
less than JSON allows, and what it refuses goes to slower parsers.
"""

from __future__ import annotations

import re

from jobs.land.read.byte_values import byte_values, line_ends

# A quantity that is not a short plain number: pyarrow lets digits beyond 38 overflow silently.
_ODD_QUANTITY = re.compile(rb'"quantity"\s*+:\s*+"?+(?![-+]?\d{0,18}(?:\.\d{0,9})?"?\s*[,}])')
# An escape in a key, which would hide the key from these patterns.
_ESCAPED_KEY = re.compile(rb'"[^"\\]*\\u[^"]*"\s*:')
# Fields that are often null; a null of any other name may be metadata.
NULLABLE = frozenset({"idempotency_key", "timestamp", "received_at"})
_NULL = re.compile(rb'"(?!(?:idempotency_key|timestamp|received_at)")[^"\\]*"\s*:\s*null')
_SPACED = re.compile(rb'"[ \t\r]+:')
_SPACES = (b" :", b"\t:", b"\r:")


def is_plain(lines: bytes) -> bool:
    """Return whether each line is one object that pyarrow's reader reads as it means, or refuses itself."""
    if not _one_object_a_line(lines) or _ODD_QUANTITY.search(lines):
        return False
    # A search for one byte is forty times as fast as for two, and most inputs have no backslash.
    return not (b"\\" in lines and b"\\u" in lines and _ESCAPED_KEY.search(lines))


def may_have_null(lines: bytes) -> bool:
    """Return whether a name that is none of `NULLABLE` may have a null, which pyarrow's reader takes for no member."""
    return b"null" in lines and _NULL.search(lines) is not None


def has_spaced_name(lines: bytes) -> bool:
    """Return whether white space may stand between a name and its colon, so that names can't be counted by `":`."""
    # The pattern is slow, and almost never needed.
    return any(space in lines for space in _SPACES) and _SPACED.search(lines) is not None


def _one_object_a_line(lines: bytes) -> bool:
    # A line `null` crashes pyarrow's reader; two objects on a line would become two events.
    whole = lines.startswith(b"{") and lines.endswith(b"}")
    if not whole:
        return False
    values = byte_values(lines)
    ends = line_ends(values)
    return bool((values.gather(ends - 1) == ord("}")).all() and (values.gather(ends + 1) == ord("{")).all())
