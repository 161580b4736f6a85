"""What cron calls: bring the aggregates up to date, export this month and the last, drop what has expired."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.aggregate import aggregate
from jobs.billing import month_of
from jobs.export import export
from jobs.report import Report, now
from jobs.retain import retain
from lake import Lake
from schemas.errors import MeterlakeError

LOG = logging.getLogger("meterlake")


def nightly(lake: Lake, report: Report, *, as_of: dt.date | None = None) -> None:
    """Aggregate, export the month of `as_of` (default today, UTC) and the one before, retain; all meters each.

    What fails for one meter is reported, ends the run with its exit code, and keeps neither the other meters nor the
    later steps from their work: those refuse by themselves what would make a number wrong.
    """
    this_month = month_of(as_of or now().date())
    last_month = month_of(this_month.start - dt.timedelta(days=1))
    meters = [meter.name for meter in lake.meters()]
    for meter in meters:
        with _reporting(report, f"aggregate of meter {meter!r}"):
            aggregate(lake, report, meter=meter)
    for meter in meters:
        for period in (last_month, this_month):
            with _reporting(report, f"export {period} of meter {meter!r}"):
                export(lake, report, period, meter=meter)
    for meter in meters:
        with _reporting(report, f"retain of meter {meter!r}"):
            retain(lake, report, as_of=as_of, meter=meter)


@contextmanager
def _reporting(report: Report, step: str) -> Iterator[None]:
    """Report what fails in the body, and go on; only an interruption from outside ends the run."""
    try:
        yield
    except MeterlakeError as error:
        report.problem(error)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # Not only an Exception: a panic inside Polars is none.
        LOG.exception("%s failed", step)
        report.fail(error, step)
