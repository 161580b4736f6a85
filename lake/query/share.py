"""Each group's part of its bucket's total: a pure function of the answers to two questions."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from lake.query.question import Question
from lake.query.ratios import fraction, ratio
from schemas.errors import BadInputError
from schemas.meter import Meter

SHARE = "share"


def total_question(meter: Meter, question: Question) -> Question:
    """Return the question whose answer has the total of each bucket: the same one without groups and ranking.

    Raises BadInputError for a gauge whose groups are no parts of a whole.
    """
    if not question.adds_up(meter):
        raise BadInputError(
            "a share of this gauge has no meaning, since its levels do not add up",
            where=f"meter {meter.name!r}",
            expected="a meter of amounts, a gauge with `series`, or --distinct",
            found=f"{meter.aggregation} without `series`",
        )
    return replace(question.without_extras(), by=())


def with_share(rows: pl.LazyFrame, totals: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows with `share` of the total of their bucket, which need not be the sum of the rows.

    A decimal(38, 9) from exact quantities, rounded half-even; null for a row without quantity and over a total of 0.
    """
    keys = ["bucket_start", "bucket_end"]
    total = totals.select(*keys, *fraction("row").named("total"))
    joined = rows.join(total, on=keys, how="left")
    return joined.with_columns(ratio(fraction("row"), fraction("total")).alias(SHARE))
