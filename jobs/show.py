"""What people see of meters, runs and the status: tables and lines for 80 columns, without colour too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from jobs.define import Definition
from jobs.report import ExportReport, PartitionReport, Report
from jobs.session import MAX_LINES, plain
from jobs.status import MeterStatus, Status, outcome
from jobs.verify_export import VerifiedRevision
from schemas.meter import Meter

# Of many dates, those that people look for are the newest.
MAX_DATES = 5
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def definitions(console: Console, found: Sequence[Definition]) -> None:
    """One line per definition file that was taken."""
    for definition in found:
        if not definition.error:
            print_line(console, f"{definition.outcome:<9}  {definition.meter}  ({definition.file})")


def meters(console: Console, found: Sequence[Meter]) -> None:
    """One row per meter."""
    if not found:
        print_line(console, "no meters yet; define one with: meterlake meter add FILE")
        return
    table = new_table("meter", "unit", "aggregation", ">days kept", "dimensions")
    for meter in found:
        dimensions = ", ".join(meter.dimension_names)
        add_row(table, meter.name, meter.unit, meter.aggregation, meter.event_retention_days, dimensions)
    console.print(table)


def meter(console: Console, found: Meter) -> None:
    """One meter, with a row per dimension."""
    print_line(
        console,
        f"{found.name}: {found.aggregation} of {found.unit}, raw events kept for "
        f"{_number(found.event_retention_days)} days",
    )
    if found.description:
        print_line(console, found.description)
    if not found.dimensions:
        print_line(console, "no dimensions")
        return
    table = new_table("dimension", "type", "value", "description")
    for dimension in found.dimensions:
        value = "deprecated" if dimension.deprecated else "required" if dimension.required else "optional"
        said = ": ".join(text for text in (dimension.display_name, dimension.description) if text)
        add_row(table, dimension.name, dimension.type, value, said)
    console.print(table)


def report(console: Console, run: Report, file: str | None) -> None:
    """What a run did: a line per partition, the totals, and where the report is."""
    for action, partitions in _by_action(run).items():
        _partitions(console, f"would be {action}" if run.dry_run else action, partitions)
    if run.exports:
        _exports(console, run.exports)
    for given in run.inputs[:MAX_LINES]:
        print_line(console, _input(given))
    _cut(console, run.inputs, MAX_LINES)
    for line in _totals(run):
        print_line(console, line)
    if file:
        print_line(console, f"report: {file}")


def status(console: Console, found: Status) -> None:
    """The lake's meters, what of them is not counted and why, and its last runs."""
    print_line(console, f"lake {found.lake}")
    if found.working:
        print_line(console, f"at work: {found.working}")
    if found.meters:
        _counted(console, found.meters)
        _uncounted(console, found.meters)
    else:
        print_line(console, "no meters yet; define one with: meterlake meter add FILE")
    for meter_status in found.meters:
        _out_of_date(console, meter_status)
    _quarantined(console, found)
    _runs(console, found)


def _by_action(run: Report) -> dict[str, list[PartitionReport]]:
    found: dict[str, list[PartitionReport]] = {}
    for partition in run.partitions:
        found.setdefault(partition.action, []).append(partition)
    return found


def _partitions(console: Console, heading: str, partitions: Sequence[PartitionReport]) -> None:
    table = new_table(heading, "date", ">events", "why")
    for partition in partitions[:MAX_LINES]:
        add_row(table, partition.meter, partition.date, partition.events, partition.why)
    console.print(table)
    _cut(console, partitions, MAX_LINES)
    console.print()


def verified(console: Console, found: Sequence[VerifiedRevision]) -> None:
    """One line per revision that was checked."""
    for each in found:
        result = f"{len(each.problems)} wrong" if each.problems else "ok"
        of = (
            f"{each.meter} {each.period}, {each.files} files, {_number(each.rows)} rows: "
            if each.meter
            else ""
        )
        print_line(console, f"{result:<7}  {of}{each.folder}")


def _exports(console: Console, exports: Sequence[ExportReport]) -> None:
    table = new_table("export", "period", ">revision", ">rows", ">adjustments", "")
    for each in exports:
        said = f"{each.action}, closed" if each.closed else each.action
        if each.out_of_date:
            dates = len(each.out_of_date)
            said += f"; {_number(dates)} {_plural('date', dates)} out of date"
        add_row(table, each.meter, each.period, each.revision or "-", each.rows, each.adjustments, said)
    console.print(table)
    for each in exports:
        if each.action == "exported":
            print_line(console, f"wrote {each.folder}revision={each.revision:04d}/")
    console.print()


def _input(given: Mapping[str, object]) -> str:
    """One input of a run: its texts but the hash, then its counts with their names."""
    texts = [str(value) for name, value in given.items() if isinstance(value, str) and name != "sha256"]
    counts = [f"{name} {_number(count)}" for name, count in given.items() if isinstance(count, int)]
    return "  ".join([*texts, ", ".join(counts)]).rstrip()


def _totals(run: Report) -> Iterable[str]:
    took = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    note = " (a dry run: nothing was touched)" if run.dry_run else ""
    would = "would be " if run.dry_run else ""
    said = [
        f"{_number(len(those))} {_plural('partition', len(those))} {would}{action}"
        for action, those in _by_action(run).items()
    ]
    if run.exports:
        made = sum(each.action == "exported" for each in run.exports)
        said.append(f"{_number(made)} {_plural('revision', made)} exported")
    yield f"{run.job}: {outcome(run)}{note}; {', '.join(said) or 'no partition touched'}; {took:.1f} s"
    for name, count in (("landed", run.events_landed), ("read", run.events_read)):
        if count:
            yield f"{name} {_number(count)} {_plural('event', count)}"
    if run.duplicates:
        yield f"duplicates {_number(run.duplicates)}, of them with another payload {_number(run.conflicts)}"
    if run.quarantined:
        yield f"quarantined {_number(sum(run.quarantined.values()))}: {_reasons(run.quarantined)}"
    if run.rows_written:
        rows = f"{_number(run.rows_written)} {_plural('row', run.rows_written)}"
        yield f"wrote {rows}, {_size(run.bytes_written)}"


def _counted(console: Console, found: Sequence[MeterStatus]) -> None:
    table = new_table("meter", ">events", "newest", ">partitions", ">out of date", ">sealed")
    for each in found:
        stale = len(each.out_of_date)
        add_row(table, each.meter, each.events, each.newest or "-", each.partitions, stale, each.sealed)
    console.print()
    console.print(table)


def _uncounted(console: Console, found: Sequence[MeterStatus]) -> None:
    table = new_table("not counted", ">quarantined", ">duplicates", ">conflicts", ">late p50", ">p95", ">max")
    for each in found:
        late = each.late
        seconds = (late.median_seconds, late.p95_seconds, late.max_seconds) if late else ()
        times = [duration(second) for second in seconds] or ["-"] * 3
        add_row(table, each.meter, sum(each.quarantined.values()), each.duplicates, each.conflicts, *times)
    console.print()
    console.print(table)


def _out_of_date(console: Console, each: MeterStatus) -> None:
    if not each.out_of_date:
        return
    print_line(console, f"\nout of date: {each.meter}")
    for date, why in list(each.out_of_date.items())[-MAX_DATES:]:
        print_line(console, f"  {date}  {why}")
    _cut(console, list(each.out_of_date), MAX_DATES)


def _quarantined(console: Console, found: Status) -> None:
    defined = [(f"quarantined: {each.meter}", each.quarantined) for each in found.meters]
    for each in found.undefined:
        name = "rows that name no meter"
        if each.meter is not None:
            name = f"{each.meter}, which is no defined meter"
        if each.event_files:
            files = f"{_number(each.event_files)} {_plural('file', each.event_files)}"
            print_line(console, f"\nnot counted: {files} of events of {name}")
        defined.append((f"quarantined: {name}", each.quarantined))
    for what, reasons in defined:
        if reasons:
            print_line(console, f"\n{what}")
            for reason, count in reasons.items():
                print_line(console, f"  {_number(count):>9}  {reason}")


def _runs(console: Console, found: Status) -> None:
    if not found.runs:
        return
    table = new_table("last runs (UTC)", "job", "outcome", ">seconds", ">partitions", ">quarantined")
    for run in found.runs:
        seconds = "-" if run.seconds is None else f"{run.seconds:.1f}"
        start = f"{run.started_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
        add_row(table, start, run.job, run.outcome, seconds, run.partitions, run.quarantined)
    console.print()
    console.print(table)


def _cut(console: Console, items: Sequence[object], shown: int) -> None:
    if len(items) > shown:
        print_line(console, f"… and {_number(len(items) - shown)} more; --json has all")


def _reasons(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{_number(count)} {reason}" for reason, count in ordered)


def print_line(console: Console, text: str) -> None:
    """One line of any length."""
    # Not wrapped, so that paths can be copied; a name in it can't make lines of its own.
    start = "\n" if text.startswith("\n") else ""
    console.print(start + plain(text.removeprefix("\n")), soft_wrap=True)


def new_table(*headings: str) -> Table:
    """A table without lines; headings that begin with `>` are of numbers, on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        if heading.startswith(">"):
            table.add_column(heading[1:], justify="right", no_wrap=True)
        else:
            # Long names are folded, never cut.
            table.add_column(heading, overflow="fold")
    return table


def add_row(table: Table, *cells: object) -> None:
    """One row; whole numbers get their commas."""
    table.add_row(*(_number(cell) if isinstance(cell, int) else plain(str(cell)) for cell in cells))


def _number(count: int) -> str:
    return f"{count:,}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def duration(seconds: float) -> str:
    """A span of time in its largest fitting unit: `45 s`, `12 min`, `3.5 h`, `2 d`; negative ones too."""
    for unit_seconds, unit in UNITS:
        if abs(seconds) >= unit_seconds:
            return f"{seconds / unit_seconds:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
