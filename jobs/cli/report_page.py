"""The command `report`: a page of the lake for people who would rather look than read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.command import command
from jobs.cli.help import whole_number
from jobs.cli.options import PLAIN, AsOf, date_or_today, session_of
from schemas.errors import StorageError

if TYPE_CHECKING:
    from jobs.cli.session import Session
    from jobs.report_page.figures import Page

page_app = typer.Typer(**PLAIN)
DEFAULT_DAYS = 90
STDOUT = Path("-")


@command(
    page_app,
    "meterlake report --out report.html",
    "meterlake report --out june.html --days 30 --as-of 2026-06-30",
)
def report(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the page to this file; - is stdout.")
    ] = None,
    days: Annotated[
        int,
        typer.Option(
            "--days",
            parser=whole_number(1, 3660),
            metavar="N",
            help="How many dates up to --as-of, 1 to 3660.",
        ),
    ] = DEFAULT_DAYS,
    as_of: AsOf = None,
) -> int:
    """Write a page about the lake for a browser or a printer.

    Shows usage by day, who and what used most, what is late, rejected and exported.

    The page is one HTML file that needs nothing else. With --json, prints its figures. Reads no event data.
    """
    session = session_of(context)
    if out is None and not session.as_json:
        raise typer.BadParameter("name a file for the page, or - for stdout", param_hint="--out")
    lake = session.lake()
    from jobs.report_page.figures import gather
    from jobs.screen.table import line

    last = date_or_today(as_of)
    page = gather(lake, last + dt.timedelta(days=1), days)
    if out is not None:
        _write(page, out, session)
    if session.as_json or out != STDOUT:
        session.print_result(page, lambda console: line(console, f"wrote {out}"), page.status.all_problems)
    return page.status.exit_code


def _write(page: Page, out: Path, session: Session) -> None:
    from jobs.report_page.html import document
    from jobs.screen.console import write

    text = document(page)
    if out == STDOUT:
        if session.as_json:
            raise typer.BadParameter("stdout is for the JSON document; name a file", param_hint="--out")
        write(text)
        return
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(
            "could not write the page", where=str(out), found=error.strerror or str(error)
        ) from error
