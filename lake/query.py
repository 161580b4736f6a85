"""Questions about usage: planned on the aggregates where they can answer, else on the deduplicated events."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import polars as pl

from lake.buckets import BUCKET, DAY, SIZES, UTC, Size, bucket_of_date, bucket_of_instant, buckets, zone_of
from lake.calendar import days_before
from lake.dedup import DATE
from lake.filters import Filter, parse_filter
from lake.freshness import out_of_date
from lake.measures import billed, measure, merge
from lake.quantities import measured as measured_usage
from lake.readers import deduplicated, from_aggregates
from lake.silence import BEFORE, Silence, mark_before, silence
from lake.snapshot import Snapshot, from_events
from lake.state import MeterState, load_state
from lake.storage import Storage
from lake.sums import check_sums, has_no_sum
from schemas.errors import BadInputError, RefusedError
from schemas.meter import Meter
from schemas.tables import MEASURES, QUANTITY, Answer, column_types

ADDITIVE = frozenset({"sum", "count", "rate"})
ANSWER = list(column_types(Answer))
Compare = Literal["previous"]
RANK = "#rank"
# Whether a bucket has events of a group, and whether one of its sums is too large, or that of its group.
IS_USED, NO_SUM, NO_TOTAL = "#is_used", "#no_sum", "#no_total"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of one meter: since <= time < until, in buckets, by some fields, of what a filter keeps."""

    since: dt.datetime
    until: dt.datetime
    bucket: Size = "day"
    by: tuple[str, ...] = ()
    where: str | None = None
    top: int | None = None
    zone: str = UTC
    fill: bool = False
    measures: bool = False
    # What is shown beside, for which lake.compound asks more questions: of a bucket's total, the bucket before, a meter.
    share: bool = False
    compare: Compare | None = None
    over: str | None = None

    @property
    def value(self) -> str:
        """The column of the answer that is asked for; the others explain it."""
        return "quantity"

    def alone(self) -> Question:
        """Return the same question without ranking, and without what is shown beside."""
        return replace(self, top=None, share=False, compare=None, over=None)

    def adds_up(self, meter: Meter) -> bool:
        """Whether groups are parts of a whole, so that one without events has 0; not so for a level of all events."""
        return not meter.is_gauge or meter.series is not None

    @property
    def dates(self) -> tuple[dt.date, dt.date]:
        """The UTC dates that the range touches, as a half-open range."""
        last = (self.until - dt.timedelta(microseconds=1)).astimezone(dt.UTC).date()
        return self.since.astimezone(dt.UTC).date(), last + DAY


class Plan(NamedTuple):
    """How a question is answered: from `aggregates` or `events`, the table, and why the aggregates don't do.

    `dates` are those that are read, as a half-open range: with what is carried also some before the question's.
    """

    source: str
    table: str
    why: tuple[str, ...]
    condition: Filter | None
    grid: pl.DataFrame
    dates: tuple[dt.date, dt.date]

    @property
    def chosen(self) -> pl.Expr | None:
        """The condition on whole series or values; None where there is none, or where it chooses single events."""
        if self.condition is None or "quantity" in self.condition.fields:
            return None
        return self.condition.expression


class Explanation(NamedTuple):
    """What was used to answer: the plan's parts, the dates it read, and what is known about them."""

    source: str
    table: str
    why: tuple[str, ...]
    partitions: int
    sealed: int
    # Dates whose files differ from those that were aggregated, with the reason.
    out_of_date: dict[dt.date, str]


def instant(moment: dt.date | dt.datetime, zone: str = UTC) -> dt.datetime:
    """A date's midnight in the zone, or a time, which is in the zone where it names none itself.

    Raises BadInputError for an unknown zone, and for the first and last years of the calendar, where a zone's clocks
    may leave it.
    """
    if not 1 < moment.year < 9999:
        raise BadInputError("a time out of range", expected="a year from 2 to 9998", found=moment.isoformat())
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.combine(moment, dt.time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone_of(zone))
    return moment.astimezone(dt.UTC)


def make_plan(meter: Meter, question: Question) -> Plan:
    """Choose how to answer; reads nothing.

    Raises BadInputError for a question that makes no sense for this meter, naming what is wrong with it.
    """
    _check(meter, question)
    condition = _condition(meter, question)
    grid = buckets(question.bucket, question.since, question.until, question.zone)
    why = tuple(_beyond_aggregates(question, condition, grid))
    fields = {*question.by, *(condition.fields if condition else ())}
    table = "usage" if meter.needs_usage or fields - {"subject"} else "usage_by_subject"
    since, until = question.dates
    dates = days_before(since, meter.carry_days or 0), until
    return Plan("events" if why else "aggregates", "events" if why else table, why, condition, grid, dates)


def answer(storage: Storage, meter: Meter, question: Question, plan: Plan) -> pl.LazyFrame:
    """The rows that answer a question.

    `bucket_start` and `bucket_end`, the fields of `by`, `quantity` as the meter's aggregation has it, `events`, and
    the other measures where asked for. One row per bucket and group that has events, or with `fill` per bucket and
    group of the range; sorted by bucket, then by rank with `top`, which is the column RANK then, else by the fields.
    They are computed now, without what is shown beside them: see lake.compound. Raises
    RefusedError where only raw events could answer and retention has dropped them, and SumTooLargeError naming the
    bucket and group of a sum that the answer needs and that is too large.
    """
    keys = [BUCKET, *question.by]

    def collect(rows: pl.LazyFrame) -> pl.DataFrame:
        return _shaped(rows, meter, question, plan).collect(engine="streaming")

    def of_events(snapshot: Snapshot) -> pl.DataFrame:
        _refuse_sealed(snapshot.state, meter, plan)
        time = pl.col("timestamp")
        rows = deduplicated(snapshot, plan.dates).filter(time < question.until)
        rows = rows.with_columns(bucket_of_instant(question.bucket, question.zone))
        if meter.needs_usage:
            rows = _kept(rows, plan) if plan.chosen is None else rows
            rows = mark_before(rows, time < question.since)
            return collect(measure(rows, [BUCKET, BEFORE, "subject", *meter.dimension_names]))
        return collect(measure(_kept(rows.filter(time >= question.since), plan), keys))

    def of_aggregates(rows: pl.LazyFrame, _: object) -> pl.DataFrame:
        rows = rows.with_columns(bucket_of_date(question.bucket, pl.col(DATE)))
        if meter.needs_usage:
            return collect(mark_before(rows, pl.col(DATE) < question.dates[0]))
        return collect(merge(_kept(rows, plan), keys))

    if plan.source == "events":
        found = from_events(storage, meter, of_events)
    else:
        found = from_aggregates(storage, meter, plan.table, plan.dates, of_aggregates, is_whole=True)
    checked = found.columns[found.columns.index(NO_SUM) :]
    check_sums(found, f"meter {meter.name!r}", ["bucket_start", *question.by], pl.any_horizontal(checked))
    return found.drop(checked).lazy()


def explain(storage: Storage, meter: Meter, plan: Plan) -> Explanation:
    """What answers the question, and which of its dates are sealed or out of date. Lists files, and reads none."""
    state = load_state(storage, meter.name)
    since, until = plan.dates
    dates = [date for date in state.partitions if since <= date < until]
    sealed = len(state.sealed.intersection(dates))
    # Events are deduplicated as they are now, so they are never out of date.
    stale = out_of_date(storage, meter, state, since, until) if plan.source == "aggregates" else {}
    return Explanation(plan.source, plan.table, plan.why, len(dates), sealed, stale)


def _check(meter: Meter, question: Question) -> None:
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
    for position, name in enumerate(question.by):
        if name not in known or name in question.by[:position] or name in ANSWER:
            raise BadInputError(
                f"meter {meter.name!r} can't be grouped by {name!r}",
                expected=f"some of {', '.join(known)}, each once, and none of {', '.join(ANSWER)}",
                found=", ".join(question.by),
            )
    if question.top is not None and (question.top < 1 or not question.by):
        raise BadInputError(
            "there is nothing to rank",
            expected="top of 1 or more, of values that usage is grouped by",
            found=f"top {question.top}, grouped by {', '.join(question.by) or 'nothing'}",
        )


def _condition(meter: Meter, question: Question) -> Filter | None:
    if question.where is None:
        return None
    fields = {"subject": pl.String(), **meter.dimension_dtypes, "quantity": QUANTITY}
    return parse_filter(question.where, fields)


def _beyond_aggregates(question: Question, condition: Filter | None, grid: pl.DataFrame) -> list[str]:
    """Why rows of whole UTC dates, without single events, can't answer."""
    midnight = dt.time()
    why = []
    if question.bucket == "hour":
        why.append("hours are smaller than the dates of the aggregates")
    if {question.since.astimezone(dt.UTC).time(), question.until.astimezone(dt.UTC).time()} != {midnight}:
        why.append("the range does not begin and end at midnight UTC")
    elif question.bucket not in ("hour", "none"):
        inner = grid["bucket_start"].to_list()[1:]
        if any(edge.time() != midnight for edge in inner):
            why.append(f"days of {question.zone} are not dates of UTC")
    if condition and "quantity" in condition.fields:
        why.append("the filter looks at the quantity of single events")
    return why


def _refuse_sealed(state: MeterState, meter: Meter, plan: Plan) -> None:
    since, until = plan.dates
    gone = sorted(d for d in state.sealed if since <= d < until and state.partitions[d].events)
    if gone:
        raise RefusedError(
            f"only raw events can answer this, since {' and '.join(plan.why)}",
            where=f"meter {meter.name!r}",
            expected="dates that are not sealed",
            found=f"{len(gone)} sealed, from {gone[0]} to {gone[-1]}: retention has dropped their events",
            hint=f"ask from {gone[-1] + DAY * (1 + (meter.carry_days or 0))} on, or for days of UTC and no filter on quantity",
        )


def _kept(rows: pl.LazyFrame, plan: Plan) -> pl.LazyFrame:
    return rows.filter(plan.condition.expression) if plan.condition else rows


def _shaped(rows: pl.LazyFrame, meter: Meter, question: Question, plan: Plan) -> pl.LazyFrame:
    """From measures by bucket and group to the answer's rows and columns, and those that say which lack a sum.

    Of a meter that `needs_usage`, from rows of `usage` with `BUCKET` and `BEFORE`.
    """
    by = list(question.by)
    measured = _of_usage(rows, meter, question, plan) if meter.needs_usage else rows
    shown = ["quantity", "events"]
    more = [name for name in MEASURES if name not in shown] if question.measures else []
    found = _joined(measured.with_columns(pl.lit(value=True).alias(IS_USED)), question, plan.grid)
    if not meter.needs_usage:
        seconds = (pl.col("bucket_end") - pl.col("bucket_start")).dt.total_microseconds() / 1e6
        found = found.with_columns(billed(meter, seconds))
    # Only what is carried has no events, and no measures then.
    needed = has_no_sum(shown) | ((pl.col("events") != 0) & has_no_sum([*shown, *more]))
    found = found.with_columns((pl.col(IS_USED) & needed).alias(NO_SUM))
    if question.fill:
        found = _filled(found, meter, by)
    order, checked = ["bucket_start", *by], [NO_SUM]
    if question.top is not None:
        found = found.join(_ranked(rows, meter, question, plan), on=by, how="inner", nulls_equal=True)
        order, checked = ["bucket_start", RANK], [NO_SUM, NO_TOTAL]
    ranks = [RANK] if question.top is not None else []
    return found.sort(order).select("bucket_start", "bucket_end", *by, *shown, *more, *ranks, *checked)


def _of_usage(rows: pl.LazyFrame, meter: Meter, question: Question, plan: Plan) -> pl.LazyFrame:
    """Measures by bucket and group of rows of `usage`, with those of silent series where they count."""
    silent = _silence(meter, question, plan.grid) if meter.series is not None else None
    used = rows if silent else rows.filter(~pl.col(BEFORE))
    return measured_usage(used, meter, [BUCKET, *question.by], chosen=plan.chosen, silent=silent)


def _silence(meter: Meter, question: Question, grid: pl.DataFrame) -> Silence | None:
    if meter.carry_days is None and not question.fill:
        return None
    return silence(grid, question.since, meter.carry_days)


def _joined(measured: pl.LazyFrame, question: Question, grid: pl.DataFrame) -> pl.LazyFrame:
    """The measures with the bounds of their buckets; with `fill` a row for every bucket of every group."""
    if not question.fill:
        return measured.join(grid.lazy(), on=BUCKET, how="inner", nulls_equal=True)
    every = grid.lazy()
    if question.by:
        every = measured.select(question.by).unique().join(every, how="cross")
    return every.join(measured, on=[BUCKET, *question.by], how="left", nulls_equal=True)


def _filled(rows: pl.LazyFrame, meter: Meter, by: list[str]) -> pl.LazyFrame:
    """Empty buckets: nothing of what adds up, and of a gauge what it last said."""
    quantity = pl.col("quantity")
    if meter.aggregation in ADDITIVE or meter.carry_days is not None:
        filled = quantity.fill_null(0)
    elif meter.series is not None:
        # The levels of silent series are in the quantity; what is missing after one has ended or moved on.
        before = _over(quantity.is_not_null().cum_max(), by)
        filled = pl.when(before).then(quantity.fill_null(0))
    else:
        last = _over(pl.col("quantity_last").forward_fill(), by)
        double = meter.aggregation == "avg"
        filled = pl.coalesce(quantity, last.cast(pl.Float64) if double else last)
    return rows.sort("bucket_start").with_columns(filled, pl.col("events").fill_null(0))


def _over(running: pl.Expr, by: list[str]) -> pl.Expr:
    """A running expression of each group, in order of its buckets."""
    return running.over(by, order_by="bucket_start") if by else running


def _ranked(rows: pl.LazyFrame, meter: Meter, question: Question, plan: Plan) -> pl.LazyFrame:
    """The groups with the greatest quantity over the whole range, and their rank; ties in order of the fields.

    A group whose sum is too large comes before all others.
    """
    by = list(question.by)
    if meter.needs_usage:
        whole = replace(question, bucket="none", fill=False)
        grid = buckets("none", question.since, question.until, question.zone)
        undivided = rows.with_columns(bucket_of_date("none", pl.lit(None)))
        totals = _of_usage(undivided, meter, whole, plan._replace(grid=grid))
    else:
        seconds = (question.until - question.since) / dt.timedelta(seconds=1)
        totals = merge(rows, by).with_columns(billed(meter, seconds))
    ordered = totals.sort("quantity", *by, descending=[True, *(False for _ in by)])
    ranked = ordered.head(question.top or 0).with_row_index(RANK)
    return ranked.select(*by, RANK, pl.col("quantity").is_null().alias(NO_TOTAL))
