"""What cron calls: bring the aggregates up to date, export what changed of every month, drop what has expired."""

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
    """Aggregate, export, retain; all meters each.

    Exported are the month of `as_of` (default today, UTC), the one before, and every earlier one whose rows differ
    from its last revision, or that has usage and none: in the usual form and in each form that the month has.

    What fails for one meter is reported, ends the run with its exit code, and keeps neither the other meters nor the
    later steps from their work: those refuse by themselves what would make a number wrong. So retention is refused
    where this machine's clock is far ahead of all that is known, unless `trust_clock`. Raises RefusedError for a date
    after today.
    """
    check_as_of(as_of, report.started_at)
    lake.upgrade()
    this_month = month_of(as_of or report.started_at.date())
    # Looked at once for all steps: a run with nothing to do is little else than this.
    with report.stage("plan"):
        snapshots = _scan(lake, report)
    for meter, snapshot in snapshots.items():
        with _reporting(report, f"aggregate of meter {meter!r}"):
            # What a step leaves when it fails may be half of what is true, so the next looks for itself.
            snapshots[meter] = None
            if snapshot:
                # Together with what was exported.
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
                why = {date: change.why for date, change in stale.items()}
                exports = MeterExports(lake.storage, snapshot.meter, snapshot.state, why, listing.of(meter))
                _export_meter(report, exports, this_month)
        if snapshot:
            with _reporting(report, f"state of meter {meter!r}"):
                snapshot.save(lake.storage)
        if snapshot is None or listing is None:
            _export_recent(lake, report, meter, this_month)
    usual = {str(period) for period in recent_months(this_month)}
    # Of all that has ever been exported, what is as it was is not told every night.
    report.exports = [each for each in report.exports if each.is_news or each.form in usual]


def _export_recent(lake: Lake, report: RunReport, meter: str, this_month: Period) -> None:
    """Export this month and the last of a meter of which the night knows nothing more."""
    for period in recent_months(this_month):
        with _reporting(report, f"export {period} of meter {meter!r}"):
            export(lake, report, period, meter=meter, on_request=False)


def _export_meter(report: RunReport, exports: MeterExports, this_month: Period) -> None:
    """Export those months of a meter of which the night can't tell that nothing would come of it."""
    name, forms = exports.meter.name, exports.forms(this_month)
    for form in forms:
        with _reporting(report, f"export {form} of meter {name!r}"):
            known = exports.done_before(form)
            if known:
                report.exports.append(known)
                continue
            done, made_of = export_month(exports.month(form), report)
            if not done.omitted_rows:
                exports.remember(form, done, made_of)
    exports.forget_others(forms, this_month)


def _scan(lake: Lake, report: RunReport) -> dict[str, MeterSnapshot | None]:
    """All meters as they are, by name, without those that are broken, which is reported."""
    broken: list[MeterlakeError] = []
    try:
        snapshots = list(scan_meters(lake.storage, on_error=broken.append))
    except LeaseLostError:
        raise
    except MeterlakeError:
        # What could not be reached may be of one meter alone.
        snapshots, broken = [], []
        for name in meter_names(lake.storage):
            with _reporting(report, f"meter {name!r}"):
                snapshots += scan_meters(lake.storage, name)
    for error in broken:
        report.add_error(error)
    return {snapshot.meter.name: snapshot for snapshot in snapshots}


@contextmanager
def _reporting(report: RunReport, step: str) -> Iterator[None]:
    """RunReport what fails in the body, and go on; only an interruption from outside or a lost lease ends the run."""
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
