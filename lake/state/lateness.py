"""How late events arrive, as counts by class, so that the figures of many partitions can be merged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import msgspec
import polars as pl

from lake.decoding import Count

# More classes than any two moments of the calendar are apart.
MAX_CLASS = 1_000
Class = Annotated[int, msgspec.Meta(ge=-MAX_CLASS, le=MAX_CLASS)]
# Each class of a second or more is wider than the one before by this factor: its middle is within a tenth of any
# value in it.
GROWTH = 2**0.25


class Lateness(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts of events by how long after their timestamp they were received, with the extremes in seconds.

    Class 0 is less than a second; class n is from GROWTH**(n-1) up to GROWTH**n seconds, and -n as much too early.
    """

    shortest_seconds: float
    longest_seconds: float
    counts: dict[Class, Count]

    def percentile(self, share: float) -> float:
        """Return the seconds that this share of the events took at most: within a tenth, or a second where that is more.

        Exact where all events took the same time.
        """
        target, counted, chosen = share * sum(self.counts.values()), 0, 0
        for number, count in sorted(self.counts.items()):
            counted, chosen = counted + count, number
            if counted >= target:
                break
        middle = math.copysign(GROWTH ** (abs(chosen) - 0.5), chosen) if chosen else 0.0
        return min(max(middle, self.shortest_seconds), self.longest_seconds)


def arrivals(events: pl.LazyFrame) -> pl.LazyFrame:
    """Return counts of events by whole seconds of delay: `seconds`, `events`, `shortest`, `longest`."""
    late = pl.col("received_at") - pl.col("timestamp")
    # A logarithm for each event would cost more than all the rest.
    counted = events.select(late.alias("late")).group_by(pl.col("late").dt.total_seconds().alias("seconds"))
    return counted.agg(
        pl.len().alias("events"),
        pl.col("late").min().alias("shortest"),
        pl.col("late").max().alias("longest"),
    )


def lateness(arrived: pl.DataFrame) -> Lateness | None:
    """Return the lateness of events, from their `arrivals`; None if there are none."""
    if arrived.is_empty():
        return None
    counts = arrived.group_by(_class(pl.col("seconds")).alias("class")).agg(pl.col("events").sum())
    return Lateness(
        shortest_seconds=_number(arrived["shortest"].dt.total_microseconds().min()) / 1e6,
        longest_seconds=_number(arrived["longest"].dt.total_microseconds().max()) / 1e6,
        counts=dict(counts.sort("class").iter_rows()),
    )


def merge_lateness(parts: Iterable[Lateness]) -> Lateness | None:
    """Return the lateness of the events of all parts together; None if there is none."""
    present = list(parts)
    if not present:
        return None
    counts: Counter[int] = Counter()
    for part in present:
        counts.update(part.counts)
    return Lateness(
        shortest_seconds=min(part.shortest_seconds for part in present),
        longest_seconds=max(part.longest_seconds for part in present),
        counts=dict(sorted(counts.items())),
    )


def _class(seconds: pl.Expr) -> pl.Expr:
    number = (seconds.abs().clip(1).log(GROWTH).floor() + 1).cast(pl.Int32)
    return pl.when(seconds.abs() < 1).then(0).otherwise(pl.when(seconds < 0).then(-number).otherwise(number))


def _number(value: object) -> float:
    return float(str(value))
