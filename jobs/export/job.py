"""Write billing revisions: what each subject used in a month, and the adjustments since the last revision."""

from __future__ import annotations

from jobs.export.billing import Period, check_columns
from jobs.export.inputs import MadeOf, made_of_by
from jobs.export.month import MAX_DATES, MonthExport, Options
from jobs.export.revision import revise
from jobs.export.rows import billed_rows
from jobs.run_report import ExportAction, ExportReport, RunReport, now
from lake import Lake
from lake.aggregates.ambiguity import HINT, ambiguity_note, most_ambiguous
from lake.aggregates.sums import sum_too_large
from lake.calendar import days_before
from lake.latest_revision import publish_latest, repair_latest
from lake.revisions import Close, Revisions, save_close
from lake.snapshot import stale_dates
from lake.state.state_file import load_state
from lake.storage import Storage
from schemas.errors import LeaseLostError, MeterlakeError, RefusedError
from schemas.meter import Meter


def export(  # noqa: PLR0913 - what to export, and how
    lake: Lake,
    report: RunReport,
    period: Period,
    *,
    meter: str | None = None,
    options: Options | None = None,
    close: bool = False,
    on_request: bool = True,
) -> None:
    """Write a new revision of a month for one meter or all, if anything changed since the one before.

    Exports the last aggregation. With `close` the month becomes final: later changes make revisions with adjustments
    only. A closed month is adjusted for a change of its definition or of the program only `on_request`. The error of one
    meter is reported, and does not stop the others.
    """
    lake.upgrade()
    chosen = options or Options()
    # Sorted: the order of dimensions on the command line must not make another form.
    chosen = chosen._replace(by=tuple(sorted(chosen.by)))
    for each in [lake.meter(meter)] if meter else lake.meters(report.add_error):
        try:
            month = _month(lake.storage, each, period, chosen)._replace(on_request=on_request)
            export_month(month, report, close=close)
        except LeaseLostError:
            raise
        except MeterlakeError as error:
            report.add_error(error)


def export_month(
    month: MonthExport, report: RunReport, *, close: bool = False
) -> tuple[ExportReport, MadeOf]:
    """Write a new revision of one month of one meter, if anything changed, and report it.

    Return what was done, and the inputs of the last revision; both of their texts are empty if there is none.
    """
    with report.stage("export"):
        if subjects := most_ambiguous(month.meter, month.state):
            report.note(ambiguity_note(month.meter.name, subjects))
        check_columns(month.meter, month.options.by, month.options.columns, month.folder)
        done, made_of = _export(month, close=close)
    report.exports.append(done)
    if done.omitted_rows:
        report.add_error(sum_too_large(f"meter {month.meter.name!r}, {month.period}", done.omitted_rows))
    return done, made_of


def _month(storage: Storage, meter: Meter, period: Period, options: Options) -> MonthExport:
    """Return the export of a month with the meter's current state."""
    state = load_state(storage, meter.name)
    carried = 0 if period.start > now().date() else meter.carry_days or 0
    stale = stale_dates(storage, meter, state, days_before(period.start, carried), period.end)
    return MonthExport(storage, meter, state, period, options, carried, stale)


def _export(export: MonthExport, *, close: bool) -> tuple[ExportReport, MadeOf]:
    revisions = Revisions(export.storage, export.folder, export.files)
    closed = revisions.close()
    done = ExportReport(
        meter=export.meter.name,
        period=str(export.period),
        action=ExportAction.UNCHANGED,
        folder=export.folder,
    )
    done.revision, done.out_of_date = revisions.last, export.out_of_date
    done.closed, is_closing = closed is not None, close and closed is None
    if is_closing:
        _check_close(export, done.out_of_date)
        _check_ambiguity(export)
    if revisions.last:
        repair_latest(revisions, closed=done.closed)
    if _is_due(export, revisions, close=close):
        revise(export, revisions, billed_rows(export), done, closed, may_be_empty=close)
    elif done.revision:
        done.omitted_rows = revisions.left_out(done.revision)
    if not done.revision:
        done.action = ExportAction.NOTHING_USED
    elif is_closing:
        _close(export, revisions, done)
    elif done.action == ExportAction.EXPORTED:
        publish_latest(revisions, closed=done.closed)
    return done, made_of_by(revisions.manifest(done.revision)) if done.revision else MadeOf("", "")


def _close(export: MonthExport, revisions: Revisions, done: ExportReport) -> None:
    """Make the period final with its last revision. Raises RefusedError if rows are omitted from it."""
    if not done.omitted_rows:
        sha256 = revisions.sha256(done.revision)
        save_close(export.storage, export.folder, Close(revision=done.revision, manifest_sha256=sha256))
        done.closed = True
    publish_latest(revisions, closed=done.closed)
    if done.omitted_rows:
        raise _missing_rows(export, done)


def _is_due(export: MonthExport, revisions: Revisions, *, close: bool) -> bool:
    """Return whether the rows must be compared: there is no revision, or it has other inputs or another definition.

    A month without usage gets a first revision only when it is closed.
    """
    if not revisions.last:
        return bool(export.inputs) or close
    last = revisions.manifest(revisions.last)
    return last.inputs != export.inputs or last.meter_version != export.meter.version


def _check_close(export: MonthExport, stale: dict[str, str]) -> None:
    """Raise RefusedError for a period that is not over, or that has usage which is not aggregated yet."""
    over = export.period.end <= now().date()
    if over and not stale:
        return
    first = [f"{date} ({why})" for date, why in stale.items()][:MAX_DATES]
    raise RefusedError(
        "the period can't be closed",
        where=export.folder,
        expected="aggregates up to date with their files" if over else "a month that is over",
        found=f"{len(stale)} out of date: {', '.join(first)}" if over else str(export.period),
        hint="run: meterlake aggregate" if over else "",
    )


def _check_ambiguity(export: MonthExport) -> None:
    """Raise RefusedError for an ambiguous gauge: its definition does not say which levels are billed."""
    subjects = most_ambiguous(export.meter, export.state)
    if subjects:
        raise RefusedError(
            "the period can't be closed while the gauge is ambiguous",
            where=export.folder,
            expected="one level a subject and date, or a definition with `series`",
            found=f"{subjects:,} subjects with several levels on one date",
            hint=HINT,
        )


def _missing_rows(export: MonthExport, done: ExportReport) -> RefusedError:
    error = sum_too_large(export.folder, done.omitted_rows)
    return RefusedError(
        "the period can't be closed without a row",
        where=export.folder,
        expected="a number for each subject",
        found=f"a sum that is too large, {error.found}",
        hint=error.hint,
    )
