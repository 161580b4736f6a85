"""Adds another meter's quantity and the ratio to it: pure functions of answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import polars as pl

from lake.query.question import Question
from lake.query.ratios import fraction, ratio
from schemas.errors import BadInputError, RefusedError
from schemas.meter import Meter

OVER, RATIO = OVER_COLUMNS = ("over_quantity", "ratio")


def over_question(meter: Meter, other: Meter, question: Question, filtered_by: Iterable[str]) -> Question:
    """Return the same question about another meter's quantity.

    Raises BadInputError naming a field of `--group-by`, or of the filter (`filtered_by`), that the other meter does not
    declare, or declares with another type.
    """
    for option, names in (("--group-by", question.by), ("--filter", sorted(filtered_by))):
        for name in names:
            own_type, other_type = _kind(meter, name), _kind(other, name)
            if own_type != other_type:
                raise BadInputError(
                    f"{option} has a field that both meters must have: {name!r}",
                    where=f"meter {other.name!r} of --over",
                    expected=f"a dimension {name!r} of type {own_type}",
                    found=f"one of type {other_type}" if other_type else "no such dimension",
                )
    return replace(question.without_extras(), distinct=None, rolling=None)


def with_over(
    rows: pl.LazyFrame, other: pl.LazyFrame, question: Question, *, fills: Sequence[bool]
) -> pl.LazyFrame:
    """Return the rows of both answers, with the other's quantity as `over_quantity` and the `ratio` of the two.

    Where a row is in only one answer, the other's columns are null, or 0 if `fills` says so for that meter (the answer's
    own, then the other's). Ratios are decimal(38, 9), computed from exact quantities and rounded half-even; null over 0
    and of null. With `--top` the groups are those of `rows`.
    """
    keys = ["bucket_start", "bucket_end", *question.by]
    other_rows = other.select(*keys, pl.col("quantity").alias(OVER), *fraction("row").named("over"))
    if question.top is not None and question.by:
        other_rows = other_rows.join(
            rows.select(question.by).unique(), on=question.by, how="semi", nulls_equal=True
        )
    joined = rows.join(other_rows, on=keys, how="full", coalesce=True, nulls_equal=True)
    own_adds_up, other_adds_up = fills
    zeros = [question.value, "events", "#row numerator"] if own_adds_up else []
    zeros += [OVER, "#over numerator"] if other_adds_up else []
    ones = ["#row denominator", "#over denominator"]
    filled = joined.with_columns(pl.col(zeros).fill_null(0), pl.col(ones).fill_null(1))
    return filled.with_columns(ratio(fraction("row"), fraction("over")).alias(RATIO))


def check_ratios(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the rows. Raises RefusedError naming the first whose ratio has more digits than its column."""
    has_ratio = (fraction("row").numerator > 0) & (fraction("over").numerator > 0)
    too_large = rows.filter(has_ratio & pl.col(RATIO).is_null())
    if too_large.height:
        first = too_large.select("bucket_start", *by).row(0, named=True)
        named = ", ".join(f"{name} {value}" for name, value in first.items())
        others = f" and {too_large.height - 1:,} others" if too_large.height > 1 else ""
        raise RefusedError(
            "a ratio is too large",
            expected="less than 10^29, which a decimal(38, 9) holds",
            found=f"more: {named}{others}",
            hint="ask for both meters one by one, without --over",
        )
    return rows


def _kind(meter: Meter, name: str) -> str | None:
    builtin = {"subject": "string", "quantity": "number"}
    return builtin.get(name) or {each.name: each.type for each in meter.dimensions}.get(name)
