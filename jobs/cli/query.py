"""The commands `query` and `values`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli import question_options as options
from jobs.cli.command import command
from jobs.cli.options import PLAIN, TheMeter, listed, session_of
from jobs.cli.session import Session, print_error

if TYPE_CHECKING:
    from jobs.query import Answer

# Of many, the newest are those that people look for.
MAX_STALE_DATES = 3

query_app = typer.Typer(**PLAIN)


@command(
    query_app,
    "meterlake query --meter active_users --from 2026-06-01 --to 2026-07-01",
    "meterlake query --meter active_users --from 2026-06-01 --to 2026-07-01 \\",
    "    --bucket none --group-by subject --top 10 --filter \"plan != 'free'\"",
    "meterlake query --meter active_users --from 2026-06-01 --to 2026-07-01 \\",
    "    --distinct workspace --rolling 28",
    "meterlake query --meter active_users --from 2026-06-01 --to 2026-07-01 \\",
    "    --bucket month --group-by subject --share --compare previous",
)
def query(  # noqa: PLR0913, PLR0917 - a question has this many parts
    context: typer.Context,
    meter: TheMeter,
    since: options.Since,
    until: options.Until,
    bucket: options.Bucket = "day",
    group_by: options.GroupBy = None,
    where: options.Where = None,
    top: options.Top = None,
    zone: options.Zone = "UTC",
    fill: options.Fill = False,
    measures: options.Measures = False,
    share: options.Share = False,
    compare: options.Compare = None,
    over: options.Over = None,
    distinct: options.Distinct = None,
    rolling: options.Rolling = None,
    explain: options.Explain = False,
    answer_format: options.AnswerFormat = "table",
    output: options.Output = None,
) -> int:
    """Answer how much was used.

    Answers come from the aggregates where these suffice, else from the deduplicated events: hours, days of a time
    zone, filters on quantity.
    """
    session = session_of(context)
    chosen = _format_of(session, answer_format, output)
    lake = session.lake()
    from jobs.query import run_query
    from lake.query.question import Question
    from lake.query.time_buckets import instant

    question = Question(
        since=instant(since, zone),
        until=instant(until, zone),
        bucket=bucket,
        by=tuple(listed(group_by)),
        where=where,
        top=top,
        zone=zone,
        fill=fill,
        measures=measures,
        share=share,
        compare=compare,
        over=over,
        distinct=distinct,
        rolling=rolling,
    )
    answer = run_query(lake, meter, question)
    _print_notes(session, answer, explain=explain)
    _write(session, answer, chosen, output)
    return 0


@command(query_app, "meterlake values --meter active_users --dimension plan")
def values(
    context: typer.Context,
    meter: TheMeter,
    dimension: Annotated[str, typer.Option("--dimension", metavar="D", help="A dimension, or subject.")],
    since: Annotated[
        dt.date | None,
        typer.Option("--from", parser=options.parse_moment, metavar="DATE", help="First date."),
    ] = None,
    until: Annotated[
        dt.date | None,
        typer.Option(
            "--to", parser=options.parse_moment, metavar="DATE", help="End of the dates (exclusive)."
        ),
    ] = None,
) -> int:
    """List the values of a dimension, and how many events have each."""
    for option, date in (("--from", since), ("--to", until)):
        if isinstance(date, dt.datetime):
            raise typer.BadParameter("expected a date like 2026-06-19, found a time", param_hint=option)
    session = session_of(context)
    lake = session.lake()
    from jobs.screen import humanize
    from lake.storage.changed_files import retry_if_missing

    found = retry_if_missing(lambda: lake.values(meter, dimension, since, until).collect())
    document = {"meter": meter, "dimension": dimension, "values": found.to_dicts()}
    session.print_result(document, lambda console: humanize.values(console, dimension, found))
    return 0


def _format_of(
    session: Session, asked: options.AnswerFormatName, output: Path | None
) -> options.AnswerFormatName:
    if session.as_json:
        if asked not in ("table", "json"):
            raise typer.BadParameter(
                f"expected json or nothing beside --json, found {asked}", param_hint="--format"
            )
        return "json"
    if asked == "parquet" and output is None and sys.stdout.isatty():
        raise typer.BadParameter(
            "Parquet is not for a terminal; name a file with --output", param_hint="--format"
        )
    return asked


def _write(session: Session, answer: Answer, form: str, output: Path | None) -> None:
    from jobs.screen.answer import write_result
    from jobs.screen.table import line

    write_result(answer, form, output)
    if output is None:
        return
    document = {"file": str(output), "format": form, "rows": answer.rows.height}
    session.print_result(document, lambda console: line(console, f"{answer.rows.height:,} rows in {output}"))


def _print_notes(session: Session, answer: Answer, *, explain: bool) -> None:
    """Print to stderr what the answer was made from, with `explain`, and which dates are out of date."""
    if explain:
        for line in answer.explained():
            print_error(line, kind="explain")
    for meter, stale in answer.stale_dates().items():
        dates = ", ".join(f"{date} ({why})" for date, why in list(stale.items())[-MAX_STALE_DATES:])
        few = len(stale) <= MAX_STALE_DATES
        place = "this range" if len(answer.parts) == 1 else f"meter {meter!r}"
        are = f"1 date of {place} is" if len(stale) == 1 else f"{len(stale):,} dates of {place} are"
        print_error(
            f"{are} out of date{'' if few else ', the last of them'}: {dates}",
            "the answer is as of the last aggregation; for newer events run: meterlake aggregate",
            "note",
        )
    from lake.aggregates.ambiguity import HINT

    session.print_notes(answer.notes(), HINT)
