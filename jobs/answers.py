"""Answers to questions about usage, and how they are given: a table, CSV, JSON or Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console

from jobs.layout import Table, line, prose, shares
from jobs.session import Session, as_json, for_people, write, write_bytes
from jobs.texts import as_texts
from lake import Lake
from lake.buckets import bucket_label, zone_of
from lake.changing import asked_again
from lake.query import Explanation, Question, answer, explain, make_plan
from schemas.errors import StorageError
from schemas.meter import Meter

# More lines nobody reads; the other formats have them all, and the table says so.
MAX_ROWS = 1_000
CRLF = "\r\n"


class Answered(NamedTuple):
    """A question, its answer's rows, and what they were made from."""

    meter: Meter
    question: Question
    rows: pl.DataFrame
    explanation: Explanation

    def explained(self) -> Iterator[str]:
        """What the answer was made from, as lines."""
        said = self.explanation
        yield f"answered from: {said.source}" + (
            f" (table {said.table})" if said.source == "aggregates" else ""
        )
        for why in said.why:
            yield f"because: {why}"
        yield f"dates with data in the range: {said.partitions}, of them sealed: {said.sealed}"

    def document(self) -> dict[str, Any]:
        """The question and its answer for JSON; exact decimals as text."""
        asked = self.question
        return {
            "meter": self.meter.name,
            "unit": self.meter.unit,
            "aggregation": self.meter.aggregation,
            "from": asked.since,
            "to": asked.until,
            "bucket": asked.bucket,
            "group_by": asked.by,
            "filter": asked.where,
            "top": asked.top,
            "tz": asked.zone,
            "fill": asked.fill,
            "explain": self.explanation._asdict(),
            "rows": _json_rows(self.rows),
        }


def ask(lake: Lake, meter: str, question: Question) -> Answered:
    """Answer one question. Raises what `lake.query` does."""
    return asked_again(lambda: _ask(lake, meter, question))


def _ask(lake: Lake, meter: str, question: Question) -> Answered:
    definition = lake.meter(meter)
    plan = make_plan(definition, question)
    explanation = explain(lake.storage, definition, plan)
    rows = answer(lake.storage, definition, question, plan).collect()
    return Answered(definition, question, rows, explanation)


def give(session: Session, found: Answered, form: str, output: Path | None) -> None:
    """Print an answer, or write it to a file, which appears at once and whole."""
    content = _content(found, form, on_screen=output is None)
    if output is None:
        write_bytes(content) if isinstance(content, bytes) else write(content)
        return
    raw = content if isinstance(content, bytes) else content.encode()
    try:
        temporary = output.with_name(f".{output.name}.part")
        temporary.write_bytes(raw)
        temporary.replace(output)
    except OSError as error:
        raise StorageError(
            "could not write the answer", where=str(output), found=error.strerror or ""
        ) from error
    said = {"file": str(output), "format": form, "rows": found.rows.height}
    session.answer(said, lambda console: line(console, f"{found.rows.height:,} rows in {output}"))


def _content(found: Answered, form: str, *, on_screen: bool) -> str | bytes:
    if form == "json":
        return as_json(found.document()).encode()
    if form == "csv":
        # As bytes, so that no text stream translates the ends of lines.
        return as_texts(found.rows.lazy()).collect().write_csv(line_terminator=CRLF).encode()
    if form == "parquet":
        buffer = io.BytesIO()
        found.rows.write_parquet(buffer, compression="zstd")
        return buffer.getvalue()
    return for_people(lambda console: _show(console, found), on_screen=on_screen)


def _json_rows(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows with decimals and times as text, doubles and booleans as such."""
    texts = as_texts(rows.lazy()).collect()
    plain = [name for name, dtype in rows.schema.items() if dtype in (pl.Float64, pl.Boolean)]
    return texts.with_columns(rows[name] for name in plain).to_dicts()


def _show(console: Console, found: Answered) -> None:
    asked, shown = found.question, found.rows.head(MAX_ROWS)
    in_time = asked.bucket != "none"
    texts = as_texts(shown.lazy().drop("bucket_start", "bucket_end")).collect()
    # Moments are texts, and not to be shortened either.
    measures = [f"={name}" if name.endswith("_at") else f">{name}" for name in texts.columns[len(asked.by) :]]
    heading = [f"={_heading(asked)}"] if in_time else []
    # One row has nothing to be compared with.
    bars = shares(shown["quantity"]) if shown.height > 1 else []
    table = Table(*heading, *asked.by, *measures, *("|" for _ in bars[:1]))
    zone = zone_of(asked.zone)
    for number, (start, cells) in enumerate(
        zip(shown["bucket_start"].to_list(), texts.iter_rows(), strict=True)
    ):
        when = [bucket_label(asked.bucket, start, zone)] if in_time else []
        table.add(*when, *("-" if cell is None else cell for cell in cells), *bars[number : number + 1])
    prose(console, f"{found.meter.name}: {found.meter.aggregation} of {found.meter.unit}")
    table.print(console)
    if found.rows.height > MAX_ROWS:
        prose(console, f"… and {found.rows.height - MAX_ROWS:,} more rows; --format csv has all")
    if found.rows.is_empty():
        prose(console, "nothing was used in this range")


def _heading(asked: Question) -> str:
    zone = "UTC" if asked.bucket == "hour" else asked.zone
    return asked.bucket if zone == "UTC" and asked.bucket != "hour" else f"{asked.bucket} ({zone})"
