"""How late events arrive, kept so that the figures of many partitions add up to those of all their events."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import msgspec
import polars as pl

# Each class of a second or more is so much wider than the one before; its middle is within a tenth of all in it.
GROWTH = 2**0.25


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """Events by how long after their timestamp they were received: the extremes, and counts by class.

    Class 0 is less than a second; class n is from GROWTH**(n-1) up to GROWTH**n seconds, and -n as much too early.
    """

    shortest_seconds: float
    longest_seconds: float
    counts: dict[int, int]

    def percentile(self, share: float) -> float:
        """The seconds that this share of the events took at most: within a tenth, or a second where that is more.

        Exact where all events took the same time.
        """
        wanted, seen, chosen = share * sum(self.counts.values()), 0, 0
        for number, count in sorted(self.counts.items()):
            seen, chosen = seen + count, number
            if seen >= wanted:
                break
        middle = math.copysign(GROWTH ** (abs(chosen) - 0.5), chosen) if chosen else 0.0
        return min(max(middle, self.shortest_seconds), self.longest_seconds)


def lateness(events: pl.DataFrame) -> Lateness | None:
    """The lateness of events with `timestamp` and `received_at`; None if there are none."""
    if events.is_empty():
        return None
    late = (events["received_at"] - events["timestamp"]).dt.total_microseconds() / 1e6
    counts = late.to_frame("s").group_by(_class(pl.col("s")).alias("class")).len().sort("class")
    return Lateness(
        shortest_seconds=_number(late.min()),
        longest_seconds=_number(late.max()),
        counts=dict(counts.iter_rows()),
    )


def merged(parts: Iterable[Lateness]) -> Lateness | None:
    """The lateness of the events of all parts together; None if there is none."""
    held = list(parts)
    if not held:
        return None
    counts: Counter[int] = Counter()
    for part in held:
        counts.update(part.counts)
    return Lateness(
        shortest_seconds=min(part.shortest_seconds for part in held),
        longest_seconds=max(part.longest_seconds for part in held),
        counts=dict(sorted(counts.items())),
    )


def _class(seconds: pl.Expr) -> pl.Expr:
    number = (seconds.abs().clip(1).log(GROWTH).floor() + 1).cast(pl.Int32)
    return pl.when(seconds.abs() < 1).then(0).otherwise(pl.when(seconds < 0).then(-number).otherwise(number))


def _number(value: object) -> float:
    return float(str(value))
