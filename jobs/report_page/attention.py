"""What of a lake needs attention, one line each: problems, dates out of date, months to export, rejected rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.export.due import NO_REVISION
from jobs.screen.humanize import counted
from jobs.status import MeterStatus, Status
from lake.aggregates.ambiguity import HINT, ambiguity_note

MAX_STALE_DATES = 3
MAX_MONTHS = 6


def attention_lines(status: Status) -> Iterator[str]:
    """Return a line for everything that needs attention, what can't be read first."""
    for problem in status.all_problems:
        where = f"{problem['where']}: " if problem.get("where") else ""
        yield f"{where}{problem.get('what', '')}. {problem.get('hint', '')}".strip()
    for each in status.meters:
        yield from _of_meter(each)
    for other in status.undefined:
        name = (
            "rows that name no meter" if other.meter is None else f"{other.meter}, which is no defined meter"
        )
        if other.event_files:
            yield f"{name}: {counted(other.event_files, 'file')} of events not counted"
        for reason, rows in other.quarantined.items():
            yield f"{name}: {counted(rows, 'row')} in quarantine, {reason}"
    if status.runs and status.runs[0].outcome == "failed":
        yield f"the last run, {status.runs[0].job}, failed"


def quarantined_rows(status: Status) -> int:
    """Return how many rows are in quarantine in all."""
    reasons = [each.quarantined for each in status.meters] + [each.quarantined for each in status.undefined]
    return sum(sum(rows.values()) for rows in reasons)


def _of_meter(each: MeterStatus) -> Iterator[str]:
    stale = [*each.out_of_date]
    if stale:
        more = " …" if len(stale) > MAX_STALE_DATES else ""
        dates = ", ".join(map(str, stale[:MAX_STALE_DATES])) + more
        yield f"{each.meter}: {counted(len(stale), 'partition')} out of date ({dates}). Run: meterlake aggregate"
    yield from _exports_due(each)
    if each.ambiguous_subjects:
        yield f"{ambiguity_note(each.meter, each.ambiguous_subjects)}: {HINT}"
    for reason, rows in each.quarantined.items():
        yield f"{each.meter}: {counted(rows, 'row')} in quarantine, {reason}"


def _exports_due(each: MeterStatus) -> Iterator[str]:
    """Return a line for every reason why months are to be exported, with the newest of them."""
    by_reason: dict[str, list[str]] = {}
    for month in each.exports_due:
        reason = "with usage that no revision has" if month.why == NO_REVISION else "changed since exported"
        if month.pending_adjustments:
            reason = "closed before the definition or the program changed"
        form = "" if month.form == "usual" else f" {month.form}"
        by_reason.setdefault(reason, []).append(f"{month.period}{form}")
    for reason, months in by_reason.items():
        named = ("… " if len(months) > MAX_MONTHS else "") + ", ".join(months[-MAX_MONTHS:])
        job = "export --period" if reason.startswith("closed") else "nightly"
        yield f"{each.meter}: {counted(len(months), 'month')} {reason} ({named}). Run: meterlake {job}"
