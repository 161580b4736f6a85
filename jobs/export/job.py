"""Write billing revisions: what each subject used in a month, and what changed since it was last told."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.export.billing import Period, check_columns
from jobs.export.month import MAX_DATES, MonthExport, Options, Seen, out_of_date
from jobs.export.revision import revise
from jobs.export.rows import billed_rows
from jobs.run_report import ExportReport, RunReport, now
from lake import Lake
from lake.aggregates.ambiguity import HINT, ambiguity_note, most_ambiguous
from lake.aggregates.sums import sum_too_large
from lake.events.partition import fingerprint
from lake.latest_revision import publish_latest, repair_latest
from lake.revisions import Close, Revisions, save_close
from lake.state.state_file import load_state
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
    seen: Seen | None = None,
    on_request: bool = True,
) -> None:
    """Write a new revision of a month for one meter or all, where anything changed since the one before.

    Exports what has been aggregated. With `close` the month is final then: whatever is found later is told by
    revisions that carry adjustments only. `seen` is what a run that holds the lease has found, of its one meter;
    a closed month is adjusted for a change of its definition or of the program only `on_request`. A meter that fails
    is reported and does not keep the others.
    """
    lake.upgrade()
    chosen = options or Options()
    # In one order, so that the order they were asked in makes no other export.
    chosen = chosen._replace(by=tuple(sorted(chosen.by)))
    for each in _meters(lake, report, meter, seen):
        try:
            with report.stage("export"):
                state = seen.state if seen else load_state(lake.storage, each.name)
                if subjects := most_ambiguous(each, state):
                    report.note(ambiguity_note(each.name, subjects))
                carried = 0 if period.start > now().date() else each.carry_days or 0
                month = MonthExport(lake.storage, each, state, period, chosen, carried, seen, on_request)
                check_columns(each, chosen.by, chosen.columns, month.folder)
                done = _export(month, close=close)
            report.exports.append(done)
            if done.omitted_rows:
                report.add_error(sum_too_large(f"meter {each.name!r}, {period}", done.omitted_rows))
        except LeaseLostError:
            raise
        except MeterlakeError as error:
            report.add_error(error)


def _meters(lake: Lake, report: RunReport, meter: str | None, seen: Seen | None) -> Sequence[Meter]:
    if seen:
        return [seen.meter]
    return [lake.meter(meter)] if meter else lake.meters(report.add_error)


def _export(export: MonthExport, *, close: bool) -> ExportReport:
    seen = export.seen
    revisions = Revisions(
        export.storage, export.folder, seen.files if seen else None, seen.known if seen else None
    )
    closed = revisions.close()
    done = ExportReport(
        meter=export.meter.name, period=str(export.period), action="unchanged", folder=export.folder
    )
    done.revision, done.out_of_date = revisions.last, out_of_date(export)
    done.closed, is_closing = closed is not None, close and closed is None
    if is_closing:
        _check_close(export, done.out_of_date)
        _check_ambiguity(export)
    if revisions.last and not (seen and seen.known):
        # Of what is known it was seen that this is right.
        repair_latest(revisions, closed=done.closed)
    if _is_due(export, revisions, close=close):
        revise(export, revisions, billed_rows(export), done, closed, may_be_empty=close)
    elif done.revision:
        done.omitted_rows = revisions.left_out(done.revision)
    if not done.revision:
        done.action = "nothing used"
    elif is_closing:
        _close(export, revisions, done)
    elif done.action == "exported":
        publish_latest(revisions, closed=done.closed)
    if seen:
        _bring_up_to_date(seen, export, revisions, done)
    return done


def _close(export: MonthExport, revisions: Revisions, done: ExportReport) -> None:
    """Make the period final with its last revision. Raises RefusedError if that lacks a row."""
    if not done.omitted_rows:
        sha256 = revisions.info(done.revision).sha256
        save_close(export.storage, export.folder, Close(revision=done.revision, manifest_sha256=sha256))
        done.closed = True
    publish_latest(revisions, closed=done.closed)
    if done.omitted_rows:
        raise _lacks_rows(export, done)


def _is_due(export: MonthExport, revisions: Revisions, *, close: bool) -> bool:
    """Whether the rows must be looked at: there is no revision, or it was made of other inputs or another definition.

    A month without usage makes no revision, until it is closed or was told otherwise before.
    """
    if not revisions.last:
        return bool(export.inputs) or close
    last = revisions.info(revisions.last)
    return last.inputs != fingerprint(export.inputs) or last.meter_version != export.meter.version


def _bring_up_to_date(seen: Seen, export: MonthExport, revisions: Revisions, done: ExportReport) -> None:
    seen.known = revisions.info(done.revision) if done.revision else None
    if seen.known and done.action == "exported":
        seen.known = seen.known._replace(quantities=seen.billed)
    seen.files = [*revisions.files.values()]
    if not all(file.identity for file in seen.files):
        seen.files = export.storage.list(export.folder)


def _check_close(export: MonthExport, stale: dict[str, str]) -> None:
    """Raises RefusedError for a period that is not over, or that has usage which is not aggregated yet."""
    over = export.period.end <= now().date()
    if over and not stale:
        return
    first = [f"{date} ({why})" for date, why in stale.items()][:MAX_DATES]
    raise RefusedError(
        "the period can't be closed",
        where=export.folder,
        expected="aggregates up to date with the files that are there" if over else "a month that is over",
        found=f"{len(stale)} out of date: {', '.join(first)}" if over else str(export.period),
        hint="run: meterlake aggregate" if over else "",
    )


def _check_ambiguity(export: MonthExport) -> None:
    """Raises RefusedError for a gauge of which nothing says which levels are billed."""
    subjects = most_ambiguous(export.meter, export.state)
    if subjects:
        raise RefusedError(
            "the period can't be closed while the gauge is ambiguous",
            where=export.folder,
            expected="one level a subject and date, or a definition that says which are added",
            found=f"{subjects:,} subjects with several levels on one date",
            hint=HINT,
        )


def _lacks_rows(export: MonthExport, done: ExportReport) -> RefusedError:
    error = sum_too_large(export.folder, done.omitted_rows)
    return RefusedError(
        "the period can't be closed without a row",
        where=export.folder,
        expected="a number for each subject",
        found=f"a sum that is too large, {error.found}",
        hint=error.hint,
    )
