"""Rolling windows of days, against windows that are counted one by one."""

from __future__ import annotations

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEEP
from lake.aggregates.distinct import COUNT, VALUE
from lake.aggregates.silence import BUCKET
from lake.query.rolling import count_rolling

FIRST = dt.date(2026, 2, 20)
SCHEMA = {BUCKET: pl.Date, "plan": pl.String, VALUE: pl.String, "events": pl.Int64}
days = st.integers(0, 20).map(lambda number: FIRST + dt.timedelta(number))
keys = st.tuples(days, st.sampled_from(["pro", "free", None]), st.sampled_from(["ada", "bo", "cy", None]))
rows = st.dictionaries(keys, st.sampled_from([1, 2, 2**40]), max_size=25)


@settings(max_examples=500 if DEEP else 40)
@given(rows=rows, length=st.integers(1, 25), begin=days, count=st.integers(1, 15), is_grouped=st.booleans())
def test_windows_are_those_that_are_counted_one_by_one(
    rows: dict[tuple[dt.date, str | None, str | None], int],
    length: int,
    begin: dt.date,
    count: int,
    is_grouped: bool,
) -> None:
    frame = pl.DataFrame([(*key, events) for key, events in rows.items()], schema=SCHEMA, orient="row").lazy()
    if not is_grouped:
        frame = frame.group_by(BUCKET, VALUE).agg(pl.col("events").sum())
    by, dates = ["plan"] if is_grouped else [], (begin, begin + dt.timedelta(count))
    found = count_rolling(frame, by, length, dates).collect()
    expected = set()
    for number in range(count):
        last = begin + dt.timedelta(number)
        window = {key: n for key, n in rows.items() if last - dt.timedelta(length) < key[0] <= last}
        for plan in {key[1] for key in window} if is_grouped else {None} if window else set():
            mine = {key: n for key, n in window.items() if not is_grouped or key[1] == plan}
            values = {key[2] for key in mine} - {None}
            expected.add((last, *([plan] if is_grouped else []), len(values), sum(mine.values())))
    assert found.columns == [BUCKET, *by, COUNT, "events"]
    assert set(found.rows()) == expected
    assert found.height == len(expected)


def test_events_that_are_too_many_are_missing_while_they_are_in_the_window() -> None:
    dates = [FIRST, FIRST + dt.timedelta(1), FIRST + dt.timedelta(2)]
    values = pl.LazyFrame({BUCKET: dates, VALUE: ["ada"] * 3, "events": [2**63 - 1, 1, 5]})
    found = count_rolling(values, [], 2, (FIRST, FIRST + dt.timedelta(4))).sort(BUCKET).collect()
    assert found["events"].to_list() == [2**63 - 1, None, 6, 5]
    assert found[COUNT].to_list() == [1, 1, 1, 1]
