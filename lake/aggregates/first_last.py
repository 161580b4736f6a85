"""The first and the last event of a group: what is kept of each row to find them, and what it says in the end.

What is kept is compared while grouping and merges again, so it is told in timestamps and quantities only once.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import polars as pl

from schemas.columns import INSTANT

FIRST, LAST = "#first", "#last"
_HIGH = 2**64


class End(NamedTuple):
    """The columns that say when the first or last event was, in the order that settles ties, and its quantity."""

    at: str
    received_at: str
    quantity: str


OF_EVENTS = (End("timestamp", "received_at", "quantity"),) * 2
OF_ROWS = (
    End("first_at", "first_received_at", "quantity_first"),
    End("last_at", "last_received_at", "quantity_last"),
)


class Ends(Protocol):
    """One way to keep them."""

    def kept(self, first: End, last: End) -> list[pl.Expr]:
        """What is kept of a row that has these columns."""

    def merged(self) -> list[pl.Expr]:
        """The aggregations that make of the kept columns of some rows those of all together."""

    def told(self) -> list[pl.Expr]:
        """The columns of `OF_ROWS`, of the kept ones."""


class Moments:
    """For any rows: timestamp and received_at as one number, and beside it the quantity, which settles ties."""

    def kept(self, first: End, last: End) -> list[pl.Expr]:
        """Two moments and two quantities."""
        ends = ((first, FIRST, OF_ROWS[0]), (last, LAST, OF_ROWS[1]))
        moments = [_moment(end.at, end.received_at).alias(name) for end, name, _ in ends]
        return [*moments, *(pl.col(end.quantity).alias(told.quantity) for end, _, told in ends)]

    def merged(self) -> list[pl.Expr]:
        """The least and the greatest; a struct as a key compares its fields in order."""
        first, last = (end.quantity for end in OF_ROWS)
        return [
            pl.col(FIRST).min(),
            pl.col(LAST).max(),
            pl.col(first).min_by(pl.struct(FIRST, first)),
            pl.col(last).max_by(pl.struct(LAST, last)),
        ]

    def told(self) -> list[pl.Expr]:
        """The moments taken apart; the quantities are there."""
        parts = [_parts(name, end) for name, end in zip((FIRST, LAST), OF_ROWS, strict=True)]
        return [part for of_end in parts for part in of_end]


def _moment(at: str, received_at: str) -> pl.Expr:
    """Timestamp and received_at as one number that orders as they do: several times faster than a struct of both."""
    high, low = (pl.col(name).cast(pl.Int64).cast(pl.Int128) for name in (at, received_at))
    return high * _HIGH + low


def _parts(moment: str, end: End) -> list[pl.Expr]:
    # Half is added, so that a received_at before 1970, which is negative, does not borrow from the timestamp.
    high = (pl.col(moment) + _HIGH // 2) // _HIGH
    low = pl.col(moment) - high * _HIGH
    said = ((high, end.at), (low, end.received_at))
    return [part.cast(pl.Int64).cast(INSTANT).alias(name) for part, name in said]
