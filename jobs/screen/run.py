"""Print a run for people: what it did to which partitions and exports, its totals, and the path of its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console

from jobs.run_report import ExportAction, ExportReport, PartitionAction, PartitionReport, RunReport
from jobs.screen.console import MAX_LINES
from jobs.screen.humanize import counted, number, reasons, size
from jobs.screen.table import Table, line, prose
from jobs.status import outcome
from lake import paths

# What a step of a nightly run does to partitions.
STEPS = {
    "aggregate": PartitionAction.AGGREGATED,
    "quarantine": PartitionAction.QUARANTINED,
    "retain": PartitionAction.DROPPED,
}


def print_run(console: Console, run: RunReport, file: str | None) -> None:
    """Print what a run did, its totals, and the path of its report."""
    if run.job == "nightly":
        _steps(console, run)
    for action, partitions in _by_action(run.partitions).items():
        _partitions(console, action, partitions, dry_run=run.dry_run)
    if run.exports:
        _exports(console, run.exports)
    if run.inputs:
        _inputs(console, run.inputs)
    for text in _totals(run):
        prose(console, text, "  ")
    if file:
        line(console, f"report: {file}")


def _steps(console: Console, run: RunReport) -> None:
    """Print the steps of a nightly run, each with its counts."""
    table = Table("=step", ">done", "=of", ">events", ">rows", ">size")
    actions = _by_action(run.partitions)
    for step, action in STEPS.items():
        done = actions.get(action, [])
        if step == "retain":
            _export_steps(table, run.exports)
        if done or action != PartitionAction.QUARANTINED:
            what = "partition" if len(done) == 1 else "partitions"
            events = sum(each.events for each in done)
            wrote = action == PartitionAction.AGGREGATED
            rows = sum(each.rows_written for each in done)
            size_bytes = sum(each.bytes_written for each in done) if wrote else _dropped_bytes(done)
            written = rows if wrote and done else "-"
            table.add(
                step, len(done), what, events if done else "-", written, size(size_bytes) if done else "-"
            )
    table.print(console)
    console.print()


def _export_steps(table: Table, exports: Sequence[ExportReport]) -> None:
    made = [each for each in exports if each.action == ExportAction.EXPORTED]
    what = "revision" if len(made) == 1 else "revisions"
    rows, size_bytes = sum(each.rows for each in made), sum(each.bytes_written for each in made)
    table.add("export", len(made), what, "-", rows if made else "-", size(size_bytes) if made else "-")


def _partitions(
    console: Console, action: PartitionAction, partitions: Sequence[PartitionReport], *, dry_run: bool
) -> None:
    """Print a row per partition if they are few, else per meter and reason; what retention drops always so."""
    if action == PartitionAction.COMPACTED:
        _compacted(console, partitions, dry_run=dry_run)
    elif action == PartitionAction.DROPPED or len(partitions) > MAX_LINES:
        _ranges(console, action, partitions, dry_run=dry_run)
    else:
        table = Table(action, "=date", ">events", "why")
        for partition in partitions:
            table.add(partition.meter, partition.date, partition.events, partition.reason)
        table.print(console)
    console.print()


def _compacted(console: Console, partitions: Sequence[PartitionReport], *, dry_run: bool) -> None:
    table = Table("would compact" if dry_run else "compacted", "=date", ">merged", ">written", "why")
    for each in partitions[:MAX_LINES]:
        written = "-" if dry_run else size(each.bytes_written)
        table.add(each.meter, each.date, size(each.bytes_merged), written, each.reason)
    table.print(console)
    cut(console, partitions, MAX_LINES)


def _ranges(
    console: Console, action: PartitionAction, partitions: Sequence[PartitionReport], *, dry_run: bool
) -> None:
    """Print a row per meter and reason, in the order of their first partition."""
    groups: dict[tuple[str, str], list[PartitionReport]] = {}
    for partition in partitions:
        groups.setdefault((partition.meter, partition.reason), []).append(partition)
    heading = "would drop" if dry_run else action
    table = Table(heading, ">dates", ">events", ">size", "=from", "=to", "=why")
    rows = [(meter, group, reason) for (meter, reason), group in groups.items()]
    for meter, group, reason in rows[:MAX_LINES]:
        first, last = min(each.date for each in group), max(each.date for each in group)
        table.add(meter, *_sums(group, action), first, last, reason)
    if len(rows) > 1:
        table.add("all", *_sums(partitions, action))
    table.print(console)
    cut(console, rows, MAX_LINES)


def _sums(partitions: Sequence[PartitionReport], action: PartitionAction) -> tuple[int, int, str]:
    written = sum(each.bytes_written for each in partitions)
    size_bytes = _dropped_bytes(partitions) if action == PartitionAction.DROPPED else written
    return len(partitions), sum(each.events for each in partitions), size(size_bytes)


def _dropped_bytes(partitions: Iterable[PartitionReport]) -> int:
    return sum(each.bytes_dropped for each in partitions)


def _by_action(partitions: Iterable[PartitionReport]) -> dict[PartitionAction, list[PartitionReport]]:
    groups: dict[PartitionAction, list[PartitionReport]] = {}
    for partition in partitions:
        groups.setdefault(partition.action, []).append(partition)
    return groups


def _exports(console: Console, exports: Sequence[ExportReport]) -> None:
    table = Table("export", "=period", ">revision", ">rows", ">adjustments", "=outcome")
    # New revisions come first, so that a long list is never cut before them.
    for each in sorted(exports, key=lambda export: export.action != ExportAction.EXPORTED)[:MAX_LINES]:
        outcome_text = f"{each.action}, closed" if each.closed else each.action
        counts = (each.rows, each.adjustments) if each.action == ExportAction.EXPORTED else ("-", "-")
        table.add(each.meter, each.form, each.revision or "-", *counts, outcome_text)
    table.print(console)
    cut(console, exports, MAX_LINES)
    for each in exports:
        if each.out_of_date:
            prose(
                console,
                f"{each.meter} {each.period}: {counted(len(each.out_of_date), 'date')} changed since, "
                "not included before the next: meterlake aggregate",
                "  ",
            )
        if each.pending_adjustments:
            rows = counted(each.pending_adjustments, "row")
            prose(
                console,
                f"{each.meter} {each.form}: closed; its definition or the program changed, {rows} would be adjusted "
                f"by: meterlake export --period {each.period}",
                "  ",
            )
    made = [each for each in exports if each.action == ExportAction.EXPORTED]
    for each in made[:MAX_LINES]:
        line(console, f"wrote {paths.revision(each.folder, each.revision)}")
    cut(console, made, MAX_LINES)
    console.print()


def _inputs(console: Console, inputs: Sequence[Mapping[str, object]]) -> None:
    table = Table("file", "=format", ">events", ">quarantined", "=outcome")
    for each in inputs[:MAX_LINES]:
        counts = [each.get(name, "-") for name in ("events", "quarantined")]
        # Shorter, without the words that repeat the heading and the zone of all times.
        status = str(each.get("status", "")).replace("landed at", "landed").removesuffix(" UTC")
        table.add(each.get("source", ""), each.get("format", "-"), *counts, status)
    table.print(console)
    cut(console, inputs, MAX_LINES)
    console.print()


def _totals(run: RunReport) -> Iterator[str]:
    yield "; ".join(_summary(run))
    if run.duplicates:
        conflicts = number(run.conflicts) if run.conflicts else "none"
        yield f"{counted(run.duplicates, 'duplicate')}, {conflicts} with a different payload"
    if run.quarantined:
        yield f"quarantined {counted(sum(run.quarantined.values()), 'row')}: {reasons(run.quarantined)}"
    if run.rows_written:
        yield f"wrote {counted(run.rows_written, 'row')}, {size(run.bytes_written)}"


def _summary(run: RunReport) -> Iterator[str]:
    """Yield the parts of the line that sums up a run: outcome, what it did, warnings or errors, and time."""
    results, has_failed = ", ".join(_results(run)), outcome(run) == "failed"
    end = "failed" if has_failed else "dry run, nothing touched" if run.dry_run else "done"
    if results or run.dry_run or has_failed:
        yield f"{run.job}: {end}"
        yield results or "nothing to do"
    else:
        yield f"{run.job}: nothing to do"
    if run.errors:
        yield counted(len(run.errors), "error" if has_failed else "warning")
    yield f"{(run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0:.1f} s"


def _results(run: RunReport) -> Iterator[str]:
    would = "would be " if run.dry_run else ""
    for action, partitions in _by_action(run.partitions).items():
        yield f"{counted(len(partitions), 'partition')} {would}{action}"
    if run.exports:
        yield f"{counted(sum(each.action == ExportAction.EXPORTED for each in run.exports), 'revision')} exported"
    if run.events_landed or run.inputs:
        yield f"{counted(run.events_landed, 'event')} landed"
    if run.events_read:
        yield f"{counted(run.events_read, 'event')} read"


def cut(console: Console, items: Sequence[object], shown: int) -> None:
    """Print how many items are not shown, if any."""
    if len(items) > shown:
        line(console, f"… and {number(len(items) - shown)} more; --json has all")
