"""The result of parsing a batch of lines, of every parser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from schemas.columns import QUANTITY
from schemas.meter import Meter

# The number of a line in its batch, from 0. No dimension can have this name.
LINE = "#line"


class Rejected(NamedTuple):
    """A rejected line: its number in the batch, the meter it names if any, the reason and what was found."""

    line: int
    meter: str | None
    reason: str
    detail: str


class Parsed(NamedTuple):
    """The events of a batch by meter, in the columns of `parsed_columns`, and the rejected lines."""

    events: list[tuple[Meter, pl.DataFrame]]
    rejected: list[Rejected]


def parsed_columns(meter: Meter) -> dict[str, pl.DataType]:
    """Return the columns of parsed events: types are right, rules are not checked yet, times are their original text."""
    text = pl.String()
    first = {LINE: pl.UInt32(), "idempotency_key": text, "subject": text, "quantity": QUANTITY}
    times = {"timestamp": text, "received_at": text}
    return {**first, **times, **meter.dimension_dtypes, "metadata": text}


def shift_lines(parsed: Parsed, lines: int) -> Parsed:
    """Return the same with this added to all line numbers."""
    events = [
        (meter, df.with_columns(pl.col(LINE) + pl.lit(lines, pl.UInt32))) for meter, df in parsed.events
    ]
    return Parsed(events, [each._replace(line=each.line + lines) for each in parsed.rejected])


def at_lines(parsed: Parsed, numbers: Sequence[int]) -> Parsed:
    """Return the same with the line numbers of a batch: line n becomes `numbers[n]`."""
    place = pl.Series(numbers, dtype=pl.UInt32)
    events = [
        (meter, df.with_columns(place.gather(df.get_column(LINE)).alias(LINE))) for meter, df in parsed.events
    ]
    return Parsed(events, [line._replace(line=numbers[line.line]) for line in parsed.rejected])


def concat(parts: Sequence[Parsed]) -> Parsed:
    """Return all parts as one: each meter once, meters by name, rows by line."""
    frames: dict[str, tuple[Meter, list[pl.DataFrame]]] = {}
    for meter, df in (event for part in parts for event in part.events):
        frames.setdefault(meter.name, (meter, []))[1].append(df)
    events = [(meter, pl.concat(dfs).sort(LINE)) for _, (meter, dfs) in sorted(frames.items())]
    return Parsed(events, sorted(each for part in parts for each in part.rejected))
