"""Answers to questions about usage, and how they are given: a table, CSV, JSON or Parquet."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console

from jobs.cli.session import Session, as_json, for_people, write, write_bytes
from jobs.exact_text import as_texts
from jobs.screen.humanize import counted
from jobs.screen.table import Table, line, prose, shares
from lake import Lake
from lake.aggregates.ambiguity import ambiguity_note
from lake.query.answer import Explanation
from lake.query.compare import STATE
from lake.query.compound import Part, Parts, explain_parts, run_query
from lake.query.question import Question
from lake.query.share import SHARE
from lake.query.time_buckets import bucket_label, zone_of
from lake.storage.changed_files import asked_again
from schemas.errors import StorageError
from schemas.meter import Meter

# More lines nobody reads; the other formats have them all, and the table says so.
MAX_ROWS = 1_000
CRLF = "\r\n"


class Answered(NamedTuple):
    """A question, its answer's rows, and what they were made from."""

    parts: Parts
    rows: pl.DataFrame
    explanations: Mapping[str, Explanation]

    @property
    def meter(self) -> Meter:
        """The meter that the question is about."""
        return self.parts["asked"].meter

    @property
    def question(self) -> Question:
        """The question itself."""
        return self.parts["asked"].question

    def explained(self) -> Iterator[str]:
        """What the answer was made from, as lines; those of what is shown beside begin with what that is."""
        for name, each in self.explanations.items():
            question = self.parts[name].question
            before = {
                "total": "totals of buckets, ",
                "before": f"the bucket before, from {question.since:%Y-%m-%dT%H:%MZ}, ",
                "history": f"all dates before {question.until:%Y-%m-%d}, ",
                "history_rest": f"from {question.since:%Y-%m-%dT%H:%MZ} to {question.until:%Y-%m-%dT%H:%MZ}, ",
                "over": f"meter {self.parts[name].meter.name}, ",
            }.get(name, "")
            table = f" (table {each.table})" if each.source == "aggregates" else ""
            yield f"{before}answered from: {each.source}{table}"
            for why in each.why:
                yield f"because: {why}"
            yield f"dates with data in the range: {each.partitions}, of them sealed: {each.sealed}"

    def stale_dates(self) -> dict[str, dict[dt.date, str]]:
        """The dates that are out of date, with the reason, by meter."""
        found: dict[str, dict[dt.date, str]] = {}
        for name, explanation in self.explanations.items():
            found.setdefault(self.parts[name].meter.name, {}).update(explanation.out_of_date)
        return {meter: dict(sorted(dates.items())) for meter, dates in found.items() if dates}

    def notes(self) -> list[str]:
        """What people should know of ambiguous gauges whose quantities are in the answer."""
        subjects = {
            self.parts[name].meter.name: each.ambiguous_subjects
            for name, each in self.explanations.items()
            if each.ambiguous_subjects and not self.parts[name].question.distinct
        }
        return [ambiguity_note(meter, number) for meter, number in subjects.items()]

    def document(self) -> dict[str, Any]:
        """The question and its answer for JSON; exact decimals as text."""
        asked = self.question
        used, *beside = (
            explanation._asdict() | self._about(name) for name, explanation in self.explanations.items()
        )
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
            "distinct": asked.distinct,
            "rolling": asked.rolling,
            "share": asked.share,
            "compare": asked.compare,
            "over": asked.over,
            "explain": used | ({"beside": beside} if beside else {}),
            "rows": _json_rows(self.rows),
        }

    def _about(self, name: str) -> dict[str, Any]:
        if name == "asked":
            return {}
        meter, question, _ = self.parts[name]
        return {"for": name, "meter": meter.name, "from": question.since, "to": question.until}


def ask(lake: Lake, meter: str, question: Question) -> Answered:
    """Answer one question. Raises what `lake.query` does."""
    return asked_again(lambda: _ask(lake, meter, question))


def _ask(lake: Lake, meter: str, question: Question) -> Answered:
    rows, parts = run_query(lake.storage, lake.meter(meter), question)
    return Answered(parts, rows, explain_parts(lake.storage, parts))


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
    texts = _texts(shown, asked)
    # Moments and states are texts, and not to be shortened either.
    measures = [
        f"={name}" if name.endswith(("_at", STATE)) else f">{name}" for name in texts.columns[len(asked.by) :]
    ]
    heading = [f"={_heading(asked)}"] if in_time else []
    # One row has nothing to be compared with.
    bars = shares(shown[asked.value]) if shown.height > 1 else []
    table = Table(*heading, *asked.by, *measures, *("|" for _ in bars[:1]))
    zone = zone_of(asked.zone)
    for number, (start, cells) in enumerate(
        zip(shown["bucket_start"].to_list(), texts.iter_rows(), strict=True)
    ):
        when = [bucket_label(asked.bucket, start, zone)] if in_time else []
        table.add(*when, *("-" if cell is None else cell for cell in cells), *bars[number : number + 1])
    asked_of = [found.parts["asked"], *(part for name, part in found.parts.items() if name == "over")]
    prose(console, "; over ".join(map(_title, asked_of)))
    table.print(console)
    if found.rows.height > MAX_ROWS:
        prose(console, f"… and {found.rows.height - MAX_ROWS:,} more rows; --format csv has all")
    if found.rows.is_empty():
        prose(console, "nothing was used in this range")


def _title(part: Part) -> str:
    """What was asked for, in words: `active_users: distinct user in the 7 days up to each`."""
    asked, meter = part.question, part.meter
    what = f"distinct {asked.distinct}" if asked.distinct else f"{meter.aggregation} of {meter.unit}"
    window = f" in the {counted(asked.rolling, 'day')} up to each" if asked.rolling else ""
    return f"{meter.name}: {what}{window}"


def _texts(rows: pl.DataFrame, asked: Question) -> pl.DataFrame:
    """The cells of a table, without the bounds of buckets; shares in percent."""
    texts = as_texts(rows.lazy().drop("bucket_start", "bucket_end")).collect()
    percent = pl.format("{} %", (rows[SHARE].cast(pl.Float64) * 100).round(1)) if asked.share else None
    return texts if percent is None else texts.with_columns(percent.alias(SHARE))


def _heading(asked: Question) -> str:
    zone = "UTC" if asked.bucket == "hour" else asked.zone
    return asked.bucket if zone == "UTC" and asked.bucket != "hour" else f"{asked.bucket} ({zone})"
