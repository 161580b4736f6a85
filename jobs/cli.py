"""The command line: `meterlake`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.session import DEFAULT_LAKE, Session, log_to_stderr, steady_streams
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from jobs.report import Report
    from lake import Lake

PROGRAM = "meterlake"
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
DEFAULT_RUNS = 5
DEMO_FOLDER = "demo-lake"
# Stands in a folder that `demo` has made, and only such a folder is ever replaced by it.
DEMO_MARKER = "meterlake-demo"

# Plain help: it fits 80 columns, needs no rich, and starts fast.
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}
app = typer.Typer(name=PROGRAM, **PLAIN)
meter_app = typer.Typer(name="meter", **PLAIN)
app.add_typer(meter_app)


def main() -> None:
    """Run the command line of this process, and end it."""
    steady_streams()
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


def _date(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()
    except ValueError:
        raise typer.BadParameter(f"expected a date like 2026-06-19, found {text!r}") from None


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


# Only declares the option: `run` has looked for it.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
AsOf = Annotated[
    dt.date | None,
    typer.Option("--as-of", parser=_date, metavar="DATE", help="The date to count from; default today, UTC."),
]


@app.callback(invoke_without_command=True, epilog="Example: meterlake --lake usage-lake status")
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
    session = _session(context)
    session.url, session.debug = lake, debug
    return _help_if_bare(context)


@meter_app.callback(invoke_without_command=True)
def _meter_options(context: typer.Context) -> int | None:
    """Add, list and show meter definitions."""
    return _help_if_bare(context)


@app.command(epilog="Example: meterlake --lake usage-lake init")
def init(context: typer.Context, _json: Json = False) -> int:
    """Make an empty lake. One that is there already stays as it is."""
    from lake import Lake, paths
    from lake.storage import open_storage

    session = _session(context)
    made = not open_storage(session.url).exists(paths.MARKER)
    lake = Lake.init(session.url)
    said = f"{'made a lake' if made else 'there is a lake already'}: {lake.url}"
    session.answer({"lake": lake.url, "made": made}, lambda console: console.print(said, soft_wrap=True))
    return 0


@meter_app.command("add", epilog="Example: meterlake meter add active_users.json seats.json")
def meter_add(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="JSON definitions; - reads stdin.")],
    _json: Json = False,
) -> int:
    """Add meters, or change their definitions. A bad file does not stop the others."""
    session = _session(context)
    lake = session.lake()
    from jobs import show
    from jobs.define import define

    found = define(lake, files)
    session.answer({"meters": found}, lambda console: show.definitions(console, found))
    return max(definition.exit_code for definition in found)


@meter_app.command("list", epilog="Example: meterlake meter list --json")
def meter_list(context: typer.Context, _json: Json = False) -> int:
    """List the meters of the lake."""
    session = _session(context)
    found = session.lake().meters()
    from jobs import show

    session.answer({"meters": found}, lambda console: show.meters(console, found))
    return 0


@meter_app.command("show", epilog="Example: meterlake meter show active_users --json > active_users.json")
def meter_show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The meter's name.")],
    _json: Json = False,
) -> int:
    """Show one meter. With --json it is a definition that `meter add` takes."""
    session = _session(context)
    found = session.lake().meter(name)
    from jobs import show

    session.answer(found, lambda console: show.meter(console, found))
    return 0


@app.command(epilog="Example: meterlake land usage.jsonl more.parquet")
def land(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files of events; - reads stdin.")],
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="Take the files as this format, whatever their names."
        ),
    ] = None,
    _json: Json = False,
) -> int:
    """Land events from files. Landing the same input twice adds nothing."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.land import land as job

        job(lake, files, report, file_format)

    return _run_job(context, "land", work)


@app.command(epilog="Example: meterlake aggregate --meter active_users")
def aggregate(
    context: typer.Context,
    meter: Annotated[str | None, typer.Option("--meter", metavar="M", help="Only this meter.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Compute every open partition anew.")] = False,
    _json: Json = False,
) -> int:
    """Deduplicate, and bring the aggregate tables up to date."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.aggregate import aggregate as job

        job(lake, report, meter=meter, rebuild=rebuild)

    return _run_job(context, "aggregate", work)


@app.command(epilog="Example: meterlake retain --dry-run --as-of 2026-12-31")
def retain(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the same plan, and touch nothing.")
    ] = False,
    as_of: AsOf = None,
    _json: Json = False,
) -> int:
    """Drop expired raw events. Their aggregates stay."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.retain import retain as job

        job(lake, report, as_of=as_of, dry_run=dry_run)

    return _run_job(context, "retain", work, dry_run=dry_run)


@app.command(epilog="Example, in a crontab: 0 3 * * * meterlake --lake /srv/usage-lake nightly")
def nightly(context: typer.Context, as_of: AsOf = None, _json: Json = False) -> int:
    """Aggregate, then retain: what cron calls."""

    def work(lake: Lake, report: Report) -> None:
        from jobs.nightly import nightly as job

        job(lake, report, as_of=as_of)

    return _run_job(context, "nightly", work)


@app.command(epilog="Example: meterlake status --runs 20")
def status(
    context: typer.Context,
    runs: Annotated[
        int, typer.Option("--runs", min=0, metavar="N", help="How many of the last runs.")
    ] = DEFAULT_RUNS,
    _json: Json = False,
) -> int:
    """Show what is fresh, late or rejected.

    Per meter: events, newest date, partitions out of date and sealed, quarantined rows, duplicates, and how late
    events arrive (the percentiles of the median date). Then the last runs. Reads no event data.
    """
    session = _session(context)
    lake = session.lake()
    from jobs import show
    from jobs.status import status as gather

    found = gather(lake, runs)
    session.answer(found, lambda console: show.status(console, found))
    return found.exit_code


@app.command(epilog="Example: meterlake demo")
def demo(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to make the lake.")] = DEMO_FOLDER,
    _json: Json = False,
) -> int:
    """Make a small lake, and run the whole thing on it.

    It is of the active-users use case. The lake of an earlier demo is replaced; --lake is not looked at.
    """
    from rich.console import Console

    from jobs.demo import demo as job

    session = _session(context)
    _fresh_demo_folder(Path(folder))
    # People watch the demo as it goes; with --json that is progress, and belongs on stderr.
    job(folder, Console(stderr=session.as_json))
    if session.as_json:
        session.answer({"lake": str(Path(folder).absolute())}, lambda _: None)
    return 0


def _run_job(
    context: typer.Context, job: str, work: Callable[[Lake, Report], None], *, dry_run: bool = False
) -> int:
    session = _session(context)
    lake = session.lake()
    import msgspec

    from jobs import show
    from jobs.report import reported
    from lake import paths

    with reported(lake, job, dry_run=dry_run) as report:
        if not dry_run:
            session.report_file = lake.storage.uri(paths.run(report.started_at, job))
        work(lake, report)
    document = msgspec.to_builtins(report) | {"report_file": session.report_file}
    session.answer(document, lambda console: show.report(console, report, session.report_file))
    return report.exit_code


def _session(context: typer.Context) -> Session:
    session = context.find_root().obj
    assert isinstance(session, Session)  # noqa: S101 - `run` gives it
    return session


def _help_if_bare(context: typer.Context) -> int | None:
    if context.invoked_subcommand is not None:
        return None
    if _session(context).as_json:
        raise typer.TyperException("a command is missing")
    typer.echo(context.get_help(), err=True)
    return EXIT_USAGE


def _wrong_usage(session: Session, error: typer.TyperException) -> int:
    line = error.format_message().removesuffix(".")
    said = {"kind": "wrong usage", "what": line, "hint": f"see: {_help_command(error)}"}
    if line.endswith((": --lake", ": --debug")):
        said["hint"] = f"--lake and --debug stand before the command: {PROGRAM} --lake URL COMMAND"
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
