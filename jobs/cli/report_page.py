"""The command `report`: a page of the lake for people who would rather look than read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import PLAIN, AsOf, Json, examples, session_of
from schemas.errors import BadInputError, StorageError

if TYPE_CHECKING:
    from jobs.cli.session import Session
    from jobs.report_page.figures import Page

page_app = typer.Typer(**PLAIN)
DEFAULT_DAYS = 90
STDOUT = Path("-")


@page_app.command(
    epilog=examples(
        "meterlake report --out report.html", "meterlake report --out june.html --days 30 --as-of 2026-06-30"
    )
)
def report(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the page to this file; - is stdout.")
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=3660, metavar="N", help="How many dates, up to --as-of.")
    ] = DEFAULT_DAYS,
    as_of: AsOf = None,
    _json: Json = False,
) -> int:
    """Write a page of the lake to look at or print.

    Usage by day, who and what used most, what is late, rejected and exported.

    One HTML file that needs nothing else, for a browser, a phone or a printer. With --json its figures. Reads no
    event data.
    """
    session = session_of(context)
    if out is None and not session.as_json:
        raise typer.BadParameter("name a file for the page, or - for stdout", param_hint="--out")
    lake = session.lake()
    from jobs.report_page.figures import FIRST_DATE, LAST_DATE, gather
    from jobs.screen.table import line

    last = as_of or dt.datetime.now(dt.UTC).date()
    if not FIRST_DATE <= last <= LAST_DATE:
        expected = f"{FIRST_DATE} to {LAST_DATE}"
        raise BadInputError("a date out of range", where="--as-of", expected=expected, found=str(last))
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
