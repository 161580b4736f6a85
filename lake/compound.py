"""A question, the further questions that its shares and comparisons take, and their answers as one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, get_args

import polars as pl

from lake import paths
from lake.compare import COMPARED, before_question, history_questions, with_before
from lake.meters import load_meter
from lake.over import OVER_COLUMNS, check_ratios, over_question, with_over
from lake.query import RANK, Explanation, Plan, answer, explain, make_plan
from lake.question import Compare, Question
from lake.ratios import exact_quantity
from lake.share import SHARE, total_question, with_share
from lake.snapshot import of_one_moment
from lake.state import load_state
from lake.storage import Storage
from schemas.errors import BadInputError, RefusedError, SumTooLargeError
from schemas.meter import Meter
from schemas.tables import MEASURES

# Dates that no question can begin before.
FIRST_DATE = dt.date(2, 1, 1)


class Part(NamedTuple):
    """One of the questions, the meter that it is about, and how it is answered."""

    meter: Meter
    question: Question
    plan: Plan


# By what they are for: `asked` is the question itself; the others are `total`, `over`, and those of COMPARISON.
Parts = Mapping[str, Part]
COMPARISON = ("before", "history", "history_rest")


def plan_parts(storage: Storage, meter: Meter, question: Question) -> Parts:
    """Return the questions that an answer takes. Reads the definition of another meter, and the dates of this one.

    Raises BadInputError for a question that makes no sense.
    """
    _check_names(question)
    asked = _part(meter, question)
    parts = {"asked": asked}
    if question.share:
        total = _part(meter, total_question(meter, question))
        # From the same table, so that a total is of the same moment as its parts.
        parts["total"] = total._replace(plan=total.plan._replace(table=asked.plan.table))
    if question.compare:
        parts |= _plan_comparison(storage, meter, question)
    if question.over is not None:
        other = load_meter(storage, question.over)
        fields = asked.plan.condition.fields if asked.plan.condition else ()
        parts["over"] = _part(other, over_question(meter, other, question, fields))
    return parts


def run_parts(storage: Storage, parts: Parts) -> pl.LazyFrame:
    """Return the rows that answer a question, with `share`, those of the bucket before, and those of another meter.

    Columns and order are those of `lake.query.answer`, with what is shown beside after them. All is of one moment, and
    computed now. Raises what `answer` does, and RefusedError for a ratio that is too large.
    """
    if len(parts) == 1:
        asked = parts["asked"]
        return answer(storage, *asked).drop(RANK, strict=False)
    folders = sorted({_folder(part) for part in parts.values()})
    return of_one_moment(
        lambda: [storage.list(folder) for folder in folders],
        lambda _: _joined({name: _answered(storage, name, part) for name, part in parts.items()}, parts),
        folders[0],
        is_whole=True,
    )


def explain_parts(storage: Storage, parts: Parts) -> dict[str, Explanation]:
    """Return what answers each of the questions. Lists files, and reads none."""
    return {name: explain(storage, part.meter, part.plan) for name, part in parts.items()}


def _part(meter: Meter, question: Question) -> Part:
    return Part(meter, question, make_plan(meter, question))


def _plan_comparison(storage: Storage, meter: Meter, question: Question) -> dict[str, Part]:
    before = before_question(question)
    dates = [*load_state(storage, meter.name).partitions]
    if make_plan(meter, before).source == "events":
        places = map(paths.split_partition, (file.path for file in storage.list(paths.events(meter.name))))
        dates += [place.date for place in places if place]
    first = max(min(dates, default=FIRST_DATE), FIRST_DATE)
    parts = [before, *(history_questions(meter, before, first) if dates else [])]
    return {name: _part(meter, part) for name, part in zip(COMPARISON, parts, strict=False)}


def _answered(storage: Storage, name: str, part: Part) -> pl.LazyFrame:
    try:
        return _measured(storage, part)
    except RefusedError as error:
        if isinstance(error, SumTooLargeError) or name not in COMPARISON[1:]:
            raise
        raise RefusedError(
            error.what,
            where=error.where,
            expected=error.expected,
            found=error.found,
            hint="--compare looks for each group on all dates before: leave `quantity` out of the filter",
        ) from error


def _measured(storage: Storage, part: Part) -> pl.LazyFrame:
    """Return the rows of one answer with their exact quantity."""
    meter, question, plan = part
    needs_more = meter.aggregation == "avg" and not (question.measures or question.distinct)
    rows = answer(storage, meter, replace(question, measures=True) if needs_more else question, plan)
    rows = rows.with_columns(exact_quantity(meter, question.value).named("row"))
    more = [name for name in MEASURES if name not in (question.value, "events")]
    return rows.drop(more) if needs_more else rows


def _joined(answers: Mapping[str, pl.LazyFrame], parts: Parts) -> pl.LazyFrame:
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
    if question.share:
        rows = with_share(rows, answers["total"])
    if ranks is not None:
        # Groups that have no rank were in other buckets only, or with the other meter only.
        rows = rows.drop(RANK).join(ranks, on=by, how="inner", nulls_equal=True)
    order = ["bucket_start", *by] if ranks is None else ["bucket_start", RANK]
    found = rows.sort(order).collect()
    if question.over is not None:
        check_ratios(found, by)
    return found.select(*shown, *_columns_beside(question)).lazy()


def _columns_beside(question: Question) -> list[str]:
    """Return the columns that are shown beside the answer's own."""
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
    """Return the folder of the files that an answer is made of."""
    name = part.meter.name
    return paths.events(name) if part.plan.source == "events" else paths.aggregates(part.plan.table, name)
