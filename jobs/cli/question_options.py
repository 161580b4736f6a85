"""The options of a question about usage. Imports nothing heavy."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli.completion import complete_meter
from jobs.cli.help import whole_number

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?)?")


def parse_moment(text: str) -> dt.date:
    """Return a date, or a time, which is a date too. Raises BadParameter for any other text."""
    if _MOMENT.fullmatch(text):
        try:
            return dt.date.fromisoformat(text) if len(text) == 10 else dt.datetime.fromisoformat(text.upper())
        except ValueError:
            # The 30th of February and the like.
            pass
    raise typer.BadParameter(
        f"expected a date like 2026-06-19 or a time like 2026-06-19T12:00:00Z, found {text!r}"
    )


AnswerFormatName = Literal["table", "csv", "json", "parquet"]
BucketName = Literal["hour", "day", "week", "month", "quarter", "year", "none"]

Since = Annotated[
    dt.date,
    typer.Option("--from", parser=parse_moment, metavar="T", help="Start of the range: a date or a time."),
]
Until = Annotated[
    dt.date,
    typer.Option(
        "--to", parser=parse_moment, metavar="T", help="End of the range (exclusive): a date or a time."
    ),
]
Bucket = Annotated[BucketName, typer.Option("--bucket", help="The period of each row.")]
GroupBy = Annotated[
    list[str] | None,
    typer.Option("--group-by", metavar="F", help="subject or a dimension; repeat it, or use commas."),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--filter", metavar="EXPR", help="Only matching events, such as: plan = 'pro' and seats >= 10"
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top",
        parser=whole_number(1),
        metavar="N",
        help="Only the N groups with the greatest quantity or count.",
    ),
]
Zone = Annotated[
    str,
    typer.Option(
        "--tz",
        metavar="ZONE",
        help="Time zone of dates and of buckets of a day or longer, such as Europe/Paris.",
    ),
]
Fill = Annotated[bool, typer.Option("--fill", help="Add rows for empty buckets: 0, or a gauge's last level.")]
Measures = Annotated[bool, typer.Option("--measures", help="Show all measures, not only the quantity.")]
Distinct = Annotated[
    str | None,
    typer.Option("--distinct", metavar="F", help="Count distinct values of subject or of a dimension."),
]
Rolling = Annotated[
    int | None,
    typer.Option(
        "--rolling",
        parser=whole_number(1, 366),
        metavar="N",
        help="With a distinct count: of the N days (1 to 366) that end with each day.",
    ),
]
Share = Annotated[bool, typer.Option("--share", help="Show each row's share of its bucket's total.")]
Compare = Annotated[
    Literal["previous"] | None,
    typer.Option(
        "--compare", help="Show the usage of the bucket before, and which groups are new, returned or lost."
    ),
]
Over = Annotated[
    str | None,
    typer.Option(
        "--over",
        metavar="METER",
        help="Show the quantity of another meter, and the ratio to it.",
        autocompletion=complete_meter,
    ),
]
Explain = Annotated[bool, typer.Option("--explain", help="Say on stderr what the answer was computed from.")]
AnswerFormat = Annotated[AnswerFormatName, typer.Option("--format", help="The format of the answer.")]
Output = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the answer to a file.")]
