"""Decodes stored records: the one place that turns anything wrong with a record into an error of its file.

A bad write to one part of a lake, or a flipped bit, must not affect the rest.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, TypeVar

import msgspec

from schemas.errors import BrokenLakeError

Kind = TypeVar("Kind")
# A moment in a stored record; one without a zone is refused.
Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0)]
FIRST_YEAR, LAST_YEAR = 2, 9998
MAX_FOUND_CHARS = 200


def decode(  # noqa: PLR0913 - the parts of an error
    body: bytes | str,
    kind: type[Kind],
    what: str,
    *,
    where: str,
    expected: str = "",
    hint: str = "",
) -> Kind:
    """Return the record that stored JSON holds.

    Raises BrokenLakeError, with what is wrong as `found`: no JSON, no UTF-8, nested too deep, a member that is
    missing or of another type, or one that the record's own `__post_init__` refuses with a ValueError.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        found = str(error)[:MAX_FOUND_CHARS]
        raise BrokenLakeError(what, where=where, expected=expected, found=found, hint=hint) from error


def check_moments(*moments: dt.datetime | None) -> None:
    """Raise ValueError for a moment at an end of the calendar, where adding an hour leaves it."""
    for moment in moments:
        if moment and not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise ValueError(f"expected a year from {FIRST_YEAR} to {LAST_YEAR}, found {moment.isoformat()}")
