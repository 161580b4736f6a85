"""Asks a lake for the seats of a month, and which part of them is used. Of whole dates of UTC, as bills are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from jobs.report_page import answers
from jobs.report_page.answers import Ranked, SeatRow
from jobs.report_page.dates import FIRST_DATE
from jobs.report_page.scope import Scope
from schemas.meter import Meter


@dataclass(frozen=True)
class SeatQuestions:
    """The questions about the meter that states seats, and about the one that counts users, where there is one."""

    scope: Scope
    meter: Meter
    users: Meter | None

    def rows(self) -> Ranked:
        """Return the seats of each customer."""
        return answers.seat_rows(self._seats(["subject"]), self._used(["subject"]), self.scope.top)

    def total(self) -> SeatRow | None:
        """Return the seats of all customers; None where there are none."""
        return answers.seat_total(self._seats([]), self._used([]))

    def _seats(self, by: Sequence[str]) -> pl.DataFrame:
        can = self.scope.dates.is_over and self.scope.dates.month > FIRST_DATE
        options: dict[str, Any] = {"bucket": "month", "compare": "previous"} if can else {"bucket": "none"}
        month = self.scope.dates.month, self.scope.dates.month_until
        return self.scope.lake.query(self.meter.name, *month, by=by, **options).collect()

    def _used(self, by: Sequence[str]) -> pl.DataFrame | None:
        if self.users is None:
            return None
        month = self.scope.dates.month, self.scope.dates.month_until
        return self.scope.lake.query(
            self.users.name, *month, bucket="none", by=by, over=self.meter.name
        ).collect()
