"""Write the answer to a question about usage as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
from rich.console import Console

from jobs.exact_text import format_columns
from jobs.query import Answer
from jobs.screen.console import as_json, for_people, replace_file, write, write_bytes
from jobs.screen.humanize import counted
from jobs.screen.table import Table, prose, shares
from lake.query.compare import STATE
from lake.query.compound import Part
from lake.query.question import Question
from lake.query.share import SHARE
from lake.query.time_buckets import bucket_label, zone_of

# Nobody reads more lines; the other formats have all rows, and the table says so.
MAX_ROWS = 1_000
CRLF = "\r\n"


def write_result(answer: Answer, form: str, output: Path | None = None) -> None:
    """Write an answer as table, CSV, JSON or Parquet to a file, or to stdout; a file is replaced at once and whole.

    Raises StorageError where it can't be written, for a full disk for instance.
    """
    content = _content(answer, form, on_screen=output is None)
    if output is None:
        write_bytes(content) if isinstance(content, bytes) else write(content)
        return
    replace_file(output, content if isinstance(content, bytes) else content.encode(), "the answer")


def _content(answer: Answer, form: str, *, on_screen: bool) -> str | bytes:
    if form == "json":
        return as_json(answer.document()).encode()
    if form == "csv":
        # As bytes, so that no text stream translates the ends of lines.
        return format_columns(answer.rows.lazy()).collect().write_csv(line_terminator=CRLF).encode()
    if form == "parquet":
        buffer = io.BytesIO()
        answer.rows.write_parquet(buffer, compression="zstd")
        return buffer.getvalue()
    return for_people(lambda console: _show(console, answer), on_screen=on_screen)


def _show(console: Console, answer: Answer) -> None:
    asked, shown = answer.question, answer.rows.head(MAX_ROWS)
    in_time = asked.bucket != "none"
    texts = _texts(shown, asked)
    # Times and states are texts too, but must not be shortened.
    measures = [
        f"={name}" if name.endswith(("_at", STATE)) else f">{name}" for name in texts.columns[len(asked.by) :]
    ]
    heading = [f"={_heading(asked)}"] if in_time else []
    # A bar compares a row with others; one row has none.
    bars = shares(shown[asked.value]) if shown.height > 1 else []
    table = Table(*heading, *asked.by, *measures, *("|" for _ in bars[:1]))
    zone = zone_of(asked.zone)
    for number, (start, cells) in enumerate(
        zip(shown["bucket_start"].to_list(), texts.iter_rows(), strict=True)
    ):
        when = [bucket_label(asked.bucket, start, zone)] if in_time else []
        table.add(*when, *("-" if cell is None else cell for cell in cells), *bars[number : number + 1])
    asked_of = [answer.parts["asked"], *(part for name, part in answer.parts.items() if name == "over")]
    prose(console, "; over ".join(map(_title, asked_of)))
    table.print(console)
    if answer.rows.height > MAX_ROWS:
        prose(console, f"… and {answer.rows.height - MAX_ROWS:,} more rows; --format csv has all")
    if answer.rows.is_empty():
        prose(console, "nothing was used in this range")


def _title(part: Part) -> str:
    """Return the question in words: `active_users: distinct user in the 7 days up to each`."""
    asked, meter = part.question, part.meter
    what = f"distinct {asked.distinct}" if asked.distinct else f"{meter.aggregation} of {meter.unit}"
    window = f" in the {counted(asked.rolling, 'day')} up to each" if asked.rolling else ""
    return f"{meter.name}: {what}{window}"


def _texts(rows: pl.DataFrame, asked: Question) -> pl.DataFrame:
    """Return the cells of the table as text, without the bounds of buckets; shares in percent."""
    texts = format_columns(rows.lazy().drop("bucket_start", "bucket_end")).collect()
    percent = pl.format("{} %", (rows[SHARE].cast(pl.Float64) * 100).round(1)) if asked.share else None
    return texts if percent is None else texts.with_columns(percent.alias(SHARE))


def _heading(asked: Question) -> str:
    zone = "UTC" if asked.bucket == "hour" else asked.zone
    return asked.bucket if zone == "UTC" and asked.bucket != "hour" else f"{asked.bucket} ({zone})"
