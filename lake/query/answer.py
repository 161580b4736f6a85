"""Answer questions about usage as they are planned."""

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
from lake.snapshot import out_of_date
from lake.state.records import MeterState
from lake.state.state_file import load_state
from lake.storage import Storage
from schemas.columns import MEASURES
from schemas.errors import RefusedError
from schemas.meter import Meter

RANK = "#rank"
# Whether a bucket has events of a group, and whether one of its sums is too large, or that of its group.
IS_USED, NO_SUM, NO_TOTAL = "#is_used", "#no_sum", "#no_total"


class Explanation(NamedTuple):
    """What was used to answer: the plan's parts, the dates it read, and what is known about them."""

    source: str
    table: str
    why: tuple[str, ...]
    partitions: int
    sealed: int
    # Dates whose files differ from those that were aggregated, with the reason.
    out_of_date: dict[dt.date, str]
    # Of an ambiguous gauge, the greatest number of subjects that have several levels on one date.
    ambiguous_subjects: int = 0


def answer(storage: Storage, meter: Meter, question: Question, plan: Plan) -> pl.LazyFrame:
    """Return the rows that answer a question.

    `bucket_start` and `bucket_end`, the fields of `by`, `quantity` as the meter's aggregation has it, or `distinct`,
    `events`, and the other measures where asked for. With `rolling`, `events` are those of the same days. One row per
    bucket and group that has events, or with `fill` per bucket and group of the range; sorted by bucket, then by rank
    with `top`, which is the column RANK then, else by the fields. They are computed now, without what is shown beside
    them: see lake.query.compound. Raises
    RefusedError where only raw events could answer and retention has dropped them, and SumTooLargeError naming the
    bucket and group of a sum that the answer needs and that is too large.
    """
    is_added = adds_levels(meter, question)

    def collect(
        rows: pl.LazyFrame, group: Group, parts: Mapping[dt.date, pl.LazyFrame] | None = None
    ) -> pl.DataFrame:
        found = numbers(rows, meter, question, plan.grid, plan.chosen, group, parts or {})
        return _shaped(found, meter, question, plan.grid).collect(engine="streaming")

    def of_events(snapshot: Snapshot) -> pl.DataFrame:
        _refuse_sealed(snapshot.state, meter, question, plan)
        time = pl.col("timestamp")
        rows = deduplicated(snapshot, plan.dates).filter(time < question.until)
        rows = rows.with_columns(bucket_of_instant(question.bucket, question.zone))
        if is_added:
            rows = _kept(rows, plan) if plan.chosen is None else rows
            rows = mark_before(rows, time < question.since)
            return collect(measure(rows, [BUCKET, BEFORE, "subject", *meter.dimension_names]), merge)
        return collect(_kept(rows.filter(time >= question.read_since), plan), measure)

    def of_aggregates(rows: pl.LazyFrame, dated: Mapping[dt.date, pl.LazyFrame]) -> pl.DataFrame:
        rows = rows.with_columns(bucket_of_date(question.bucket, pl.col(DATE)))
        if is_added:
            return collect(mark_before(rows, pl.col(DATE) < question.dates[0]), merge)
        parts = by_bucket(question.bucket, dated) if question.bucket != "none" else {}
        return collect(_kept(rows, plan), merge, {key: _kept(part, plan) for key, part in parts.items()})

    if plan.source == "events":
        found = with_snapshot(storage, meter, of_events)
    else:
        found = from_aggregates(storage, meter, plan.table, plan.dates, of_aggregates, is_whole=True)
    checked = found.columns[found.columns.index(NO_SUM) :]
    check_sums(found, f"meter {meter.name!r}", ["bucket_start", *question.by], pl.any_horizontal(checked))
    return found.drop(checked).lazy()


def explain(storage: Storage, meter: Meter, plan: Plan) -> Explanation:
    """Return what answers the question, and which of its dates are sealed or out of date. Lists files, and reads none."""
    state = load_state(storage, meter.name)
    since, until = plan.dates
    dates = [date for date in state.partitions if since <= date < until]
    sealed = len(state.sealed.intersection(dates))
    # Events are deduplicated as they are now, so they are never out of date.
    stale = out_of_date(storage, meter, state, since, until) if plan.source == "aggregates" else {}
    return Explanation(
        plan.source, plan.table, plan.why, len(dates), sealed, stale, most_ambiguous(meter, state)
    )


def _refuse_sealed(state: MeterState, meter: Meter, question: Question, plan: Plan) -> None:
    since, until = plan.dates
    gone = sorted(d for d in state.sealed if since <= d < until and state.partitions[d].events)
    if gone:
        looked_back = question.since.astimezone(dt.UTC).date() - since
        raise RefusedError(
            f"only raw events can answer this, since {' and '.join(plan.why)}",
            where=f"meter {meter.name!r}",
            expected="dates that are not sealed",
            found=f"{len(gone)} sealed, from {gone[0]} to {gone[-1]}: retention has dropped their events",
            hint=f"ask from {gone[-1] + looked_back + DAY} on, or for days of UTC and no filter on quantity",
        )


def _kept(rows: pl.LazyFrame, plan: Plan) -> pl.LazyFrame:
    return rows.filter(plan.condition.expression) if plan.condition else rows


def _shaped(found: Numbers, meter: Meter, question: Question, grid: pl.DataFrame) -> pl.LazyFrame:
    """Return the answer's rows and columns, and the columns that say which rows lack a sum."""
    by = list(question.by)
    shown = [question.value, "events"]
    more = [name for name in MEASURES if name not in ("quantity", "events")] if question.measures else []
    rows = _joined(found.rows.with_columns(pl.lit(value=True).alias(IS_USED)), question, grid)
    # Only what is carried has no events, and no measures then.
    needed = has_no_sum(shown) | ((pl.col("events") != 0) & has_no_sum([*shown, *more]))
    rows = rows.with_columns((pl.col(IS_USED) & needed).alias(NO_SUM))
    if question.fill:
        rows = _filled(rows, meter, question)
    order, checked = ["bucket_start", *by], [NO_SUM]
    if question.top is not None:
        rows = rows.join(_ranked(found.totals, question, question.top), on=by, how="inner", nulls_equal=True)
        order, checked = ["bucket_start", RANK], [NO_SUM, NO_TOTAL]
    ranks = [RANK] if question.top is not None else []
    return rows.sort(order).select("bucket_start", "bucket_end", *by, *shown, *more, *ranks, *checked)


def _joined(rows: pl.LazyFrame, question: Question, grid: pl.DataFrame) -> pl.LazyFrame:
    """Return the rows with the bounds of their buckets; with `fill` a row for every bucket of every group."""
    if not question.fill:
        return rows.join(grid.lazy(), on=BUCKET, how="inner", nulls_equal=True)
    every = grid.lazy()
    if question.by:
        every = rows.select(question.by).unique().join(every, how="cross")
    return every.join(rows, on=[BUCKET, *question.by], how="left", nulls_equal=True)


def _filled(rows: pl.LazyFrame, meter: Meter, question: Question) -> pl.LazyFrame:
    """Return the rows with empty buckets filled: 0 of what adds up or is counted, and a gauge's last quantity."""
    by, asked = list(question.by), pl.col(question.value)
    is_level = meter.is_gauge and not question.distinct
    if not is_level or meter.carry_days is not None:
        filled = asked.fill_null(0)
    elif meter.series is not None:
        # The levels of silent series are in the quantity; what is missing after one has ended or moved on.
        before = _over(asked.is_not_null().cum_max(), by)
        filled = pl.when(before).then(asked.fill_null(0))
    else:
        filled = pl.coalesce(asked, _over(pl.col("quantity_last").forward_fill(), by))
    return rows.sort("bucket_start").with_columns(filled, pl.col("events").fill_null(0))


def _over(running: pl.Expr, by: list[str]) -> pl.Expr:
    """Return a running expression of each group, in order of its buckets."""
    return running.over(by, order_by="bucket_start") if by else running


def _ranked(totals: pl.LazyFrame, question: Question, top: int) -> pl.LazyFrame:
    """Return the groups with the greatest numbers over the whole range, and their rank; ties in order of the fields.

    A group whose sum is too large comes before all others.
    """
    by, value = list(question.by), question.value
    ordered = totals.sort(value, *by, descending=[True, *(False for _ in by)])
    ranked = ordered.head(top).with_row_index(RANK)
    return ranked.select(*by, RANK, pl.col(value).is_null().alias(NO_TOTAL))
