"""Asks a lake who was active. Every question is of whole dates of UTC, so that the aggregates answer."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import polars as pl

from jobs.report_page import answers
from jobs.report_page.answers import Count, Curve, Month, Movements, Ranked
from jobs.report_page.dates import FIRST_DATE, QUIET_DAYS
from jobs.report_page.scope import Scope
from schemas.meter import Meter

# Of how many days, which end with each day, the distinct ones are counted.
WINDOWS = (1, 7, 28)
MAX_DIMENSIONS = 8
# Columns beside an answer, which a dimension may be named like.
_BESIDE = {"share", "usage_before", "usage_change", "usage_state", "over_quantity", "ratio"}


@dataclass(frozen=True)
class ActivityQuestions:
    """The questions about the meter that counts activity, beside `seats` where there are some."""

    scope: Scope
    meter: Meter
    seats: Meter | None

    @property
    def dimension_names(self) -> list[str]:
        """The dimensions that are shown: not the one whose values are counted, nor one that is named as a count is."""
        names = (name for name in self.meter.dimension_names if name != self.meter.unique)
        return [name for name in names if name.lower() != "distinct"][:MAX_DIMENSIONS]

    def customer_curves(self) -> list[Curve]:
        """Return the distinct customers of each window by day."""
        return self._curves("distinct", distinct="subject")

    def user_curves(self) -> list[Curve]:
        """Return the users of each window by day; none where nothing counts them."""
        return self._curves("quantity") if self.meter.unique else []

    def _curves(self, value: str, **options: Any) -> list[Curve]:
        since, until = self.scope.dates.since, self.scope.dates.until
        return [
            answers.curve(days, self._query(since, until, fill=True, rolling=days, **options), value)
            for days in WINDOWS
        ]

    def weeks(self) -> list[Count]:
        """Return the counts of each week."""
        return self._counts(self.scope.dates.weeks_since, self.scope.dates.until, "week")

    def months(self) -> list[Month]:
        """Return the counts of each month, with the seats, and how customers moved."""
        since, until = self.scope.dates.months_since, self.scope.dates.months_until
        used = self._query(since, until, bucket="month", over=self._over)
        over_until = until if until.day == 1 else until.replace(day=1)
        states = None
        if FIRST_DATE < since < over_until:
            states = self._query(since, over_until, bucket="month", by=["subject"], compare="previous")
        return answers.months(self._counts(since, until, "month"), used, states)

    def dimension(self, name: str) -> Ranked:
        """Return the values of a dimension in the month."""
        month = self.scope.month
        beside: dict[str, Any] = {}
        if name.lower() not in _BESIDE:
            beside = {
                "share": True,
                "over": self._over if self._is_in_seats(name) else None,
                **self.scope.compared,
            }
        quantities = self._query(*month, by=[name], **({"bucket": "none"} | beside))
        customers = self._query(*month, bucket="none", by=[name], distinct="subject")
        return answers.value_rows(name, quantities, customers, self.scope.top)

    def movements(self) -> Movements | None:
        """Return how customers moved against the month before; None as long as the month is not over."""
        if not self.scope.compared:
            return None
        rows = self._query(*self.scope.month, by=["subject"], **self.scope.compared)
        return answers.movements(rows, self.scope.top)

    def quiet(self) -> Ranked:
        """Return the customers that have gone quiet."""
        since, until = self.scope.dates.quiet_since, self.scope.dates.until
        usage = self._query(since, until, bucket="none", by=["subject"], measures=True)
        seats = None
        if self.seats is not None:
            seats = self.scope.query(self.seats, *self.scope.month, bucket="none", by=["subject"])
        return answers.quiet(usage, seats, until, QUIET_DAYS, self.scope.top)

    @property
    def _over(self) -> str | None:
        """The meter of the seats, where users can be compared with them."""
        return self.seats.name if self.seats and self.meter.unique else None

    def _is_in_seats(self, name: str) -> bool:
        theirs = self.seats.dimension_dtypes if self.seats else {}
        return theirs.get(name) == self.meter.dimension_dtypes[name]

    def _counts(self, since: dt.date, until: dt.date, bucket: str) -> list[Count]:
        customers = self._query(since, until, bucket=bucket, distinct="subject", fill=True)
        users = self._query(since, until, bucket=bucket, fill=True) if self.meter.unique else None
        return answers.counts(customers, users, until)

    def _query(self, since: dt.date, until: dt.date, **options: Any) -> pl.DataFrame:
        return self.scope.query(self.meter, since, until, **options)
