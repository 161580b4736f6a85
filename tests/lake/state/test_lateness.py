"""How late events arrive: counts that add up over partitions, and percentiles within a tenth."""

from __future__ import annotations

import datetime as dt
import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.state.lateness import arrivals, lateness, merge_lateness

NOON = dt.datetime(2026, 6, 19, 12, tzinfo=dt.UTC)
seconds = st.lists(st.floats(-86400, 86400 * 400), min_size=1, max_size=60)


def arrived(late_seconds: list[float]) -> pl.DataFrame:
    times = [NOON + dt.timedelta(seconds=late) for late in late_seconds]
    events = pl.LazyFrame(
        {"timestamp": [NOON] * len(times), "received_at": times},
        schema={name: pl.Datetime("us", "UTC") for name in ("timestamp", "received_at")},
    )
    return arrivals(events).collect()


@given(parts=st.lists(seconds, min_size=1, max_size=4), share=st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_a_percentile_of_many_partitions_is_that_of_all_their_events(
    parts: list[list[float]], share: float
) -> None:
    found = merge_lateness(filter(None, (lateness(arrived(part)) for part in parts)))
    everything = sorted(round(late, 6) for part in parts for late in part)
    exact = everything[math.ceil(share * len(everything)) - 1]
    assert found is not None
    assert found.percentile(share) == pytest.approx(exact, rel=0.1, abs=1)
    assert found.longest_seconds == pytest.approx(everything[-1], abs=2e-6)


@pytest.mark.parametrize("late", [0.0, 0.25, 1.0, -1.0, 3600.0, -86400.0, 31_536_000.0])
def test_where_all_events_take_the_same_time_it_is_exact(late: float) -> None:
    found = lateness(arrived([late] * 3))
    assert found is not None
    assert (found.percentile(0.5), found.percentile(0.95), found.longest_seconds) == (late, late, late)


def test_no_events_have_no_lateness() -> None:
    assert lateness(arrived([])) is None
    assert merge_lateness([]) is None
