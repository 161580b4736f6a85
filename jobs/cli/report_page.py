"""The command `report`: a page of the lake for people who would rather look than read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.command import command
from jobs.cli.completion import complete_meter
from jobs.cli.help import whole_number
from jobs.cli.options import PLAIN, AsOf, date_or_today, session_of

if TYPE_CHECKING:
    from jobs.cli.session import Session
    from jobs.report_page.figures import Page

page_app = typer.Typer(**PLAIN)
DEFAULT_DAYS, DEFAULT_ROWS = 90, 10
STDOUT = Path("-")

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the page to this file; - is stdout.")
]
Days = Annotated[
    int,
    typer.Option(
        "--days", parser=whole_number(1, 3660), metavar="N", help="How many dates up to --as-of, 1 to 3660."
    ),
]
Month = Annotated[
    str | None,
    typer.Option(
        "--month", metavar="YYYY-MM", help="The month of the answers; default the last that is over."
    ),
]
Activity = Annotated[
    str | None,
    typer.Option(
        "--activity", metavar="M", help="The meter that counts activity.", autocompletion=complete_meter
    ),
]
Seats = Annotated[
    str | None,
    typer.Option("--seats", metavar="M", help="The meter of the seats.", autocompletion=complete_meter),
]
Meters = Annotated[
    list[str] | None,
    typer.Option(
        "--meter",
        metavar="M",
        help="Show this meter's usage; several: again.",
        autocompletion=complete_meter,
    ),
]
Top = Annotated[
    int, typer.Option("--top", parser=whole_number(1, 1000), metavar="N", help="Rows of a table, 1 to 1000.")
]


@command(
    page_app,
    "meterlake report --out report.html",
    "meterlake report --out june.html --days 30 --as-of 2026-06-30",
    "meterlake report --out report.html --activity active_users --top 50",
)
def report(  # noqa: PLR0913, PLR0917 - a page has this many options
    context: typer.Context,
    out: Out = None,
    days: Days = DEFAULT_DAYS,
    as_of: AsOf = None,
    month: Month = None,
    activity: Activity = None,
    seats: Seats = None,
    meter: Meters = None,
    top: Top = DEFAULT_ROWS,
) -> int:
    """Write a page about the lake for a browser or a printer.

    First who is active by day, week and month, the seats to bill and how many are used, plans and other dimensions,
    new, lost and returned customers, and who has gone quiet. Then each meter's usage, and what is late, rejected and
    exported.

    Activity is that of a unique_count meter, which counts users too, else of the meter with the most events; seats are
    those of a gauge with series whose unit is a seat or a license.

    The page is one HTML file that needs nothing else. With --json, prints its figures. Reads no event data.
    """
    session = session_of(context)
    if out is None and not session.as_json:
        raise typer.BadParameter("name a file for the page, or - for stdout", param_hint="--out")
    lake = session.lake()
    from jobs.report_page.dates import parse_month
    from jobs.report_page.figures import Choice, gather
    from jobs.screen.table import line

    last = date_or_today(as_of)
    chosen = Choice(
        activity=activity,
        seats=seats,
        detailed=tuple(meter or ()),
        month=None if month is None else parse_month(month, last),
        top=top,
    )
    page = gather(lake, last + dt.timedelta(days=1), days, chosen)
    if out is not None:
        _write(page, out, session)
    if session.as_json or out != STDOUT:
        session.print_result(page, lambda console: line(console, f"wrote {out}"), page.status.all_problems)
    return page.status.exit_code


def _write(page: Page, out: Path, session: Session) -> None:
    from jobs.report_page.render import document
    from jobs.screen.console import replace_file, write

    text = document(page)
    if out == STDOUT:
        if session.as_json:
            raise typer.BadParameter("stdout is for the JSON document; name a file", param_hint="--out")
        write(text)
        return
    replace_file(out, text.encode(), "the page")
