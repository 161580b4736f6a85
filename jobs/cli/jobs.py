"""The commands that run jobs, with a report, and most with the lease. Everything heavy is imported by the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.command import command
from jobs.cli.options import (
    PLAIN,
    AsOf,
    ColumnSet,
    DryRun,
    Format,
    OneMeter,
    TrustClock,
    listed,
    session_of,
)
from jobs.cli.session import LeaseOptions

if TYPE_CHECKING:
    from jobs.run_report import RunReport
    from lake import Lake

jobs_app = typer.Typer(**PLAIN)


@command(
    jobs_app,
    "meterlake land usage.jsonl more.parquet",
    "gzip -dc usage.jsonl.gz | meterlake land - --format jsonl",
)
def land(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files of events; - reads stdin.")],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="The format of the files, whatever their names say.")
    ] = None,
) -> int:
    """Land events from files. Landing the same input twice adds nothing."""

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.land.job import land as job

        job(lake, files, report, file_format)

    return _run_job(context, work)


@command(jobs_app, "meterlake aggregate", "meterlake aggregate --meter active_users --rebuild", lease=True)
def aggregate(
    context: typer.Context,
    meter: OneMeter = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Compute every open partition again.")] = False,
) -> int:
    """Deduplicate, and bring the aggregate tables up to date."""

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.aggregate.job import aggregate as job

        job(lake, report, meter=meter, rebuild=rebuild)

    return _run_job(context, work)


@command(jobs_app, "meterlake retain --dry-run --as-of 2026-12-31", "meterlake retain", lease=True)
def retain(
    context: typer.Context,
    dry_run: DryRun = False,
    as_of: AsOf = None,
    trust_clock: TrustClock = False,
) -> int:
    """Drop raw events that have expired. Their aggregates stay."""

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.retain import retain as job

        job(lake, report, as_of=as_of, dry_run=dry_run, trust_clock=trust_clock)

    return _run_job(context, work, dry_run=dry_run)


@command(
    jobs_app,
    "meterlake export --period 2026-06",
    "meterlake export --period 2026-06 --meter active_users --group-by plan",
    "meterlake export --verify usage-lake/exports",
    lease=True,
)
def export(  # noqa: PLR0913, PLR0917 - what to export, and how
    context: typer.Context,
    period: Annotated[
        str | None, typer.Option("--period", metavar="YYYY-MM", help="The month to export (UTC).")
    ] = None,
    meter: OneMeter = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            "--group-by", metavar="D", help="A dimension to add to the subject; repeat it, or use commas."
        ),
    ] = None,
    columns: Annotated[ColumnSet, typer.Option("--columns", help="The columns of usage.csv.")] = "default",
    csv_safe: Annotated[
        bool,
        typer.Option(
            "--csv-safe", help="Put an apostrophe before text that a spreadsheet takes for a formula."
        ),
    ] = False,
    close: Annotated[bool, typer.Option("--close", help="Make the month final.")] = False,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="DIR", help="Check a delivered folder of revisions; needs no lake."),
    ] = None,
) -> int:
    """Write a billing revision of a month, if anything changed."""
    if verify is not None:
        return _verify_export(context, verify, period, meter)
    if period is None:
        raise typer.BadParameter("a month is missing, like 2026-06", param_hint="--period")

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.export.billing import parse_period
        from jobs.export.job import export as job
        from jobs.export.month import Options

        options = Options(tuple(listed(group_by)), columns, csv_safe)
        job(lake, report, parse_period(period), meter=meter, options=options, close=close)

    return _run_job(context, work)


@command(jobs_app, "meterlake nightly", "meterlake --lake /srv/usage-lake nightly --wait --json", lease=True)
def nightly(
    context: typer.Context,
    as_of: AsOf = None,
    trust_clock: TrustClock = False,
) -> int:
    """Aggregate, export and retain: the command for cron.

    Exports this month, the last one, and every earlier month that changed. A failure is reported, and does not stop other meters, months or steps.
    """

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.nightly import nightly as job

        job(lake, report, as_of=as_of, trust_clock=trust_clock)

    return _run_job(context, work)


@command(jobs_app, "meterlake compact --dry-run", "meterlake compact --meter active_users", lease=True)
def compact(
    context: typer.Context,
    meter: OneMeter = None,
    dry_run: DryRun = False,
    as_of: AsOf = None,
) -> int:
    """Merge small event files into files of about 128 MB.

    Merges the files of dates before yesterday whose aggregates are up to date. No number changes. A later run of compact or nightly removes the merged files, an hour later at the soonest.
    """

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.compact import compact as job

        job(lake, report, meter=meter, as_of=as_of, dry_run=dry_run)

    return _run_job(context, work, dry_run=dry_run)


@command(jobs_app, "meterlake verify", "meterlake verify --meter active_users", lease=True)
def verify(
    context: typer.Context,
    meter: OneMeter = None,
) -> int:
    """Check the aggregates against the raw events.

    Computes them again, names each difference, and changes nothing. Sealed partitions are checked by the checksums that were taken when they were sealed.
    """

    def work(lake: Lake, report: RunReport) -> None:
        from jobs.verify.job import verify as job

        job(lake, report, meter=meter)

    return _run_job(context, work)


def _run_job(
    context: typer.Context, work: Callable[[Lake, RunReport], None], *, dry_run: bool = False
) -> int:
    """Run a job with a report, and with the lake's lease unless the command or the user does without it."""
    session, job = session_of(context), str(context.info_name)
    lake = session.lake()
    import msgspec

    from jobs.run_job import run_job
    from jobs.screen import run
    from lake import paths
    from lake.aggregates.ambiguity import HINT as AMBIGUITY_HINT

    def on_start(report: RunReport) -> None:
        if not dry_run:
            session.report_file = lake.storage.uri(paths.run(report.started_at, job))

    options = session.lease or LeaseOptions(none=True)
    report = run_job(
        lake,
        job,
        work,
        dry_run=dry_run,
        lease=not options.none,
        wait=options.wait,
        take_lease=options.take,
        on_start=on_start,
    )
    document = msgspec.to_builtins(report) | {"report_file": session.report_file}
    session.print_result(
        document, lambda console: run.print_run(console, report, session.report_file), report.errors
    )
    session.print_notes(report.notes, AMBIGUITY_HINT)
    return report.exit_code


def _verify_export(context: typer.Context, folder: Path, *others: object) -> int:
    if any(other is not None for other in others):
        raise typer.BadParameter("expected no --period and no --meter beside it", param_hint="--verify")
    session = session_of(context)
    from jobs.export.verify import verify_exports
    from jobs.screen import humanize

    found = verify_exports(folder)
    problems = [problem for revision in found for problem in revision.problems]
    session.print_result({"revisions": found}, lambda console: humanize.verified(console, found), problems)
    return 1 if problems else 0
