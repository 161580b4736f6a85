"""What cron calls: bring the aggregates up to date, export this month and the last, drop what has expired."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.aggregate import aggregate
from jobs.billing import Period, month_of
from jobs.clock import check_as_of, check_clock
from jobs.export import export
from jobs.export_again import Files, exported_before, list_exports, remember_export, seen_before
from jobs.report import Report
from jobs.retain import retain
from lake import Lake
from lake.calendar import days_before
from lake.meters import meter_names
from lake.recent import RecentRows
from lake.storage.faults import storage_failures
from lake.survey import MeterView, survey
from schemas.errors import LeaseLostError, MeterlakeError

LOG = logging.getLogger("meterlake")


def nightly(lake: Lake, report: Report, *, as_of: dt.date | None = None, trust_clock: bool = False) -> None:
    """Aggregate, export the month of `as_of` (default today, UTC) and the one before, retain; all meters each.

    What fails for one meter is reported, ends the run with its exit code, and keeps neither the other meters nor the
    later steps from their work: those refuse by themselves what would make a number wrong. So retention is refused
    where this machine's clock is far ahead of all that is known, unless `trust_clock`. Raises RefusedError for a date
    after today.
    """
    check_as_of(as_of, report.started_at)
    lake.upgrade()
    this_month = month_of(as_of or report.started_at.date())
    last_month = month_of(days_before(this_month.start, 1))
    # Looked at once for all steps: a run with nothing to do is little else than this.
    with report.stage("plan"):
        views = _views(lake, report)
    for meter, view in views.items():
        with _reporting(report, f"aggregate of meter {meter!r}"):
            # What a step leaves when it fails may be half of what is true, so the next looks for itself.
            views[meter] = None
            if view:
                # Together with what was exported.
                view.saved_later = True
            aggregate(lake, report, meter=meter, views=[view] if view else None)
            views[meter] = view
    # Before the calendar's first month there is none.
    _export_months(lake, report, views, tuple(sorted({last_month, this_month})))
    with _reporting(report, "retain"):
        check_clock(lake.storage, report.started_at, as_of, trust=trust_clock)
        _retain_each(lake, report, views, as_of)


def _retain_each(
    lake: Lake, report: Report, views: dict[str, MeterView | None], as_of: dt.date | None
) -> None:
    for meter, view in views.items():
        with _reporting(report, f"retain of meter {meter!r}"):
            of_meter = [view] if view else None
            retain(lake, report, as_of=as_of, meter=meter, views=of_meter, is_checked=True)


def _export_months(
    lake: Lake, report: Report, views: dict[str, MeterView | None], months: tuple[Period, ...]
) -> None:
    there: Files | None = None
    with _reporting(report, "listing of exports"), report.stage("plan"):
        there = list_exports(lake)
    for meter, view in views.items():
        if view and there is not None:
            _export_seen(lake, report, view, there, months)
            continue
        if view:
            with _reporting(report, f"state of meter {meter!r}"):
                view.save(lake.storage)
        for period in months:
            with _reporting(report, f"export {period} of meter {meter!r}"):
                export(lake, report, period, meter=meter)


def _export_seen(
    lake: Lake, report: Report, view: MeterView, there: Files, months: tuple[Period, ...]
) -> None:
    """Export those months of a meter of which the night can't tell that nothing would come of it."""
    name = view.meter.name
    recent = RecentRows(lake.storage, view.meter)
    for period in months:
        with _reporting(report, f"export {period} of meter {name!r}"):
            seen = seen_before(view, period, there, recent)
            known = exported_before(seen, period)
            if known:
                report.exports.append(known)
                continue
            problems = len(report.problems)
            export(lake, report, period, meter=name, seen=seen)
            if len(report.problems) == problems:
                remember_export(seen, period, report.exports[-1])
    with _reporting(report, f"recent rows of meter {name!r}"):
        records = view.state.partitions.items()
        within = (date for date, _ in records if any(start <= date < end for start, end in months))
        recent.save(within)
    with _reporting(report, f"state of meter {name!r}"):
        wanted = {str(period) for period in months}
        for month in view.state.exported.keys() - wanted:
            del view.state.exported[month]
        view.save(lake.storage)


def _views(lake: Lake, report: Report) -> dict[str, MeterView | None]:
    """All meters as they are, by name, without those that are broken, which is reported."""
    broken: list[MeterlakeError] = []
    try:
        views = list(survey(lake.storage, problem=broken.append))
    except LeaseLostError:
        raise
    except MeterlakeError:
        # What could not be reached may be of one meter alone.
        views, broken = [], []
        for name in meter_names(lake.storage):
            with _reporting(report, f"meter {name!r}"):
                views += survey(lake.storage, name)
    for error in broken:
        report.problem(error)
    return {view.meter.name: view for view in views}


@contextmanager
def _reporting(report: Report, step: str) -> Iterator[None]:
    """Report what fails in the body, and go on; only an interruption from outside or a lost lease ends the run."""
    try:
        with storage_failures(step):
            yield
    except LeaseLostError:
        raise
    except MeterlakeError as error:
        report.problem(error)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # Not only an Exception: a panic inside Polars is none.
        LOG.exception("%s failed", step)
        report.fail(error, step)
