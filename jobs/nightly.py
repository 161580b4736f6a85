"""The nightly run: bring the aggregates up to date, export every month that changed, drop expired events."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.aggregate.job import aggregate
from jobs.clock import check_as_of, check_clock
from jobs.export.again import MeterExports, recent_months
from jobs.export.billing import Period, month_of
from jobs.export.job import export, export_month
from jobs.export.listing import ExportListing
from jobs.retain import retain
from jobs.run_report import RunReport
from lake import Lake, paths
from lake.meters import meter_names
from lake.snapshot import MeterSnapshot, scan_meters
from lake.state.changes import stale_partitions
from lake.storage.errors import storage_failures
from schemas.errors import LeaseLostError, MeterlakeError

LOG = logging.getLogger("meterlake")


def nightly(
    lake: Lake, report: RunReport, *, as_of: dt.date | None = None, trust_clock: bool = False
) -> None:
    """Aggregate, export and retain all meters.

    Exports the month of `as_of` (default today, UTC), the one before, and every earlier month whose rows differ from its
    last revision, or that has usage and no revision: in the usual form and in each form that the month has.

    The error of one meter is reported, and decides the exit code; the other meters and the later steps continue, which
    refuse by themselves whatever would make a number wrong. Retention is refused if this machine's clock is far ahead of
    all evidence, unless `trust_clock`. Raises RefusedError for a date after today.
    """
    check_as_of(as_of, report.started_at)
    lake.upgrade()
    this_month = month_of(as_of or report.started_at.date())
    # Scanned once for all steps: this is most of the time of a run with nothing to do.
    with report.stage("plan"):
        snapshots = _scan(lake, report)
    for meter, snapshot in snapshots.items():
        with _reporting(report, f"aggregate of meter {meter!r}"):
            # A failing step may leave a snapshot that is half changed: later steps then scan the meter again.
            snapshots[meter] = None
            if snapshot:
                # The state is saved once, together with the exports.
                snapshot.saved_later = True
            aggregate(lake, report, meter=meter, snapshots=[snapshot] if snapshot else None)
            snapshots[meter] = snapshot
    _export_months(lake, report, snapshots, this_month)
    with _reporting(report, "retain"):
        check_clock(lake.storage, report.started_at, as_of, trust=trust_clock)
        _retain_each(lake, report, snapshots, as_of)


def _retain_each(
    lake: Lake, report: RunReport, snapshots: dict[str, MeterSnapshot | None], as_of: dt.date | None
) -> None:
    for meter, snapshot in snapshots.items():
        with _reporting(report, f"retain of meter {meter!r}"):
            of_meter = [snapshot] if snapshot else None
            retain(lake, report, as_of=as_of, meter=meter, snapshots=of_meter, is_checked=True)


def _export_months(
    lake: Lake, report: RunReport, snapshots: dict[str, MeterSnapshot | None], this_month: Period
) -> None:
    listing: ExportListing | None = None
    with _reporting(report, "listing of exports"), report.stage("plan"):
        listing = ExportListing(lake.storage.list(paths.EXPORTS))
    for meter, snapshot in snapshots.items():
        if snapshot and listing is not None:
            with _reporting(report, f"exports of meter {meter!r}"):
                stale = stale_partitions(
                    snapshot.files, snapshot.state, snapshot.meter.version, snapshot.meter.earlier_version
                )
                reasons = {date: change.why for date, change in stale.items()}
                files = listing.of(meter)
                exports = MeterExports(lake.storage, snapshot.meter, snapshot.state, reasons, files)
                _export_meter(report, exports, this_month)
        if snapshot:
            with _reporting(report, f"state of meter {meter!r}"):
                snapshot.save(lake.storage)
        if snapshot is None or listing is None:
            _export_recent(lake, report, meter, this_month)
    usual = {str(period) for period in recent_months(this_month)}
    # Earlier months that are unchanged are not reported every night.
    report.exports = [each for each in report.exports if each.is_news or each.form in usual]


def _export_recent(lake: Lake, report: RunReport, meter: str, this_month: Period) -> None:
    """Export this month and the last of a meter whose snapshot or files of exports are not known."""
    for period in recent_months(this_month):
        with _reporting(report, f"export {period} of meter {meter!r}"):
            export(lake, report, period, meter=meter, on_request=False)


def _export_meter(report: RunReport, exports: MeterExports, this_month: Period) -> None:
    """Export the months of a meter, except those whose state shows that nothing changed since their last export."""
    name, forms = exports.meter.name, exports.forms(this_month)
    for form in forms:
        with _reporting(report, f"export {form} of meter {name!r}"):
            unchanged = exports.unchanged_since_last(form)
            if unchanged:
                report.exports.append(unchanged)
                continue
            done, made_of = export_month(exports.month(form), report)
            if not done.omitted_rows:
                exports.remember(form, done, made_of)
    exports.forget_others(forms, this_month)


def _scan(lake: Lake, report: RunReport) -> dict[str, MeterSnapshot | None]:
    """Return the snapshots of all meters by name; reports the errors of meters that can't be read."""
    broken: list[MeterlakeError] = []
    try:
        snapshots = list(scan_meters(lake.storage, on_error=broken.append))
    except LeaseLostError:
        raise
    except MeterlakeError:
        # The error may concern one meter only.
        snapshots, broken = [], []
        for name in meter_names(lake.storage):
            with _reporting(report, f"meter {name!r}"):
                snapshots += scan_meters(lake.storage, name)
    for error in broken:
        report.add_error(error)
    return {snapshot.meter.name: snapshot for snapshot in snapshots}


@contextmanager
def _reporting(report: RunReport, step: str) -> Iterator[None]:
    """Report an error of the body, and continue; only an interruption from outside or a lost lease ends the run."""
    try:
        with storage_failures(step):
            yield
    except LeaseLostError:
        raise
    except MeterlakeError as error:
        report.add_error(error)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # Not only an Exception: a panic inside Polars is none.
        LOG.exception("%s failed", step)
        report.fail(error, step)
