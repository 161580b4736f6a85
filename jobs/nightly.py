"""What cron calls: bring the aggregates up to date, then drop what has expired."""

from __future__ import annotations

import datetime as dt

from jobs.aggregate import aggregate
from jobs.report import Report
from jobs.retain import retain
from lake import Lake
from schemas.errors import MeterlakeError


def nightly(lake: Lake, report: Report, *, as_of: dt.date | None = None) -> None:
    """Aggregate, then retain. A step that fails is reported and does not keep the other from its work."""
    for step in (aggregate, lambda lake, report: retain(lake, report, as_of=as_of)):
        try:
            step(lake, report)
        except MeterlakeError as error:
            report.problem(error)
