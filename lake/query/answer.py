"""Answers questions about usage by their plans."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from lake.aggregates.ambiguity import most_ambiguous
from lake.aggregates.distinct import Group
from lake.aggregates.measures import measure, merge
from lake.aggregates.silence import BEFORE, BUCKET, mark_before
from lake.aggregates.sums import check_sums, has_no_sum
from lake.calendar import DAY
from lake.consistent_read import Snapshot, with_snapshot
from lake.dedupe.winners import DATE
from lake.query.plan import Plan
from lake.query.question import Question, adds_levels
from lake.query.question_numbers import Numbers, numbers
from lake.query.time_buckets import bucket_of_date, bucket_of_instant, by_bucket
from lake.readers import deduplicated, from_aggregates
from lake.snapshot import stale_dates
from lake.state.records import MeterState
from lake.state.state_file import load_state
from lake.storage import Storage
from schemas.columns import MEASURES
from schemas.errors import RefusedError
from schemas.meter import Meter

RANK = "#rank"
# Whether a group has events in a bucket, whether one of their sums is too large, and whether the group's total is.
IS_USED, NO_SUM, NO_TOTAL = "#is_used", "#no_sum", "#no_total"


class Explanation(NamedTuple):
    """How a question was answered: the parts of the plan, and the state of the dates that it read."""

    source: str
    table: str
    why: tuple[str, ...]
    partitions: int
    sealed: int
    # Stale dates, with the reason.
    out_of_date: dict[dt.date, str]
    # The greatest number of subjects with several levels on one date, for an ambiguous gauge.
    ambiguous_subjects: int = 0


def answer(storage: Storage, meter: Meter, question: Question, plan: Plan) -> pl.LazyFrame:
    """Return the rows that answer a question, computed now.

    Columns: `bucket_start`, `bucket_end`, the fields of `by`, `quantity` by the meter's aggregation or `distinct`,
    `events`, with `measures` the other measures, and with `top` RANK. With `rolling`, `events` are those of the window.
    One row for each bucket and group with events, with `fill` for each bucket and group; sorted by bucket, then by rank
    or fields. Shares and comparisons are added by lake.query.compound. Raises RefusedError where only raw events could
    answer and retention has dropped them, and SumTooLargeError naming the bucket and group of a sum that is too large.
    """
    is_added = adds_levels(meter, question)

    def collect(
        rows: pl.LazyFrame, group: Group, parts: Mapping[dt.date, pl.LazyFrame] | None = None
    ) -> pl.DataFrame:
        result = numbers(rows, meter, question, plan.grid, plan.series_condition, group, parts or {})
        return _shape(result, meter, question, plan.grid).collect(engine="streaming")

    def of_events(snapshot: Snapshot) -> pl.DataFrame:
        _refuse_sealed(snapshot.state, meter, question, plan)
        time = pl.col("timestamp")
        rows = deduplicated(snapshot, plan.dates).filter(time < question.until)
        rows = rows.with_columns(bucket_of_instant(question.bucket, question.zone))
        if is_added:
            rows = _filtered(rows, plan) if plan.series_condition is None else rows
            rows = mark_before(rows, time < question.since)
            return collect(measure(rows, [BUCKET, BEFORE, "subject", *meter.dimension_names]), merge)
        return collect(_filtered(rows.filter(time >= question.read_since), plan), measure)

    def of_aggregates(rows: pl.LazyFrame, dated: Mapping[dt.date, pl.LazyFrame]) -> pl.DataFrame:
        rows = rows.with_columns(bucket_of_date(question.bucket, pl.col(DATE)))
        if is_added:
            return collect(mark_before(rows, pl.col(DATE) < question.dates[0]), merge)
        parts = by_bucket(question.bucket, dated) if question.bucket != "none" else {}
        return collect(
            _filtered(rows, plan), merge, {key: _filtered(part, plan) for key, part in parts.items()}
        )

    if plan.source == "events":
        answered = with_snapshot(storage, meter, of_events)
    else:
        answered = from_aggregates(storage, meter, plan.table, plan.dates, of_aggregates, is_whole=True)
    checked = answered.columns[answered.columns.index(NO_SUM) :]
    check_sums(answered, f"meter {meter.name!r}", ["bucket_start", *question.by], pl.any_horizontal(checked))
    return answered.drop(checked).lazy()


def explain(storage: Storage, meter: Meter, plan: Plan) -> Explanation:
    """Return how the question is answered, and which of its dates are sealed or stale. Lists files, and reads none."""
    state = load_state(storage, meter.name)
    since, until = plan.dates
    dates = [date for date in state.partitions if since <= date < until]
    sealed = len(state.sealed.intersection(dates))
    # Answers from events use the files as they are now, so they are never stale.
    stale = stale_dates(storage, meter, state, since, until) if plan.source == "aggregates" else {}
    return Explanation(
        plan.source, plan.table, plan.why, len(dates), sealed, stale, most_ambiguous(meter, state)
    )


def _refuse_sealed(state: MeterState, meter: Meter, question: Question, plan: Plan) -> None:
    since, until = plan.dates
    dropped = sorted(d for d in state.sealed if since <= d < until and state.partitions[d].events)
    if dropped:
        looked_back = question.since.astimezone(dt.UTC).date() - since
        raise RefusedError(
            f"only raw events can answer this, since {' and '.join(plan.why)}",
            where=f"meter {meter.name!r}",
            expected="dates that are not sealed",
            found=f"{len(dropped)} sealed, from {dropped[0]} to {dropped[-1]}: retention has dropped their events",
            hint=f"ask from {dropped[-1] + looked_back + DAY} on, or for days of UTC and no filter on quantity",
        )


def _filtered(rows: pl.LazyFrame, plan: Plan) -> pl.LazyFrame:
    return rows.filter(plan.condition.expression) if plan.condition else rows


def _shape(result: Numbers, meter: Meter, question: Question, grid: pl.DataFrame) -> pl.LazyFrame:
    """Return the answer's rows and columns, and the columns that say which rows lack a sum."""
    by = list(question.by)
    shown = [question.value, "events"]
    more = [name for name in MEASURES if name not in ("quantity", "events")] if question.measures else []
    rows = _join_buckets(result.rows.with_columns(pl.lit(value=True).alias(IS_USED)), question, grid)
    # Rows without events are carried levels, which have no measures.
    needed = has_no_sum(shown) | ((pl.col("events") != 0) & has_no_sum([*shown, *more]))
    rows = rows.with_columns((pl.col(IS_USED) & needed).alias(NO_SUM))
    if question.fill:
        rows = _fill_buckets(rows, meter, question)
    order, checked = ["bucket_start", *by], [NO_SUM]
    if question.top is not None:
        rows = rows.join(_rank(result.totals, question, question.top), on=by, how="inner", nulls_equal=True)
        order, checked = ["bucket_start", RANK], [NO_SUM, NO_TOTAL]
    ranks = [RANK] if question.top is not None else []
    return rows.sort(order).select("bucket_start", "bucket_end", *by, *shown, *more, *ranks, *checked)


def _join_buckets(rows: pl.LazyFrame, question: Question, grid: pl.DataFrame) -> pl.LazyFrame:
    """Return the rows with the bounds of their buckets; with `fill` a row for every bucket of every group."""
    if not question.fill:
        return rows.join(grid.lazy(), on=BUCKET, how="inner", nulls_equal=True)
    every = grid.lazy()
    if question.by:
        every = rows.select(question.by).unique().join(every, how="cross")
    return every.join(rows, on=[BUCKET, *question.by], how="left", nulls_equal=True)


def _fill_buckets(rows: pl.LazyFrame, meter: Meter, question: Question) -> pl.LazyFrame:
    """Return the rows with empty buckets filled: 0 of what adds up or is counted, and a gauge's last quantity."""
    by, asked = list(question.by), pl.col(question.value)
    is_level = meter.is_gauge and not question.distinct
    if not is_level or meter.carry_days is not None:
        filled = asked.fill_null(0)
    elif meter.series is not None:
        # The quantity includes the levels of silent series, so it is missing only where none has a level.
        has_started = _over(asked.is_not_null().cum_max(), by)
        filled = pl.when(has_started).then(asked.fill_null(0))
    else:
        filled = pl.coalesce(asked, _over(pl.col("quantity_last").forward_fill(), by))
    return rows.sort("bucket_start").with_columns(filled, pl.col("events").fill_null(0))


def _over(running: pl.Expr, by: list[str]) -> pl.Expr:
    """Return the running expression within each group, in order of the buckets."""
    return running.over(by, order_by="bucket_start") if by else running


def _rank(totals: pl.LazyFrame, question: Question, top: int) -> pl.LazyFrame:
    """Return the groups with the greatest numbers over the whole range, and their rank; ties in order of the fields.

    A group whose sum is too large comes before all others.
    """
    by, value = list(question.by), question.value
    ordered = totals.sort(value, *by, descending=[True, *(False for _ in by)])
    ranked = ordered.head(top).with_row_index(RANK)
    return ranked.select(*by, RANK, pl.col(value).is_null().alias(NO_TOTAL))
