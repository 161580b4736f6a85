"""The commands `init`, `demo` and `status`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.command import command
from jobs.cli.help import whole_number
from jobs.cli.options import PLAIN, PROGRAM, AsOf, date_or_today, session_of
from jobs.screen.console import console_on, plain
from schemas.errors import RefusedError

DEFAULT_RUNS = 5
DEMO_FOLDER = "demo-lake"
# Stands in a folder that `demo` has made, and only such a folder is ever replaced by it.
DEMO_MARKER = "meterlake-demo"

lake_app = typer.Typer(**PLAIN)


@command(lake_app, "meterlake init", "meterlake --lake usage-lake init")
def init(context: typer.Context) -> int:
    """Make an empty lake. An existing lake stays as it is."""
    from lake import Lake, paths
    from lake.storage import open_storage

    session = session_of(context)
    made = not open_storage(session.url, session.storage_options).exists(paths.MARKER)
    lake = Lake.init(session.url, session.storage_options)
    text = f"{'made a lake' if made else 'there is a lake already'}: {lake.url}"
    session.print_result(
        {"lake": lake.url, "made": made}, lambda console: console.print(plain(text), soft_wrap=True)
    )
    return 0


@command(lake_app, "meterlake demo", "meterlake demo /tmp/try-meterlake")
def demo(
    context: typer.Context,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Where to make the lake; default demo-lake.")
    ] = DEMO_FOLDER,
) -> int:
    """Make a small lake of active users, and run everything on it.

    Replaces the lake of an earlier demo. Ignores --lake.
    """
    from jobs.demo.job import demo as job

    session = session_of(context)
    _fresh_demo_folder(Path(folder))
    # People watch the demo as it goes; with --json that is progress, and belongs on stderr.
    answers = job(folder, console_on(sys.stderr if session.as_json else sys.stdout), _called())
    if session.as_json:
        session.print_result(answers, lambda _: None)
    return 0


@command(lake_app, "meterlake status", "meterlake status --runs 20 --json")
def status(
    context: typer.Context,
    runs: Annotated[
        int,
        typer.Option(
            "--runs", parser=whole_number(0), metavar="N", help="How many of the last runs to show."
        ),
    ] = DEFAULT_RUNS,
    as_of: AsOf = None,
) -> int:
    """Show what is fresh, late or rejected.

    Per meter: events, newest date, partitions out of date and sealed, quarantined rows, duplicates, and how
    late events arrive (percentiles to within a tenth). Then the last runs. Reads no event data.
    """
    session = session_of(context)
    lake = session.lake()
    from jobs.screen import status
    from jobs.status import status_with_days

    found, daily = status_with_days(lake, runs, date_or_today(as_of))
    session.print_result(found, lambda console: status.status(console, found, daily), found.all_problems)
    return found.exit_code


def _called() -> str:
    """Return the command that calls this program again in the same shell."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m jobs.cli"
    on_path = shutil.which(PROGRAM)
    if on_path and Path(on_path).resolve() == program.resolve():
        return PROGRAM
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


def _fresh_demo_folder(folder: Path) -> None:
    """Make an empty folder for a demo. Raises RefusedError if the folder has anything but a demo."""
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
