"""Ambiguous gauges: their subjects have several levels on one date, and answers by subject use one of them."""

from __future__ import annotations

import polars as pl

from lake.state.records import MeterState
from schemas.meter import Meter

HINT = 'set "series" in its definition: the dimensions that name what is measured by itself, or [] for one level a subject'


def may_be_ambiguous(meter: Meter) -> bool:
    """Return whether subjects of a meter can have several levels at once, without `series` to say how to add them."""
    return meter.is_gauge and meter.series is None and bool(meter.dimensions)


def ambiguous_subjects(usage: pl.LazyFrame) -> int:
    """Return how many subjects have several combinations of dimensions in the rows of `usage` of one date."""
    rows = usage.group_by("subject").agg(pl.len().alias("rows"))
    return int(rows.select((pl.col("rows") > 1).sum()).collect(engine="streaming").item())


def most_ambiguous(meter: Meter, state: MeterState) -> int:
    """Return the greatest number of such subjects on one date; 0 if the meter can't be ambiguous, or none was counted."""
    if not may_be_ambiguous(meter):
        return 0
    return max((record.ambiguous_subjects or 0 for record in state.partitions.values()), default=0)


def ambiguity_note(name: str, subjects: int) -> str:
    """Return the warning about an ambiguous meter."""
    of = "1 subject has" if subjects == 1 else f"{subjects:,} subjects have"
    return f"meter {name!r} is ambiguous: on one date {of} several levels; answers that do not group by all dimensions mix them"
