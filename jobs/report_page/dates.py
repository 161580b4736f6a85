"""The dates of a page, and of the month that its answers are about. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import NamedTuple

from jobs.export.billing import month_of, parse_period
from lake.calendar import DAY, days_before
from schemas.errors import BadInputError

# Of which a question may be asked.
FIRST_DATE = dt.date(2, 1, 1)
MAX_WEEKS, MAX_MONTHS = 8, 13
# So long nothing is heard of a customer that has gone quiet, and at least so far back it was active.
QUIET_DAYS, QUIET_RANGE_DAYS = 14, 90


class Dates(NamedTuple):
    """The page's dates, since <= date < until, and those of its month, at most up to `until`."""

    since: dt.date
    until: dt.date
    month: dt.date
    month_until: dt.date

    @property
    def is_over(self) -> bool:
        """Whether the month is over."""
        return self.month_until == month_of(self.month).end

    @property
    def weeks_since(self) -> dt.date:
        """The Monday of the first week that is shown: that of the first date, or of the last weeks."""
        monday, last = (date - DAY * date.weekday() for date in (self.since, self.until - DAY))
        return max(monday, days_before(last, 7 * (MAX_WEEKS - 1)), FIRST_DATE)

    @property
    def weeks_left_out(self) -> int:
        """How many weeks of the page's dates are not shown."""
        return max(0, (self.weeks_since - self.since).days + 6) // 7

    @property
    def months_since(self) -> dt.date:
        """The first of the months that are shown, which are the page's, and the one before its month."""
        last = (self.until - DAY).replace(day=1)
        first = max(self.since.replace(day=1), months_before(last, MAX_MONTHS - 1))
        return min(first, months_before(self.month, 1))

    @property
    def months_until(self) -> dt.date:
        """The end of the months that are shown, which are at most so many."""
        last = months_before(self.months_since, 1 - MAX_MONTHS)
        return min(self.until, month_of(last).end)

    @property
    def months_left_out(self) -> int:
        """How many months of the page's dates are not shown."""
        first, last = self.since, self.months_since
        return max(0, (last.year - first.year) * 12 + last.month - first.month)

    @property
    def quiet_since(self) -> dt.date:
        """From when on those have been active that have gone quiet."""
        return max(FIRST_DATE, min(self.since, days_before(self.until, QUIET_RANGE_DAYS)))


def page_dates(until: dt.date, days: int, month: dt.date | None, used: Iterable[dt.date]) -> Dates:
    """Return the dates of a page of the `days` days before `until`, and of its month.

    Without a `month`, the last one that is over; and as long as nothing was `used` before, the one that is not.
    """
    since = max(days_before(until, days), FIRST_DATE)
    running = (until - DAY).replace(day=1)
    if month is None:
        is_over = month_of(running).end == until
        is_first = all(date >= running for date in used)
        month = running if is_over or is_first else months_before(running, 1)
    return Dates(since, until, month, min(until, month_of(month).end))


def parse_month(text: str, last: dt.date) -> dt.date:
    """Return the first date of a month from text like `2026-06`.

    Raises BadInputError for other text, and for a month that has not begun by the date `last`.
    """
    month = parse_period(text).start
    if not FIRST_DATE <= month <= last:
        first, latest = FIRST_DATE.isoformat()[:7], last.isoformat()[:7]
        expected = f"{first} to {latest}, the month of --as-of"
        raise BadInputError("a month out of range", where="--month", expected=expected, found=text)
    return month


def months_before(month: dt.date, count: int) -> dt.date:
    """Return the first date of the month so many before another, or of the first that can be asked for."""
    number = month.year * 12 + month.month - 1 - count
    return max(dt.date(max(number // 12, 1), number % 12 + 1, 1), FIRST_DATE)
