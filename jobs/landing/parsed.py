"""What parsing a batch of lines gives, whichever way it was parsed."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from schemas.meter import Meter
from schemas.tables import QUANTITY

# The number of a line in its batch, from 0. No dimension can have this name.
LINE = "#line"


class Rejected(NamedTuple):
    """A line that is no event: its number in the batch, the meter it names if any, the reason and what was found."""

    line: int
    meter: str | None
    reason: str
    detail: str


class Parsed(NamedTuple):
    """The events of a batch by meter, in the columns of `parsed_columns`, and the lines that are none."""

    events: list[tuple[Meter, pl.DataFrame]]
    rejected: list[Rejected]


def parsed_columns(meter: Meter) -> dict[str, pl.DataType]:
    """Columns of parsed events: types are right, rules are not yet held, times are text as they were given."""
    text = pl.String()
    first = {LINE: pl.UInt32(), "idempotency_key": text, "subject": text, "quantity": QUANTITY}
    times = {"timestamp": text, "received_at": text}
    return {**first, **times, **meter.dimension_dtypes, "metadata": text}
