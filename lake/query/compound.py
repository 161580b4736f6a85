"""Answers a question together with the further questions that shares and comparisons need."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, get_args

import polars as pl

from lake import paths
from lake.calendar import days_before
from lake.consistent_read import read_consistently
from lake.meters import load_meter
from lake.query.answer import RANK, Explanation, answer, explain
from lake.query.compare import BEFORE, CHANGE, COMPARED, before_question, history_questions, with_before
from lake.query.over import OVER_COLUMNS, check_ratios, over_question, with_over
from lake.query.plan import Plan, make_plan
from lake.query.question import Compare, Question
from lake.query.ratios import exact_quantity
from lake.query.share import SHARE, total_question, with_share
from lake.storage import Storage, StoredFile
from schemas.columns import MEASURES
from schemas.errors import BadInputError, RefusedError, SumTooLargeError
from schemas.meter import Meter

# The first date of any question.
FIRST_DATE = dt.date(2, 1, 1)
_LONGER_THAN_A_YEAR = 400


class Part(NamedTuple):
    """One of the questions, its meter, and its plan."""

    meter: Meter
    question: Question
    plan: Plan


# By purpose: `asked` is the question itself; the others are `total`, `over`, and those of COMPARISON.
Parts = Mapping[str, Part]
COMPARISON = ("before", "history", "history_rest")


class Compound(NamedTuple):
    """The rows that answer a question, and the questions that were answered for them."""

    rows: pl.DataFrame
    parts: Parts


def run_query(storage: Storage, meter: Meter, question: Question) -> Compound:
    """Return the answer to a question, with shares and comparisons.

    Columns and order are those of `lake.query.answer`, followed by `share`, the columns of `compare` and those of
    `over`. All parts are of one moment. Raises what `answer` does, BadInputError for a question that makes no sense, and
    RefusedError for a ratio that is too large.
    """
    _check_names(question)
    other = None if question.over is None else load_meter(storage, question.over)
    # Planned as if the lake went back further than any bucket; its dates are known once files are listed.
    planned = _plan_parts(meter, other, question, days_before(question.dates[0], _LONGER_THAN_A_YEAR))
    if len(planned) == 1:
        return Compound(answer(storage, *planned["asked"]).drop(RANK, strict=False).collect(), planned)
    folders = {_folder(part): part.meter == meter for part in planned.values()}
    # Sealed dates have rows only here.
    folders[paths.aggregates("usage", meter.name)] = True

    def list_files() -> list[StoredFile]:
        return [file for folder in folders for file in storage.list(folder)]

    def answer_all(listed: list[StoredFile]) -> Compound:
        own_folders = tuple(folder for folder, is_mine in folders.items() if is_mine)
        places = [paths.split_partition(file.path) for file in listed if file.path.startswith(own_folders)]
        dates = [place.date for place in places if place]
        parts = _plan_parts(meter, other, question, min(dates, default=None))
        return Compound(
            _join_answers({name: _answer_part(storage, name, parts[name]) for name in parts}, parts), parts
        )

    return read_consistently(list_files, answer_all, next(iter(folders)), is_whole=True)


def explain_parts(storage: Storage, parts: Parts) -> dict[str, Explanation]:
    """Return how each of the questions is answered. Lists files, and reads none."""
    return {name: explain(storage, part.meter, part.plan) for name, part in parts.items()}


def _plan_parts(meter: Meter, other: Meter | None, question: Question, first: dt.date | None) -> Parts:
    """Return the questions that an answer needs, in a lake whose first date is `first`."""
    asked = _part(meter, question)
    parts = {"asked": asked}
    if question.share:
        total = _part(meter, total_question(meter, question))
        # From the same table, so that a total is of the same moment as its parts.
        parts["total"] = total._replace(plan=total.plan._replace(table=asked.plan.table))
    if question.compare:
        before = before_question(question)
        history = history_questions(meter, before, max(first, FIRST_DATE)) if first else []
        parts |= {
            name: _part(meter, each) for name, each in zip(COMPARISON, [before, *history], strict=False)
        }
    if other is not None:
        fields = asked.plan.condition.fields if asked.plan.condition else ()
        parts["over"] = _part(other, over_question(meter, other, question, fields))
    return parts


def _part(meter: Meter, question: Question) -> Part:
    return Part(meter, question, make_plan(meter, question))


def _answer_part(storage: Storage, name: str, part: Part) -> pl.LazyFrame:
    try:
        return _answer_exactly(storage, part)
    except RefusedError as error:
        if isinstance(error, SumTooLargeError) or name not in COMPARISON:
            raise
        hints = {"before": f"--compare reads the {part.question.bucket} before the range too: begin later"}
        hint = "--compare looks for each group on all dates before: leave `quantity` out of the filter"
        raise RefusedError(
            error.what,
            where=error.where,
            expected=error.expected,
            found=error.found,
            hint=hints.get(name, hint),
        ) from error


def _answer_exactly(storage: Storage, part: Part) -> pl.LazyFrame:
    """Return the rows of one answer with their exact quantity."""
    meter, question, plan = part
    needs_more = meter.aggregation == "avg" and not (question.measures or question.distinct)
    rows = answer(storage, meter, replace(question, measures=True) if needs_more else question, plan)
    rows = rows.with_columns(exact_quantity(meter, question.value).named("row"))
    more = [name for name in MEASURES if name not in (question.value, "events")]
    return rows.drop(more) if needs_more else rows


def _join_answers(answers: Mapping[str, pl.LazyFrame], parts: Parts) -> pl.DataFrame:
    question = parts["asked"].question
    rows, by = answers["asked"], list(question.by)
    shown = [name for name in rows.collect_schema() if "#" not in name]
    ranks = rows.select(*by, RANK).unique() if question.top is not None else None
    if question.compare:
        history = [frame for name, frame in answers.items() if name in COMPARISON[1:]]
        rows = with_before(rows, answers["before"], history, question)
    if question.over is not None:
        both = (parts["asked"], parts["over"])
        adds_up = [question.fill and each.question.adds_up(each.meter) for each in both]
        rows = with_over(rows, answers["over"], question, fills=adds_up)
        if question.compare:
            # Groups of only the other meter had no usage in the bucket before either.
            rows = rows.with_columns(pl.col(BEFORE, CHANGE).fill_null(0))
    if question.share:
        rows = with_share(rows, answers["total"])
    if ranks is not None:
        # Groups without a rank were in other buckets only, or have usage of the other meter only.
        rows = rows.drop(RANK).join(ranks, on=by, how="inner", nulls_equal=True)
    order = ["bucket_start", *by] if ranks is None else ["bucket_start", RANK]
    collected = rows.sort(order).collect()
    if question.over is not None:
        check_ratios(collected, by)
    return collected.select(*shown, *_columns_beside(question))


def _columns_beside(question: Question) -> list[str]:
    """Return the columns of shares and comparisons, which follow the answer's own."""
    return [
        *([SHARE] if question.share else []),
        *(COMPARED if question.compare else []),
        *(OVER_COLUMNS if question.over is not None else []),
    ]


def _check_names(question: Question) -> None:
    if question.compare not in (None, *get_args(Compare)):
        raise BadInputError(
            "no such comparison", expected=", ".join(get_args(Compare)), found=repr(question.compare)
        )
    beside = _columns_beside(question)
    for name in question.by:
        # Most readers of SQL do not distinguish names by case.
        if name.lower() in beside:
            raise BadInputError(
                f"the dimension {name!r} has the name of a column of this answer",
                expected=f"to group by other fields than {', '.join(beside)} here, or not to ask for that column",
                found=f"--group-by {name}",
            )


def _folder(part: Part) -> str:
    """Return the folder of the files that an answer reads."""
    name = part.meter.name
    return paths.events(name) if part.plan.source == "events" else paths.aggregates(part.plan.table, name)
