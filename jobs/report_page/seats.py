"""Asks a lake for the seats of a month, and which part of them is used. Of whole dates of UTC, as bills are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from jobs.report_page import answers
from jobs.report_page.answers import Ranked, SeatRow
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
        options = self.scope.compared or {"bucket": "none"}
        return self.scope.query(self.meter, *self.scope.month, by=by, **options)

    def _used(self, by: Sequence[str]) -> pl.DataFrame | None:
        if self.users is None:
            return None
        return self.scope.query(self.users, *self.scope.month, bucket="none", by=by, over=self.meter.name)
