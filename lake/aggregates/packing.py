"""When an event was, when it came and what it says, as one number that orders events as first and last do.

To group by such a number takes a third less time than by a struct of the three, but it must fit into 126 bits: how
many bits each part needs is taken from the events themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from lake.aggregates.first_last import FIRST, LAST, OF_ROWS, End
from schemas.columns import INSTANT, QUANTITY

# The number is a signed one of 128 bits, and what a part is multiplied by must be one too.
MAX_BITS = 126


class Packing(NamedTuple):
    """How to keep both ends of a group as `lake.aggregates.first_last.Ends`: by the least of each part and the bits of the lower two.

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

    def kept(self, first: End, last: End) -> list[pl.Expr]:
        """A number for the first and one for the last; as numbers are ordered, so are the three columns of an end."""
        return [self._packed(first).alias(FIRST), self._packed(last).alias(LAST)]

    def merged(self) -> list[pl.Expr]:
        """The least and the greatest number."""
        return [pl.col(FIRST).min(), pl.col(LAST).max()]

    def told(self) -> list[pl.Expr]:
        """The three columns of both."""
        return [*self._unpacked(FIRST, OF_ROWS[0]), *self._unpacked(LAST, OF_ROWS[1])]

    def _packed(self, end: End) -> pl.Expr:
        since = (_number(end.at) - self.timestamp).cast(pl.Int128)
        late = _number(end.received_at) - _number(end.at) - self.late
        said = pl.col(end.quantity).to_physical() - _wide(self.quantity)
        return (since * _wide(2**self.late_bits) + late) * _wide(2**self.quantity_bits) + said

    def _unpacked(self, packed: str, end: End) -> list[pl.Expr]:
        times = pl.col(packed) // _wide(2**self.quantity_bits)
        since = times // _wide(2**self.late_bits)
        timestamp = since + _wide(self.timestamp)
        late = times - since * _wide(2**self.late_bits) + _wide(self.late)
        said = pl.col(packed) - times * _wide(2**self.quantity_bits) + _wide(self.quantity)
        return [
            _instant(timestamp).alias(end.at),
            _instant(timestamp + late).alias(end.received_at),
            said.reinterpret(dtype=QUANTITY).alias(end.quantity),
        ]


def packing(events: pl.LazyFrame) -> Packing | None:
    """How to pack these events, read once; None if there are none, or they do not fit."""
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
    return Packing(found["timestamp"], found["late"], found["quantity"], bits["late"], bits["quantity"])


def _number(moment: str) -> pl.Expr:
    """Microseconds since 1970."""
    return pl.col(moment).cast(pl.Int64)


def _instant(microseconds: pl.Expr) -> pl.Expr:
    return microseconds.cast(pl.Int64).cast(INSTANT)


def _wide(number: int) -> pl.Expr:
    return pl.lit(number, pl.Int128)
