"""The first and the last event of a group: the columns by which they are found while grouping, which merge again.

Where the events allow it, an event is one number, which orders events as first and last do: to group by it takes a
fifth less time. It must fit into 126 bits, and how many each part needs is taken from the events themselves.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import polars as pl

from schemas.columns import INSTANT, QUANTITY

FIRST, LAST = "#first", "#last"
# The number is a signed one of 128 bits, and what a part is multiplied by must be one too.
MAX_BITS = 126
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


class FirstLast(Protocol):
    """Partial columns of first and last. All rows that are merged have to have the same."""

    def partial_columns(self, first: End, last: End) -> list[pl.Expr]:
        """Return the partial columns of a row that has these columns."""

    def merge_exprs(self) -> list[pl.Expr]:
        """Return the aggregations that merge the partial columns of a group."""

    def finalize(self) -> list[pl.Expr]:
        """Return the columns of `OF_ROWS`, computed from the partial columns."""


class PackedEvents(NamedTuple):
    """For the events that were looked at: one number an event, by the least of each part and the bits of the lower two.

    Times are in microseconds, quantities in billionths.
    """

    timestamp: int
    late: int
    quantity: int
    late_bits: int
    quantity_bits: int

    @property
    def largest_quantity(self) -> int:
        """Return what no quantity exceeds, positive or negative."""
        return max(abs(self.quantity), abs(self.quantity + (1 << self.quantity_bits)))

    def partial_columns(self, first: End, last: End) -> list[pl.Expr]:
        """Return a number for the first and one for the last, ordered as the three columns of an end are."""
        return [self._packed(first).alias(FIRST), self._packed(last).alias(LAST)]

    def merge_exprs(self) -> list[pl.Expr]:
        """Return the least and the greatest number."""
        return [pl.col(FIRST).min(), pl.col(LAST).max()]

    def finalize(self) -> list[pl.Expr]:
        """Return the three columns of both."""
        return [*self._unpacked(FIRST, OF_ROWS[0]), *self._unpacked(LAST, OF_ROWS[1])]

    def _packed(self, end: End) -> pl.Expr:
        since = (_number(end.at) - self.timestamp).cast(pl.Int128)
        late = _number(end.received_at) - _number(end.at) - self.late
        quantity = pl.col(end.quantity).to_physical() - _wide(self.quantity)
        return (since * _wide(2**self.late_bits) + late) * _wide(2**self.quantity_bits) + quantity

    def _unpacked(self, packed: str, end: End) -> list[pl.Expr]:
        times = pl.col(packed) // _wide(2**self.quantity_bits)
        since = times // _wide(2**self.late_bits)
        timestamp = since + _wide(self.timestamp)
        late = times - since * _wide(2**self.late_bits) + _wide(self.late)
        quantity = pl.col(packed) - times * _wide(2**self.quantity_bits) + _wide(self.quantity)
        return [
            _instant(timestamp).alias(end.at),
            _instant(timestamp + late).alias(end.received_at),
            quantity.reinterpret(dtype=QUANTITY).alias(end.quantity),
        ]


class _Moments:
    """For any rows: timestamp and received_at as one number, and the quantity, which settles ties."""

    def partial_columns(self, first: End, last: End) -> list[pl.Expr]:
        """Return two moments and two quantities."""
        ends = ((first, FIRST, OF_ROWS[0]), (last, LAST, OF_ROWS[1]))
        moments = [_moment(end.at, end.received_at).alias(name) for end, name, _ in ends]
        return [*moments, *(pl.col(end.quantity).alias(row.quantity) for end, _, row in ends)]

    def merge_exprs(self) -> list[pl.Expr]:
        """Return the least and the greatest; a struct as a key compares its fields in order."""
        first, last = (end.quantity for end in OF_ROWS)
        return [
            pl.col(FIRST).min(),
            pl.col(LAST).max(),
            pl.col(first).min_by(pl.struct(FIRST, first)),
            pl.col(last).max_by(pl.struct(LAST, last)),
        ]

    def finalize(self) -> list[pl.Expr]:
        """Return the parts of the moments; the quantities are columns already."""
        parts = [_parts(name, end) for name, end in zip((FIRST, LAST), OF_ROWS, strict=True)]
        return [part for of_end in parts for part in of_end]


ANY: FirstLast = _Moments()


def pack(events: pl.LazyFrame) -> PackedEvents | None:
    """Return how to pack these events, which are read once; None if there are none, or they do not fit."""
    parts = {
        "timestamp": _number("timestamp"),
        "received_at": _number("received_at"),
        "late": _number("received_at") - _number("timestamp"),
        "quantity": pl.col("quantity").to_physical(),
    }
    least = [part.min().alias(name) for name, part in parts.items()]
    most = [part.max().alias(f"most {name}") for name, part in parts.items()]
    found = events.select(*least, *most).collect(engine="streaming").row(0, named=True)
    if None in found.values():
        return None
    bits = {name: int(found[f"most {name}"] - found[name]).bit_length() for name in parts}
    latest = max(abs(found[name]) for name in found if "quantity" not in name)
    # Beyond, a difference of two moments could have left 64 bits, and the extremes would not be those.
    if latest >= 2**62 or bits["timestamp"] + bits["late"] + bits["quantity"] > MAX_BITS:
        return None
    return PackedEvents(found["timestamp"], found["late"], found["quantity"], bits["late"], bits["quantity"])


def _moment(at: str, received_at: str) -> pl.Expr:
    """Return timestamp and received_at as one number that orders as they do: several times faster than a struct of both."""
    high, low = (pl.col(name).cast(pl.Int64).cast(pl.Int128) for name in (at, received_at))
    return high * _HIGH + low


def _parts(moment: str, end: End) -> list[pl.Expr]:
    # Half is added, so that a received_at before 1970, which is negative, does not borrow from the timestamp.
    high = (pl.col(moment) + _HIGH // 2) // _HIGH
    low = pl.col(moment) - high * _HIGH
    parts = ((high, end.at), (low, end.received_at))
    return [part.cast(pl.Int64).cast(INSTANT).alias(name) for part, name in parts]


def _number(moment: str) -> pl.Expr:
    """Return microseconds since 1970."""
    return pl.col(moment).cast(pl.Int64)


def _instant(microseconds: pl.Expr) -> pl.Expr:
    return microseconds.cast(pl.Int64).cast(INSTANT)


def _wide(number: int) -> pl.Expr:
    return pl.lit(number, pl.Int128)
