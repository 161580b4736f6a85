"""Options of several commands, and the session of a command's context. Imports nothing heavy."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import typer

from jobs.cli.completion import complete_meter
from jobs.cli.session import Session
from schemas.errors import BadInputError

PROGRAM = "meterlake"
EXIT_USAGE = 2
# What is counted from a date lies within the years that there are.
FIRST_DATE, LAST_DATE = dt.date(2, 1, 1), dt.date(9998, 12, 30)
# Plain help: it fits 80 columns, needs no rich, and starts fast.
PLAIN: dict[str, Any] = {"rich_markup_mode": None}


def _date(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()
    except ValueError:
        raise typer.BadParameter(f"expected a date like 2026-06-19, found {text!r}") from None


Format = Literal["json", "jsonl", "csv", "parquet"]
OneMeter = Annotated[
    str | None,
    typer.Option("--meter", metavar="M", help="Only this meter.", autocompletion=complete_meter),
]
TheMeter = Annotated[
    str, typer.Option("--meter", metavar="M", help="The meter's name.", autocompletion=complete_meter)
]
ColumnSet = Literal["default", "open-spanner", "focus"]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]
TrustClock = Annotated[
    bool,
    typer.Option(
        "--trust-clock", help="Go on though this machine's clock is far ahead of everything in the lake."
    ),
]
AsOf = Annotated[
    dt.date | None,
    typer.Option("--as-of", parser=_date, metavar="DATE", help="Count from this date; default today (UTC)."),
]


def date_or_today(as_of: dt.date | None) -> dt.date:
    """Return the date of --as-of, default today, UTC. Raises BadInputError where days cannot be counted from it."""
    last = as_of or dt.datetime.now(dt.UTC).date()
    if not FIRST_DATE <= last <= LAST_DATE:
        expected = f"{FIRST_DATE} to {LAST_DATE}"
        raise BadInputError("a date out of range", where="--as-of", expected=expected, found=str(last))
    return last


def listed(texts: list[str] | None) -> list[str]:
    """Return the names of an option that may be repeated, or have several names with commas between."""
    return [name.strip() for text in texts or () for name in text.split(",")]


def session_of(context: typer.Context) -> Session:
    """Return the session of this command line."""
    session: Session = context.find_root().obj
    return session


def help_if_bare(context: typer.Context) -> int | None:
    """Without a command, print the help to stderr and return the exit code of wrong usage; else return None."""
    if context.invoked_subcommand is not None:
        return None
    if session_of(context).as_json:
        raise typer.TyperException("a command is missing")
    typer.echo(context.get_help(), err=True)
    return EXIT_USAGE
