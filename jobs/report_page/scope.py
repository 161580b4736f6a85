"""What all figures of a page are made from: the lake, the dates, how many rows a table has, and where problems go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from jobs.report_page.dates import Dates
from jobs.status import Status
from lake import Lake
from lake.storage.changed_files import retry_if_missing
from schemas.errors import BrokenLakeError, MeterlakeError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Scope:
    """The lake, the page's dates, `top` rows of a table, and the status whose problems are shown."""

    lake: Lake
    dates: Dates
    top: int
    status: Status

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
