"""What all figures of a page are made from: the lake, the dates, how many rows a table has, and where problems go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from jobs.report_page.dates import FIRST_DATE, Dates
from jobs.status import Status
from lake import Lake
from lake.storage.changed_files import retry_if_missing
from schemas.errors import BrokenLakeError, MeterlakeError
from schemas.meter import Meter

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Scope:
    """The lake, the page's dates, `top` rows of a table, and the status whose problems are shown."""

    lake: Lake
    dates: Dates
    top: int
    status: Status

    @property
    def month(self) -> tuple[dt.date, dt.date]:
        """The dates of the page's month, from the first to the one after the last."""
        return self.dates.month, self.dates.month_until

    @property
    def compared(self) -> dict[str, Any]:
        """The options that compare the month with the one before; none where that can't be asked."""
        can = self.dates.is_over and self.dates.month > FIRST_DATE
        return {"bucket": "month", "compare": "previous"} if can else {}

    def query(self, meter: Meter, since: dt.date, until: dt.date, **options: Any) -> pl.DataFrame:
        """Return the answer to a question about a meter, as `Lake.query` does."""
        return self.lake.query(meter.name, since, until, **options).collect()

    def attempt(self, meter: str, work: Callable[[], Answer]) -> Answer | None:
        """Return what `work` returns, or None where it fails; why is then among the status' problems, once."""
        try:
            return retry_if_missing(work)
        except MeterlakeError as error:
            problem = error
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            problem = BrokenLakeError(
                "the aggregates can't be read",
                where=f"meter {meter!r}",
                found=str(error).splitlines()[0],
                hint="run: meterlake verify",
            )
        if problem.to_dict() not in self.status.problems:
            self.status.add_error(problem)
        return None
