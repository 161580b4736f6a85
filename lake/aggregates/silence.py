"""The levels of series in buckets in which they have no event. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from schemas.columns import MEASURES

# The key of a bucket, in rows on their way to an answer; no dimension's name has such a sign.
BUCKET = "#bucket"
# Whether a row is before the first bucket, so that it counts only where its level is carried into a bucket.
BEFORE = "#before"
_INDEX, _NEXT, _LAST, _DATE, _STARTS = "#index", "#next", "#last", "#date", "#starts"


class Silence(NamedTuple):
    """The buckets into which the last level of a series without events is carried.

    `starts` are the buckets in order: their key `BUCKET`, and the UTC date on which each begins. A level is carried into
    those that begin at most `days` after its event's date; without `days` into all.
    """

    starts: pl.DataFrame
    days: int | None


def silence(grid: pl.DataFrame, since: dt.datetime, days: int | None) -> Silence:
    """Return the silence of buckets of `lake.query.time_buckets`; the first begins with `since`."""
    begins = pl.max_horizontal("bucket_start", pl.lit(since)).dt.date().alias(_STARTS)
    return Silence(grid.select(BUCKET, begins), days)


def of_one_bucket(since: dt.date, days: int) -> Silence:
    """Return the silence of a single bucket without a key, which begins with a date."""
    starts = pl.DataFrame({BUCKET: [None], _STARTS: [since]}, schema={BUCKET: pl.Date, _STARTS: pl.Date})
    return Silence(starts, days)


def mark_before(rows: pl.LazyFrame, is_before: pl.Expr) -> pl.LazyFrame:
    """Return rows that have a `BUCKET` with `BEFORE`; those before the first bucket get null as `BUCKET`."""
    marked = rows.with_columns(is_before.alias(BEFORE))
    return marked.with_columns(pl.when(~pl.col(BEFORE)).then(BUCKET).alias(BUCKET))


def with_silent(series: pl.LazyFrame, named: Sequence[str], silent: Silence) -> pl.LazyFrame:
    """Return rows of series without those before the first bucket, and a row for each silent bucket.

    `series` are rows of `series_rows` by `BUCKET` and `BEFORE`, `named` the columns that name a series. The row of a
    silent bucket has the last level and its attributes, 0 `events`, and null in the other measures; a level of 0 has no
    row.
    """
    placed = series.join(_indexed(silent).drop(_STARTS), on=BUCKET, how="left", nulls_equal=True)
    placed = placed.with_columns(
        pl.when(BEFORE).then(pl.lit(-1, pl.Int64)).otherwise(_INDEX).alias(_INDEX)
    ).with_columns(
        pl.col(_INDEX)
        .shift(-1)
        .over(list(named), order_by=_INDEX)
        .fill_null(silent.starts.height)
        .alias(_NEXT)
    )
    columns = series.collect_schema().names()
    own = placed.filter(~pl.col(BEFORE)).select(columns)
    return pl.concat([own, _spread(_limited(placed, silent), silent).select(columns)])


def _indexed(silent: Silence) -> pl.LazyFrame:
    return silent.starts.lazy().with_row_index(_INDEX).with_columns(pl.col(_INDEX).cast(pl.Int64))


def _limited(placed: pl.LazyFrame, silent: Silence) -> pl.LazyFrame:
    """Return the rows with `_NEXT` limited to the buckets that `silent.days` allow."""
    if silent.days is None:
        return placed
    reach = pl.col(_STARTS) - pl.duration(days=silent.days)
    last = _indexed(silent).select(reach.alias(_STARTS), pl.col(_INDEX).alias(_LAST))
    dated = placed.with_columns(pl.col("last_at").dt.date().alias(_DATE)).sort(_DATE)
    limited = dated.join_asof(last, left_on=_DATE, right_on=_STARTS, strategy="backward")
    # -1 where no bucket is in reach.
    return limited.with_columns(pl.min_horizontal(_NEXT, pl.col(_LAST).fill_null(-1) + 1).alias(_NEXT))


def _spread(rows: pl.LazyFrame, silent: Silence) -> pl.LazyFrame:
    """Return a row for each bucket between the bucket of a row and its `_NEXT`."""
    first = pl.col(_INDEX) + 1
    carried = rows.filter(first < pl.col(_NEXT), pl.col("quantity_last") != 0)
    spread = carried.with_columns(pl.int_ranges(first, _NEXT).alias(_INDEX)).explode(_INDEX)
    level = {"quantity": pl.col("quantity_last"), "events": pl.lit(0, pl.Int64)}
    schema = rows.collect_schema()
    nulls = {name: pl.lit(None, schema[name]) for name in MEASURES if name not in level}
    keyed = spread.drop(BUCKET).join(_indexed(silent).drop(_STARTS), on=_INDEX)
    return keyed.with_columns(pl.lit(value=False).alias(BEFORE), **level).with_columns(**nulls)
