"""The command line: `meterlake`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli_meter import meter_app
from jobs.cli_page import page_app
from jobs.cli_query import query_app
from jobs.options import (
    EXIT_USAGE,
    PLAIN,
    PROGRAM,
    AsOf,
    ColumnSet,
    Format,
    Json,
    NoLease,
    OneMeter,
    Wait,
    examples,
    help_if_bare,
    listed,
    session_of,
)
from jobs.session import DEFAULT_LAKE, Session, console_on, log_to_stderr, plain, steady_streams
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from jobs.report import Report
    from lake import Lake

EXIT_INTERRUPTED = 130
DEFAULT_RUNS = 5
DEMO_FOLDER = "demo-lake"
# Stands in a folder that `demo` has made, and only such a folder is ever replaced by it.
DEMO_MARKER = "meterlake-demo"

app = typer.Typer(name=PROGRAM, **PLAIN)
app.add_typer(meter_app)
app.add_typer(query_app)
app.add_typer(page_app)

GARBAGE_AFTER_OBJECTS = 100_000


def main() -> None:
    """Run the command line of this process, and end it."""
    steady_streams()
    # A run makes many things that it keeps to its end; looking for garbage among them took a fifth of a quiet night.
    gc.set_threshold(GARBAGE_AFTER_OBJECTS)
    # Polars' allocator, which is told when Polars is loaded, keeps freed memory by arena, four a core unless it is told
    # otherwise. With one for two cores an aggregation of 20 million events needed a fifth less memory and 5 per cent less time.
    os.environ.setdefault("_RJEM_MALLOC_CONF", f"narenas:{max(1, (os.cpu_count() or 1) // 2)}")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; gives the exit code. Tells every failure, and raises none."""
    log_to_stderr()
    # Known before the arguments are parsed, since a wrong usage is told in JSON too.
    session = Session(as_json="--json" in arguments[: _end_of_options(arguments)])
    try:
        code = typer.main.get_command(app).main(
            args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=session
        )
    except typer.TyperException as error:
        return _wrong_usage(session, error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - a panic inside Polars is no Exception
        return session.fail(error)
    return code if isinstance(code, int) else 0


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        try:
            version = metadata.version(PROGRAM)
        except metadata.PackageNotFoundError:
            version = "of a source folder that is not installed"
        typer.echo(f"{PROGRAM} {version}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "meterlake demo",
        "meterlake --lake usage-lake status",
        "meterlake --lake s3://our-bucket/usage nightly",
    ),
)
def _options(
    context: typer.Context,
    lake: Annotated[
        str,
        typer.Option(
            "--lake",
            envvar="METERLAKE_LAKE",
            show_envvar=True,
            show_default=True,
            metavar="URL",
            help="The lake's folder or URL.",
        ),
    ] = DEFAULT_LAKE,
    storage_option: Annotated[
        list[str] | None,
        typer.Option(
            "--storage-option",
            envvar="METERLAKE_STORAGE_OPTIONS",
            show_envvar=True,
            metavar="KEY=VALUE",
            help="How to reach the storage, such as endpoint_url=URL; may be given again.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    _json: Json = False,
) -> int | None:
    """Usage metering on plain Parquet: land events, aggregate them, drop what has expired.

    Exit codes: 0 done, 1 done with rejected input or a refused step, 2 wrong usage, 3 failed.
    """
    if not lake.strip():
        raise typer.BadParameter("expected a folder or a URL, found empty text", param_hint="--lake")
    session = session_of(context)
    session.url, session.debug = lake, debug
    session.storage_options = dict(_key_value(said) for said in storage_option or [])
    return help_if_bare(context)


@app.command(epilog=examples("meterlake init", "meterlake --lake usage-lake init"))
def init(context: typer.Context, _json: Json = False) -> int:
    """Make an empty lake. One that is there already stays as it is."""
    from lake import Lake, paths
    from lake.storage import open_storage

    session = session_of(context)
    made = not open_storage(session.url, session.storage_options).exists(paths.MARKER)
    lake = Lake.init(session.url, session.storage_options)
    said = f"{'made a lake' if made else 'there is a lake already'}: {lake.url}"
    session.answer(
        {"lake": lake.url, "made": made}, lambda console: console.print(plain(said), soft_wrap=True)
    )
    return 0


@app.command(
    epilog=examples(
        "meterlake land usage.jsonl more.parquet", "gzip -dc usage.jsonl.gz | meterlake land - --format jsonl"
    )
)
def land(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files of events; - reads stdin.")],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="What the files are, whatever their names say.")
    ] = None,
    _json: Json = False,
) -> int:
    """Land events from files. Landing the same input twice adds nothing."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.land import land as job

        job(lake, files, report, file_format)

    return _run_job(context, "land", work)


@app.command(epilog=examples("meterlake aggregate", "meterlake aggregate --meter active_users --rebuild"))
def aggregate(
    context: typer.Context,
    meter: OneMeter = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Compute every open partition anew.")] = False,
    wait: Wait = False,
    no_lease: NoLease = False,
    _json: Json = False,
) -> int:
    """Deduplicate, and bring the aggregate tables up to date."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.aggregate import aggregate as job

        job(lake, report, meter=meter, rebuild=rebuild)

    return _run_job(context, "aggregate", work, wait=None if no_lease else wait)


@app.command(epilog=examples("meterlake retain --dry-run --as-of 2026-12-31", "meterlake retain"))
def retain(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the same plan, and touch nothing.")
    ] = False,
    as_of: AsOf = None,
    wait: Wait = False,
    no_lease: NoLease = False,
    _json: Json = False,
) -> int:
    """Drop expired raw events. Their aggregates stay."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.retain import retain as job

        job(lake, report, as_of=as_of, dry_run=dry_run)

    return _run_job(context, "retain", work, dry_run=dry_run, wait=None if no_lease else wait)


@app.command(
    epilog=examples(
        "meterlake export --period 2026-06",
        "meterlake export --period 2026-06 --meter active_users --group-by plan",
        "meterlake export --verify usage-lake/exports",
    )
)
def export(  # noqa: PLR0913, PLR0917 - what to export, and how
    context: typer.Context,
    period: Annotated[str | None, typer.Option("--period", metavar="YYYY-MM", help="The month, UTC.")] = None,
    meter: OneMeter = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            "--group-by", metavar="D", help="A dimension beside the subject; again, or with commas."
        ),
    ] = None,
    columns: Annotated[ColumnSet, typer.Option("--columns", help="Columns of usage.csv.")] = "default",
    csv_safe: Annotated[
        bool, typer.Option("--csv-safe", help="An apostrophe before text that begins like a formula.")
    ] = False,
    close: Annotated[bool, typer.Option("--close", help="Make the period final.")] = False,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="DIR", help="Check a delivered folder; needs no lake.")
    ] = None,
    wait: Wait = False,
    no_lease: NoLease = False,
    _json: Json = False,
) -> int:
    """Write a billing revision of a month, if anything changed."""
    if verify is not None:
        return _verify_export(context, verify, period, meter)
    if period is None:
        raise typer.BadParameter("a month is missing, like 2026-06", param_hint="--period")

    def work(lake: Lake, report: Report) -> None:
        from jobs.billing import parse_period
        from jobs.export import Options
        from jobs.export import export as job

        options = Options(tuple(listed(group_by)), columns, csv_safe)
        job(lake, report, parse_period(period), meter=meter, options=options, close=close)

    return _run_job(context, "export", work, wait=None if no_lease else wait)


@app.command(epilog=examples("meterlake nightly", "meterlake --lake /srv/usage-lake nightly --wait --json"))
def nightly(
    context: typer.Context,
    as_of: AsOf = None,
    wait: Wait = False,
    no_lease: NoLease = False,
    _json: Json = False,
) -> int:
    """Aggregate, export, retain: what cron calls.

    Exports this month and the last. What fails is reported, and keeps no other meter or step from its work.
    """

    def work(lake: Lake, report: Report) -> None:
        from jobs.nightly import nightly as job

        job(lake, report, as_of=as_of)

    return _run_job(context, "nightly", work, wait=None if no_lease else wait)


@app.command(epilog=examples("meterlake compact --dry-run", "meterlake compact --meter active_users"))
def compact(  # noqa: PLR0913, PLR0917 - what to compact, and how
    context: typer.Context,
    meter: OneMeter = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the same plan, and touch nothing.")
    ] = False,
    as_of: AsOf = None,
    wait: Wait = False,
    no_lease: NoLease = False,
    _json: Json = False,
) -> int:
    """Merge small event files into files of about 128 MB.

    Of dates before yesterday, where the aggregates are up to date; no number changes. The merged files stop counting at once, and a later run removes them: compact or nightly, an hour on.
    """

    def work(lake: Lake, report: Report) -> None:
        from jobs.compact import compact as job

        job(lake, report, meter=meter, as_of=as_of, dry_run=dry_run)

    return _run_job(context, "compact", work, dry_run=dry_run, wait=None if no_lease else wait)


@app.command(epilog=examples("meterlake verify", "meterlake verify --meter active_users"))
def verify(
    context: typer.Context,
    meter: OneMeter = None,
    wait: Wait = False,
    no_lease: NoLease = False,
    _json: Json = False,
) -> int:
    """Hold what is published against the raw events.

    Derives it once more, names each difference, and changes nothing. Of sealed partitions the checksum counts that was taken when they were sealed.
    """

    def work(lake: Lake, report: Report) -> None:
        from jobs.verify import verify as job

        job(lake, report, meter=meter)

    return _run_job(context, "verify", work, wait=None if no_lease else wait)


@app.command(epilog=examples("meterlake status", "meterlake status --runs 20 --json"))
def status(
    context: typer.Context,
    runs: Annotated[
        int, typer.Option("--runs", min=0, metavar="N", help="How many of the last runs.")
    ] = DEFAULT_RUNS,
    _json: Json = False,
) -> int:
    """Show what is fresh, late or rejected.

    Per meter: events, newest date, partitions out of date and sealed, quarantined rows, duplicates, and how
    late events arrive (percentiles to within a tenth). Then the last runs. Reads no event data.
    """
    session = session_of(context)
    lake = session.lake()
    from jobs import show_status
    from jobs.status import status_with_days

    found, daily = status_with_days(lake, runs)
    session.answer(found, lambda console: show_status.status(console, found, daily), found.all_problems)
    return found.exit_code


@app.command(epilog=examples("meterlake demo", "meterlake demo /tmp/try-meterlake"))
def demo(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to make the lake.")] = DEMO_FOLDER,
    _json: Json = False,
) -> int:
    """Make a small lake, and run the whole thing on it.

    It is of the active-users use case. The lake of an earlier demo is replaced; --lake is not looked at.
    """
    from jobs.demo import demo as job

    session = session_of(context)
    _fresh_demo_folder(Path(folder))
    # People watch the demo as it goes; with --json that is progress, and belongs on stderr.
    answers = job(folder, console_on(sys.stderr if session.as_json else sys.stdout))
    if session.as_json:
        session.answer(answers, lambda _: None)
    return 0


def _run_job(
    context: typer.Context,
    job: str,
    work: Callable[[Lake, Report], None],
    *,
    dry_run: bool = False,
    wait: bool | None = None,
) -> int:
    """Run a job with a report, and with the lake's lease unless `wait` is None or nothing will be touched."""
    session = session_of(context)
    lake = session.lake()
    import msgspec

    from jobs import show_run
    from jobs.report import reported
    from lake import paths
    from lake.lease import leased

    with reported(lake, job, dry_run=dry_run) as report:
        if not dry_run:
            session.report_file = lake.storage.uri(paths.run(report.started_at, job))
        if wait is not None and not dry_run:
            with leased(lake.storage, job, wait=wait) as storage:
                work(lake.over(storage), report)
        else:
            work(lake, report)
    document = msgspec.to_builtins(report) | {"report_file": session.report_file}
    session.answer(
        document, lambda console: show_run.report(console, report, session.report_file), report.problems
    )
    return report.exit_code


def _verify_export(context: typer.Context, folder: Path, *others: object) -> int:
    if any(other is not None for other in others):
        raise typer.BadParameter("expected no --period and no --meter beside it", param_hint="--verify")
    session = session_of(context)
    from jobs import show
    from jobs.verify_export import verify_exports

    found = verify_exports(folder)
    problems = [problem for revision in found for problem in revision.problems]
    session.answer({"revisions": found}, lambda console: show.verified(console, found), problems)
    return 1 if problems else 0


def _key_value(said: str) -> tuple[str, str]:
    key, found, value = said.partition("=")
    if not key or not found:
        # The text is not repeated: it may be a secret whose key was forgotten.
        raise typer.BadParameter("expected KEY=VALUE", param_hint="--storage-option")
    return key, value


def _wrong_usage(session: Session, error: typer.TyperException) -> int:
    line = error.format_message().removesuffix(".")
    said = {"kind": "wrong usage", "what": line, "hint": f"see: {_help_command(error)}"}
    if line.endswith((": --lake", ": --debug", ": --storage-option")):
        said["hint"] = (
            f"--lake, --storage-option and --debug stand before the command: {PROGRAM} --lake URL COMMAND"
        )
    return session.refuse(line, said, EXIT_USAGE)


def _help_command(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else PROGRAM} --help"


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def _fresh_demo_folder(folder: Path) -> None:
    """Make an empty folder for a demo. Raises RefusedError where something else than a demo is."""
    if (folder / DEMO_MARKER).is_file():
        shutil.rmtree(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedError(
            "this is not a demo's folder, so it is not replaced",
            where=str(folder),
            expected="a new or empty folder, or that of an earlier demo",
            hint=f"name another folder: {PROGRAM} demo FOLDER",
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEMO_MARKER).write_text("Made by `meterlake demo`, which may replace this folder.\n")


if __name__ == "__main__":
    main()
