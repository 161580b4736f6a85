"""Answer a question about usage, and explain what the answer was made from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl

from jobs.exact_text import format_columns
from lake import Lake
from lake.aggregates.ambiguity import ambiguity_note
from lake.query import compound
from lake.query.answer import Explanation
from lake.query.compound import Parts
from lake.query.question import Question
from lake.storage.changed_files import retry_if_missing
from schemas.meter import Meter


class Answer(NamedTuple):
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
        """Yield lines about what the answer was made from; those of a further column begin with its name."""
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
        """Return the dates that are out of date, with the reason, by meter."""
        stale: dict[str, dict[dt.date, str]] = {}
        for name, explanation in self.explanations.items():
            stale.setdefault(self.parts[name].meter.name, {}).update(explanation.out_of_date)
        return {meter: dict(sorted(dates.items())) for meter, dates in stale.items() if dates}

    def notes(self) -> list[str]:
        """Return a note for each ambiguous gauge whose quantities are in the answer."""
        subjects = {
            self.parts[name].meter.name: each.ambiguous_subjects
            for name, each in self.explanations.items()
            if each.ambiguous_subjects and not self.parts[name].question.distinct
        }
        return [ambiguity_note(meter, number) for meter, number in subjects.items()]

    def document(self) -> dict[str, Any]:
        """Return question and answer for JSON; decimals are exact text."""
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


def run_query(lake: Lake, meter: str, question: Question) -> Answer:
    """Return the answer to one question. Raises the errors of `Lake.query`."""
    return retry_if_missing(lambda: _run_once(lake, meter, question))


def _run_once(lake: Lake, meter: str, question: Question) -> Answer:
    rows, parts = compound.run_query(lake.storage, lake.meter(meter), question)
    return Answer(parts, rows, compound.explain_parts(lake.storage, parts))


def _json_rows(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with decimals and times as text; doubles and booleans stay."""
    texts = format_columns(rows.lazy()).collect()
    plain = [name for name, dtype in rows.schema.items() if dtype in (pl.Float64, pl.Boolean)]
    return texts.with_columns(rows[name] for name in plain).to_dicts()
