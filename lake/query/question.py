"""A question about a meter's usage, pure: its parts, and the rules that they must keep."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from lake.calendar import DAY
from lake.query.time_buckets import SIZES, UTC, Size, same_time_before
from schemas.columns import ANSWER_TYPES
from schemas.errors import BadInputError
from schemas.meter import Meter

ANSWER = list(ANSWER_TYPES)
DISTINCT = "distinct"
Compare = Literal["previous"]
MAX_ROLLING_DAYS = 366


class QueryOptions(TypedDict, total=False):
    """The parts of a question that have defaults, but `by`: the keywords of `Lake.query`, see there."""

    bucket: Size
    where: str | None
    top: int | None
    zone: str
    fill: bool
    measures: bool
    distinct: str | None
    rolling: int | None
    share: bool
    compare: Compare | None
    over: str | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about one meter: usage of since <= time < until, in buckets, by fields, of filtered rows."""

    since: dt.datetime
    until: dt.datetime
    bucket: Size = "day"
    by: tuple[str, ...] = ()
    where: str | None = None
    top: int | None = None
    zone: str = UTC
    fill: bool = False
    measures: bool = False
    # The field whose distinct values are counted, in place of the quantity.
    distinct: str | None = None
    # The length in days of the windows, ending with each day, in which distinct values are counted.
    rolling: int | None = None
    # Further columns, for which lake.query.compound answers more questions: the share of the bucket's total, the usage
    # of the bucket before, and the quantity of another meter.
    share: bool = False
    compare: Compare | None = None
    over: str | None = None

    @property
    def value(self) -> str:
        """The column of the answer that has the number asked for."""
        return DISTINCT if self.distinct else "quantity"

    def without_extras(self) -> Question:
        """Return the same question without ranking, shares and comparisons."""
        return replace(self, top=None, share=False, compare=None, over=None)

    def adds_up(self, meter: Meter) -> bool:
        """Return whether groups add up, so that one without events has 0; the levels of a gauge without `series` don't."""
        return self.distinct is not None or not meter.is_gauge or meter.series is not None

    @property
    def read_since(self) -> dt.datetime:
        """The time from which events are read; with `rolling` some days before the first row."""
        return same_time_before(self.since, (self.rolling or 1) - 1, self.zone)

    @property
    def dates(self) -> tuple[dt.date, dt.date]:
        """The half-open range of UTC dates that are read; with `rolling` it begins before the question's range."""
        last = (self.until - dt.timedelta(microseconds=1)).astimezone(dt.UTC).date()
        return self.read_since.astimezone(dt.UTC).date(), last + DAY


def check_question(meter: Meter, question: Question) -> None:
    """Raise BadInputError naming what is wrong with a question that makes no sense for this meter."""
    if question.since >= question.until:
        raise BadInputError(
            "the range is empty",
            expected="a start before the end, which is not part of the range",
            found=f"{question.since.isoformat()} to {question.until.isoformat()}",
        )
    if question.bucket not in SIZES:
        raise BadInputError(
            f"no bucket {question.bucket!r}", expected=", ".join(SIZES), found=question.bucket
        )
    known = ["subject", *meter.dimension_names]
    _check_groups(meter, question, known)
    if question.distinct is not None and question.distinct not in known:
        raise BadInputError(
            f"meter {meter.name!r} has no field {question.distinct!r} whose values could be counted",
            expected=f"one of {', '.join(known)}",
            found=repr(question.distinct),
        )
    if question.rolling is not None:
        _check_rolling(meter, question, question.rolling)


def _check_groups(meter: Meter, question: Question, known: list[str]) -> None:
    taken = [*ANSWER, DISTINCT] if question.distinct else ANSWER
    for position, name in enumerate(question.by):
        if name not in known or name in question.by[:position] or name.lower() in taken:
            raise BadInputError(
                f"meter {meter.name!r} can't be grouped by {name!r}",
                expected=f"some of {', '.join(known)}, each once, and none of {', '.join(taken)}",
                found=", ".join(question.by),
            )
    if question.top is not None and (question.top < 1 or not question.by):
        raise BadInputError(
            "there is nothing to rank",
            expected="top of 1 or more, of values that usage is grouped by",
            found=f"top {question.top}, grouped by {', '.join(question.by) or 'nothing'}",
        )


def _check_rolling(meter: Meter, question: Question, days: int) -> None:
    if not 1 <= days <= MAX_ROLLING_DAYS:
        raise BadInputError(
            "no such rolling window", expected=f"1 to {MAX_ROLLING_DAYS} days", found=f"{days} days"
        )
    if question.bucket != "day":
        raise BadInputError(
            "rolling windows end with each day",
            expected="buckets of a day",
            found=f"bucket {question.bucket}",
        )
    if counted_field(meter, question) is None:
        raise BadInputError(
            "rolling windows are for distinct values: amounts would be in several of them",
            expected="a field whose distinct values are counted, or a meter of unique_count",
            found=f"meter {meter.name!r} of {meter.aggregation}",
            hint="name the field with --distinct, for instance --distinct subject",
        )
    if question.measures:
        raise BadInputError(
            "rolling windows have no measures but their events",
            expected="rolling windows, or measures",
            found="both",
        )


def counted_field(meter: Meter, question: Question) -> str | None:
    """Return the field whose distinct values are counted; None if the answer is an amount or a level."""
    return question.distinct or meter.unique


def adds_levels(meter: Meter, question: Question) -> bool:
    """Return whether the answer is a sum of the levels of series."""
    return meter.series is not None and counted_field(meter, question) is None
