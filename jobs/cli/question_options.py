"""The options of a question about usage. Imports nothing heavy."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli.completion import complete_meter

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
    dt.date, typer.Option("--from", parser=parse_moment, metavar="T", help="First moment: a date or a time.")
]
Until = Annotated[
    dt.date,
    typer.Option("--to", parser=parse_moment, metavar="T", help="End of the range, not part of it."),
]
Bucket = Annotated[BucketName, typer.Option("--bucket", help="Length of a row's time.")]
GroupBy = Annotated[
    list[str] | None,
    typer.Option("--group-by", metavar="F", help="subject or a dimension; several: again, or with commas."),
]
Where = Annotated[
    str | None, typer.Option("--filter", metavar="EXPR", help="Like: plan = 'pro' and seats >= 10")
]
Top = Annotated[
    int | None, typer.Option("--top", min=1, metavar="N", help="The N groups of greatest quantity or count.")
]
Zone = Annotated[
    str, typer.Option("--tz", metavar="ZONE", help="IANA zone of dates, and of days and longer buckets.")
]
Fill = Annotated[bool, typer.Option("--fill", help="Rows for empty buckets: 0, or a gauge's last value.")]
Measures = Annotated[bool, typer.Option("--measures", help="All measures, not only the quantity.")]
Distinct = Annotated[
    str | None,
    typer.Option("--distinct", metavar="F", help="Count the distinct values of subject or a dimension."),
]
Rolling = Annotated[
    int | None,
    typer.Option(
        "--rolling", min=1, max=366, metavar="N", help="Count those of the N days that end with each day."
    ),
]
Share = Annotated[bool, typer.Option("--share", help="Each row's part of its bucket's total.")]
Compare = Annotated[
    Literal["previous"] | None,
    typer.Option("--compare", help="Usage of the bucket before, and which groups are new, returned or lost."),
]
Over = Annotated[
    str | None,
    typer.Option(
        "--over",
        metavar="METER",
        help="The quantity of another meter, and the ratio to it.",
        autocompletion=complete_meter,
    ),
]
Explain = Annotated[bool, typer.Option("--explain", help="Say on stderr what the answer is from.")]
AnswerFormat = Annotated[AnswerFormatName, typer.Option("--format", help="How to print the answer.")]
Output = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the answer to a file.")]
