"""The command line: `meterlake`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from jobs.cli.command import Json, examples
from jobs.cli.jobs import jobs_app
from jobs.cli.lake import lake_app
from jobs.cli.meter import meter_app
from jobs.cli.options import EXIT_USAGE, PLAIN, PROGRAM, help_if_bare, session_of
from jobs.cli.query import query_app
from jobs.cli.report_page import page_app
from jobs.cli.session import DEFAULT_LAKE, Session, log_to_stderr, steady_streams

EXIT_INTERRUPTED = 130
GARBAGE_AFTER_OBJECTS = 100_000
# Where Polars' allocator looks for its options when Polars is loaded.
ALLOCATOR = "_RJEM_MALLOC_CONF"

app = typer.Typer(name=PROGRAM, **PLAIN)
# In the order of the help: what a newcomer needs first.
for commands in (lake_app, meter_app, jobs_app, query_app, page_app):
    app.add_typer(commands)


def main() -> None:
    """Run the command line of this process, and end it."""
    steady_streams()
    # A run makes many things that it keeps to its end; looking for garbage among them took a fifth of a quiet night.
    gc.set_threshold(GARBAGE_AFTER_OBJECTS)
    os.environ[ALLOCATOR] = _few_arenas(os.environ.get(ALLOCATOR))
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line, and return its exit code. Prints every failure, and raises none."""
    log_to_stderr()
    # Needed before the arguments are parsed, since wrong usage is printed as JSON too.
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


def _few_arenas(options: str | None) -> str:
    """Return the allocator's options with fewer arenas, unless they have a number of arenas.

    It keeps freed memory by arena, by default four a core. With one for two cores an aggregation of 20
    million events took a fifth less memory and 5 per cent less time. A process that has loaded Polars hands its own
    options on to those that it starts, so there may be some; of two that differ, the later counts.
    """
    few = f"narenas:{max(1, (os.cpu_count() or 1) // 2)}"
    return f"{few},{options}" if options else few


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
    session.storage_options = dict(map(_key_value, storage_option or []))
    return help_if_bare(context)


def _key_value(option: str) -> tuple[str, str]:
    key, separator, value = option.partition("=")
    if not key or not separator:
        # The text is not repeated: it may be a secret without its key.
        raise typer.BadParameter("expected KEY=VALUE", param_hint="--storage-option")
    return key, value


def _wrong_usage(session: Session, error: typer.TyperException) -> int:
    line = error.format_message().removesuffix(".")
    error_parts = {"kind": "wrong usage", "what": line, "hint": f"see: {_help_command(error)}"}
    if line.endswith((": --lake", ": --debug", ": --storage-option")):
        error_parts["hint"] = (
            f"put --lake, --storage-option and --debug before the command: {PROGRAM} --lake URL COMMAND"
        )
    return session.exit_with(line, error_parts, EXIT_USAGE)


def _help_command(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else PROGRAM} --help"


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)
