"""Arithmetic with dates that stays within the calendar, which ends with the years 1 and 9999."""

from __future__ import annotations

import datetime as dt

DAY = dt.timedelta(days=1)


def days_before(date: dt.date, days: int) -> dt.date:
    """Return the date so many days before another, or the calendar's first."""
    return dt.date.fromordinal(max(date.toordinal() - days, dt.date.min.toordinal()))
