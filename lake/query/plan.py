"""Plan how a question is answered, pure: from the aggregates where they can, else from deduplicated events."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import polars as pl

from lake.calendar import days_before
from lake.query.filter_parser import Filter, parse_filter
from lake.query.question import Question, adds_levels, check_question, counted_field
from lake.query.time_buckets import buckets
from schemas.columns import QUANTITY
from schemas.meter import Meter


class Plan(NamedTuple):
    """How a question is answered: from `aggregates` or `events`, from which table, and why not from the aggregates.

    `dates` is the half-open range that is read: for rolling windows and carried levels it begins before the question's.
    """

    source: str
    table: str
    why: tuple[str, ...]
    condition: Filter | None
    grid: pl.DataFrame
    dates: tuple[dt.date, dt.date]

    @property
    def series_condition(self) -> pl.Expr | None:
        """The filter as a condition on whole series or values; None without one, or if it is on single events."""
        if self.condition is None or "quantity" in self.condition.fields:
            return None
        return self.condition.expression


def make_plan(meter: Meter, question: Question) -> Plan:
    """Return how to answer a question; reads nothing.

    Raises BadInputError naming what is wrong with a question that makes no sense for this meter.
    """
    check_question(meter, question)
    condition = _parse_where(meter, question)
    grid = buckets(question.bucket, question.since, question.until, question.zone)
    why = tuple(_why_events(question, condition))
    fields = {
        *question.by,
        *(condition.fields if condition else ()),
        counted_field(meter, question) or "subject",
    }
    is_added = adds_levels(meter, question)
    table = "usage" if is_added or fields - {"subject"} else "usage_by_subject"
    since, until = question.dates
    dates = days_before(since, (meter.carry_days or 0) if is_added else 0), until
    return Plan("events" if why else "aggregates", "events" if why else table, why, condition, grid, dates)


def _parse_where(meter: Meter, question: Question) -> Filter | None:
    if question.where is None:
        return None
    fields = {"subject": pl.String(), **meter.dimension_dtypes, "quantity": QUANTITY}
    return parse_filter(question.where, fields)


def _why_events(question: Question, condition: Filter | None) -> list[str]:
    """Return why the aggregates, rows of whole UTC dates, can't answer; empty if they can."""
    midnight, since = dt.time(), question.read_since
    why = []
    if question.bucket == "hour":
        why.append("hours are smaller than the dates of the aggregates")
    if {since.astimezone(dt.UTC).time(), question.until.astimezone(dt.UTC).time()} != {midnight}:
        why.append("the range does not begin and end at midnight UTC")
    elif question.bucket not in ("hour", "none"):
        grid = buckets(question.bucket, since, question.until, question.zone)
        inner = grid["bucket_start"].to_list()[1:]
        if any(edge.time() != midnight for edge in inner):
            why.append(f"days of {question.zone} are not dates of UTC")
    if condition and "quantity" in condition.fields:
        why.append("the filter looks at the quantity of single events")
    return why
