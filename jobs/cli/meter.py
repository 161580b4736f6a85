"""The command line's `meter` group. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.command import command, examples
from jobs.cli.completion import complete_meter
from jobs.cli.options import PLAIN, help_if_bare, session_of
from schemas.errors import MeterlakeError

meter_app = typer.Typer(name="meter", **PLAIN)


@meter_app.callback(
    invoke_without_command=True,
    epilog=examples("meterlake meter add active_users.json", "meterlake meter list"),
)
def _meter_options(context: typer.Context) -> int | None:
    """Add, list and show meter definitions."""
    return help_if_bare(context)


@command(meter_app, "meterlake meter add active_users.json seats.json", name="add")
def meter_add(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="JSON definitions; - reads stdin.")],
) -> int:
    """Add meters, or change their definitions. A bad file does not stop the others."""
    session = session_of(context)
    lake = session.lake()
    from jobs.define_meters import define
    from jobs.screen import humanize
    from lake.aggregates.ambiguity import HINT

    found = define(lake, files)
    refused = [definition.error for definition in found if definition.error]
    session.print_result({"meters": found}, lambda console: humanize.definitions(console, found), refused)
    session.print_notes([each.note for each in found if each.note], HINT)
    return max(definition.exit_code for definition in found)


@command(meter_app, "meterlake meter list", "meterlake meter list --json", name="list")
def meter_list(context: typer.Context) -> int:
    """List the meters of the lake."""
    session = session_of(context)
    broken: list[MeterlakeError] = []
    found = session.lake().meters(broken.append)
    from jobs.screen import humanize

    problems = [error.to_dict() for error in broken]
    document = {"meters": found} | ({"problems": problems} if problems else {})
    session.print_result(document, lambda console: humanize.meters(console, found), problems)
    return max((error.exit_code for error in broken), default=0)


@command(
    meter_app,
    "meterlake meter show active_users",
    "meterlake meter show active_users --json > active_users.json",
    name="show",
)
def meter_show(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The meter's name.", autocompletion=complete_meter)
    ],
) -> int:
    """Show one meter. With --json it is a definition for `meter add`."""
    session = session_of(context)
    found = session.lake().meter(name)
    from jobs.screen import humanize

    session.print_result(found, lambda console: humanize.meter(console, found))
    return 0
