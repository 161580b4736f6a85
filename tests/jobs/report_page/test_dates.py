"""The dates of a page, and the month that it answers about."""

from __future__ import annotations

import datetime as dt

import pytest

from jobs.report_page.dates import FIRST_DATE, months_before, page_dates

date = dt.date


@pytest.mark.parametrize(
    ("until", "used", "expected"),
    [
        # The month that ends with the page, and else the one before.
        (date(2026, 7, 1), [date(2026, 1, 1)], (date(2026, 6, 1), date(2026, 7, 1), True)),
        (date(2026, 6, 30), [date(2026, 1, 1)], (date(2026, 5, 1), date(2026, 6, 1), True)),
        (date(2026, 6, 2), [date(2026, 1, 1)], (date(2026, 5, 1), date(2026, 6, 1), True)),
        # As long as there is no other.
        (date(2026, 6, 20), [date(2026, 6, 3)], (date(2026, 6, 1), date(2026, 6, 20), False)),
        (date(2026, 6, 20), [], (date(2026, 6, 1), date(2026, 6, 20), False)),
    ],
)
def test_the_month_is_the_last_that_is_over(
    until: dt.date, used: list[dt.date], expected: tuple[dt.date, dt.date, bool]
) -> None:
    found = page_dates(until, 30, None, used)
    assert (found.month, found.month_until, found.is_over) == expected


def test_weeks_and_months_are_whole_at_their_beginning_and_not_too_many() -> None:
    found = page_dates(date(2026, 7, 1), 20, None, [date(2026, 1, 1)])
    assert (found.weeks_since, found.weeks_left_out) == (date(2026, 6, 8), 0)
    assert (found.months_since, found.months_until, found.months_left_out) == (
        date(2026, 5, 1),
        date(2026, 7, 1),
        0,
    )
    long = page_dates(date(2026, 7, 1), 1000, None, [date(2023, 1, 1)])
    assert (long.weeks_since, long.weeks_left_out) == (date(2026, 5, 11), 136)
    assert (long.months_since, long.months_left_out) == (date(2025, 6, 1), 20)


def test_a_month_of_long_ago_is_among_its_neighbours() -> None:
    found = page_dates(date(2026, 7, 1), 30, date(2020, 3, 1), [])
    assert (found.months_since, found.months_until) == (date(2020, 2, 1), date(2021, 3, 1))
    assert (found.month_until, found.is_over) == (date(2020, 4, 1), True)


def test_nothing_is_before_the_first_date_of_questions() -> None:
    found = page_dates(FIRST_DATE + dt.timedelta(days=1), 90, None, [])
    assert {found.since, found.weeks_since, found.months_since, found.quiet_since} == {FIRST_DATE}
    assert months_before(FIRST_DATE, 5) == FIRST_DATE
    assert months_before(date(2026, 1, 1), 13) == date(2024, 12, 1)
