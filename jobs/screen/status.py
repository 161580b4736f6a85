"""Print a lake's status for people: events by meter, what is not counted and why, the last runs, and what to do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console

from jobs.export.due import MonthDue
from jobs.screen.humanize import counted, duration, number
from jobs.screen.run import cut
from jobs.screen.table import Table, heading, line, prose, sparkline
from jobs.status import MeterStatus, Status
from lake.aggregates.ambiguity import HINT as AMBIGUITY_HINT
from lake.aggregates.ambiguity import ambiguity_note

# People look for the newest dates.
MAX_DATES = 5
# The greatest number of days shown; and the columns that names and numbers beside them need.
DAYS, ROOM_BESIDE = 30, 36

Daily = Mapping[str, Mapping[dt.date, int]]


def status(console: Console, lake: Status, daily: Daily) -> None:
    """Print the lake's meters with their events by day, what is not counted, the last runs, and what to do."""
    line(console, f"lake {lake.lake}")
    if lake.working:
        line(console, f"at work: {lake.working}")
    if lake.meters:
        _counted(console, lake.meters)
        _by_day(console, daily)
        _uncounted(console, lake.meters)
    else:
        prose(console, "no meters yet; define one with: meterlake meter add FILE")
    for each in lake.meters:
        _out_of_date(console, each)
        _exports_due(console, each)
    _quarantined(console, lake)
    _runs(console, lake)
    to_do = [*_to_do(lake)]
    if to_do:
        heading(console, "to do")
        for task in to_do:
            prose(console, f"- {task}", "  ")


def _counted(console: Console, meters: Sequence[MeterStatus]) -> None:
    table = Table("meter", ">events", "=newest", ">partitions", ">out of date", ">sealed")
    for each in meters:
        stale = len(each.out_of_date)
        table.add(each.meter, each.events, each.newest or "-", each.partitions, stale, each.sealed)
    console.print()
    table.print(console)


def _by_day(console: Console, daily: Daily) -> None:
    """Print the last days of each meter that has events, up to the newest date of all meters."""
    used = {name: dates for name, dates in daily.items() if any(dates.values())}
    if not used:
        return
    until = max(date for dates in used.values() for date, events in dates.items() if events)
    days = max(7, min(DAYS, console.width - ROOM_BESIDE))
    last = until.toordinal()
    range_ = [dt.date.fromordinal(day) for day in range(max(last - days, 0) + 1, last + 1)]
    table = Table("events by day", "=" + _dates(range_), ">most a day")
    for name, dates in used.items():
        counts = [dates.get(date, 0) for date in range_]
        line_ = sparkline(counts, console)
        table.add(name, line_ + " " * (days - cell_len(line_)), max(counts))
    console.print()
    table.print(console)


def _dates(range_: Sequence[dt.date]) -> str:
    """Return the first and the last date, at both ends of a line that has one character for each date."""
    first, last = f"{range_[0]:%m-%d}", f"{range_[-1]:%m-%d}"
    if len(range_) >= 2 * len(first) + 4:
        first = f"{range_[0]}" if len(range_) >= 22 else first
        last = f"{range_[-1]}" if len(range_) >= 22 else last
        return first + " " * (len(range_) - len(first) - len(last)) + last
    return f"to {last}"


def _uncounted(console: Console, meters: Sequence[MeterStatus]) -> None:
    table = Table("not counted", ">quarantined", ">duplicates", ">conflicts", ">late p50", ">p95", ">max")
    for each in meters:
        late = each.late
        seconds = (late.median_seconds, late.p95_seconds, late.max_seconds) if late else ()
        times = [duration(second) for second in seconds] or ["-"] * 3
        table.add(each.meter, sum(each.quarantined.values()), each.duplicates, each.conflicts, *times)
    console.print()
    table.print(console)


def _out_of_date(console: Console, each: MeterStatus) -> None:
    if not each.out_of_date:
        return
    heading(console, f"out of date: {each.meter}")
    for date, why in list(each.out_of_date.items())[-MAX_DATES:]:
        line(console, f"  {date}  {why}")
    cut(console, list(each.out_of_date), MAX_DATES)


def _exports_due(console: Console, each: MeterStatus) -> None:
    if not each.exports_due:
        return
    heading(console, f"to be exported: {each.meter}")
    for month in each.exports_due[-MAX_DATES:]:
        form = "" if month.form == "usual" else f" {month.form}"
        line(console, f"  {month.period}{form}  {why_due(month)}")
    cut(console, each.exports_due, MAX_DATES)


def why_due(month: MonthDue) -> str:
    """Return why a month is to be exported, in words."""
    if not month.revision:
        return "no revision"
    since = f"{month.why} since revision {month.revision}{', closed' if month.closed else ''}"
    rows = month.pending_adjustments
    return f"{since}: {counted(rows, 'row')} would be adjusted" if rows else since


def _quarantined(console: Console, lake: Status) -> None:
    defined = [(f"quarantined: {each.meter}", each.quarantined) for each in lake.meters]
    for each in lake.undefined:
        name = _undefined_name(each.meter)
        if each.event_files:
            heading(console, f"not counted: {counted(each.event_files, 'file')} of events of {name}")
        defined.append((f"quarantined: {name}", each.quarantined))
    for what, reasons in defined:
        if reasons:
            heading(console, what)
            for reason, count in reasons.items():
                line(console, f"  {number(count):>9}  {reason}")


def _undefined_name(meter: str | None) -> str:
    return "rows that name no meter" if meter is None else f"{meter}, which is no defined meter"


def _runs(console: Console, lake: Status) -> None:
    if not lake.runs:
        return
    table = Table("=last runs (UTC)", "=job", "=outcome", ">seconds", ">partitions", ">quarantined")
    for run in lake.runs:
        seconds = "-" if run.seconds is None else f"{run.seconds:.1f}"
        start = f"{run.started_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
        table.add(start, run.job, run.outcome, seconds, run.partitions, run.quarantined)
    console.print()
    table.print(console)


def _to_do(lake: Status) -> Iterator[str]:
    """Yield what people should do next; the hints of errors are printed with them."""
    stale = sum(len(each.out_of_date) for each in lake.meters)
    if stale:
        yield f"bring {counted(stale, 'date')} up to date: meterlake aggregate"
    due = [month for each in lake.meters for month in each.exports_due]
    waiting = sorted({month.period for month in due if month.pending_adjustments})
    if months := len(due) - sum(month.pending_adjustments > 0 for month in due):
        yield f"export {counted(months, 'month')}: meterlake nightly"
    if waiting:
        yield (
            f"adjust closed months whose definition or program changed ({', '.join(waiting[-MAX_DATES:])}), "
            f"if that is to be billed: meterlake export --period {waiting[-1]}"
        )
    for meter in lake.meters:
        if meter.ambiguous_subjects:
            yield f"{ambiguity_note(meter.meter, meter.ambiguous_subjects)}: {AMBIGUITY_HINT}"
    rejected = [each.quarantined for each in lake.meters] + [each.quarantined for each in lake.undefined]
    rows = sum(count for reasons in rejected for count in reasons.values())
    if rows:
        yield (
            f"{counted(rows, 'quarantined row')}: see reason, detail and raw in the Parquet files of quarantine/, "
            "correct the raw text, land it as a new file"
        )
    for each in lake.undefined:
        if each.meter is not None:
            yield f"define {each.meter}, or correct who sends it: meterlake meter add FILE"
