"""The answers to the questions about active users, made of frames that `Lake.query` returns. Pure.

Counts are whole numbers; quantities and ratios are exact text.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import polars as pl

from jobs.exact_text import format_columns
from schemas.columns import QUANTITY

STATES = ("new", "returned", "active", "lost")


class Count(msgspec.Struct, kw_only=True, frozen=True):
    """Who was active in one bucket, of which `so_far` says that it is not over; `users` where they are counted."""

    start: dt.date
    so_far: bool
    customers: int
    users: int | None = None


class Curve(msgspec.Struct, kw_only=True, frozen=True):
    """How many there were in the `days` days that end with each date."""

    days: int
    points: list[tuple[dt.date, int]]


class Month(msgspec.Struct, kw_only=True, frozen=True):
    """One month: who was active, the seats, which part of them is used, and whose first, last or next month it was.

    `quantity` is the activity meter's own. Movements are of months that are over.
    """

    count: Count
    quantity: str | None = None
    seats: str | None = None
    used: str | None = None
    new: int | None = None
    returned: int | None = None
    lost: int | None = None


class SeatRow(msgspec.Struct, kw_only=True, frozen=True):
    """One customer's seats in the month and the one before, its users, and which part of the seats these are.

    Of all customers together the subject is null.
    """

    subject: str | None = None
    seats: str | None
    before: str | None
    change: str | None
    users: str | None
    used: str | None


class ValueRow(msgspec.Struct, kw_only=True, frozen=True):
    """One value of a dimension in the month: customers, quantity, its change and share, seats and the part that is used."""

    value: str | None
    customers: int
    quantity: str
    change: str | None
    share: str | None
    seats: str | None
    used: str | None


class Change(msgspec.Struct, kw_only=True, frozen=True):
    """One customer's quantity in the month and the one before."""

    subject: str
    state: str
    before: str
    quantity: str
    change: str


class Quiet(msgspec.Struct, kw_only=True, frozen=True):
    """A customer that was active and is no more: the date of its last event, how long ago, and what it used before."""

    subject: str
    last: dt.date
    days: int
    quantity: str
    seats: str | None


class Ranked(msgspec.Struct, kw_only=True, frozen=True):
    """The first rows of a table, and how many it has in all."""

    rows: list[SeatRow] | list[Change] | list[Quiet] | list[ValueRow]
    total: int


class Movements(msgspec.Struct, kw_only=True, frozen=True):
    """How many customers are in each state, the names of the largest of each, and the largest changes."""

    counts: dict[str, int]
    names: dict[str, list[str]]
    changes: Ranked


def counts(
    customers: pl.DataFrame, users: pl.DataFrame | None, until: dt.date, distinct: str = "distinct"
) -> list[Count]:
    """Return one count for each bucket of `customers`, an answer with `fill`; `users` are quantities of the same buckets."""
    joined = customers.select("bucket_start", "bucket_end", customers=distinct)
    if users is None:
        joined = joined.with_columns(users=pl.lit(None, pl.Int64))
    else:
        counted = users.select("bucket_start", users=pl.col("quantity").cast(pl.Int64))
        joined = joined.join(counted, on="bucket_start", how="left", maintain_order="left")
    return [
        Count(start=start.date(), so_far=end.date() > until, customers=number, users=users_number)
        for start, end, number, users_number in joined.iter_rows()
    ]


def curve(days: int, rows: pl.DataFrame, value: str) -> Curve:
    """Return a curve of an answer by day."""
    points = rows.select(pl.col("bucket_start").dt.date(), pl.col(value).cast(pl.Int64))
    return Curve(days=days, points=list(points.iter_rows()))


def months(by_month: list[Count], used: pl.DataFrame, states: pl.DataFrame | None) -> list[Month]:
    """Return the months of some counts, with quantity and seats of `used`, and movements of `states` by subject.

    `used` is an answer with `over` where there are seats, and `states` one with `compare`.
    """
    numbers = {row["month"]: row for row in _texts(used.with_columns(month=pl.col("bucket_start").dt.date()))}
    moved: dict[tuple[dt.date, str], int] = {}
    if states is not None:
        grouped = states.group_by(pl.col("bucket_start").dt.date(), "usage_state").len()
        moved = {(start, state): count for start, state, count in grouped.iter_rows()}
    result = []
    for count in by_month:
        row = numbers.get(count.start.isoformat(), {})
        is_over = states is not None and not count.so_far
        result.append(
            Month(
                count=count,
                quantity=row.get("quantity"),
                seats=row.get("over_quantity"),
                used=row.get("ratio"),
                **{
                    state: moved.get((count.start, state), 0)
                    for state in ("new", "returned", "lost")
                    if is_over
                },
            )
        )
    return result


def seat_total(seats: pl.DataFrame, used: pl.DataFrame | None) -> SeatRow | None:
    """Return the seats of all customers, of the answers of `seat_rows` that are not grouped; None where there are none."""
    if seats.is_empty():
        return None
    row = _with_change(seats).with_columns(users=_null(), used=_null())
    if used is not None and used.height:
        row = row.with_columns(users=used["quantity"], used=used["ratio"])
    return SeatRow(**_texts(row)[0])


def seat_rows(seats: pl.DataFrame, used: pl.DataFrame | None, top: int) -> Ranked:
    """Return the customers with seats or users, most seats first.

    `seats` is the seats meter's answer by subject, maybe with `compare`; `used` that of the meter that counts users,
    with `over`.
    """
    rows = _with_change(seats, "subject")
    if used is not None:
        counted = used.select("subject", users="quantity", used="ratio")
        rows = rows.join(counted, on="subject", how="full", coalesce=True)
    else:
        rows = rows.with_columns(users=_null(), used=_null())
    some = (pl.col("seats").fill_null(0) > 0) | (pl.col("users").fill_null(0) > 0)
    ordered = rows.filter(some).sort(
        "seats", "users", "subject", descending=[True, True, False], nulls_last=True
    )
    texts = [SeatRow(**row) for row in _texts(ordered.head(top))]
    return Ranked(rows=texts, total=ordered.height)


def value_rows(field: str, quantities: pl.DataFrame, customers: pl.DataFrame, top: int) -> Ranked:
    """Return the values of a field, the greatest quantity first.

    `quantities` is an answer by that field, maybe with `share`, `compare` and `over`; `customers` one with
    `distinct="subject"`.
    """
    beside = {
        "change": "usage_change",
        "share": "share",
        "seats": "over_quantity",
        "used": "ratio",
    }
    # A field may have the name of one of them.
    named = quantities.rename({field: "#value"})
    rows = named.select(
        "#value", "quantity", **{name: _or_null(named, each) for name, each in beside.items()}
    )
    counted = customers.select(pl.col(field).alias("#value"), customers="distinct")
    joined = rows.join(counted, on="#value", how="left", nulls_equal=True)
    ordered = joined.sort("quantity", "#value", descending=[True, False], nulls_last=True)
    filled = ordered.head(top).with_columns(pl.col("quantity", "customers").fill_null(0))
    return Ranked(
        rows=[ValueRow(value=row.pop("#value"), **row) for row in _texts(filled)], total=ordered.height
    )


def movements(states: pl.DataFrame, top: int) -> Movements:
    """Return how customers moved, of an answer of one bucket by subject with `compare`."""
    rows = states.filter(pl.col("usage_state").is_not_null())
    size = pl.max_horizontal("quantity", "usage_before")
    ordered = rows.sort(size, "subject", descending=[True, False])
    names = {
        state: ordered.filter(pl.col("usage_state") == state).head(top)["subject"].to_list()
        for state in ("new", "returned", "lost")
    }
    numbers = dict(rows.group_by("usage_state").len().iter_rows())
    changed = rows.filter(pl.col("usage_change") != 0)
    ranked = changed.sort(pl.col("usage_change").abs(), "subject", descending=[True, False])
    columns = {"state": "usage_state", "before": "usage_before", "change": "usage_change"}
    shown = ranked.head(top).select("subject", "quantity", **columns)
    return Movements(
        counts={state: numbers.get(state, 0) for state in STATES},
        names=names,
        changes=Ranked(rows=[Change(**row) for row in _texts(shown)], total=changed.height),
    )


def quiet(usage: pl.DataFrame, seats: pl.DataFrame | None, until: dt.date, days: int, top: int) -> Ranked:
    """Return the customers without an event in the `days` days before `until`, the last that went quiet first.

    `usage` is an answer by subject over all dates in question, with its measures; `seats` one of the seats meter.
    """
    last = pl.col("last_at").dt.date()
    rows = usage.select(
        "subject", "quantity", last=last, days=(until - pl.lit(dt.timedelta(days=1)) - last).dt.total_days()
    )
    silent = rows.filter(pl.col("last") < until - dt.timedelta(days=days))
    if seats is None:
        silent = silent.with_columns(seats=_null())
    else:
        silent = silent.join(seats.select("subject", seats="quantity"), on="subject", how="left")
    ordered = silent.sort("last", "quantity", "subject", descending=[True, True, False])
    shown = ordered.head(top)
    texts = _texts(shown.drop("last"))
    silent_rows = [Quiet(last=date, **row) for date, row in zip(shown["last"], texts, strict=True)]
    return Ranked(rows=silent_rows, total=ordered.height)


def _with_change(seats: pl.DataFrame, *by: str) -> pl.DataFrame:
    before = {"before": _or_null(seats, "usage_before"), "change": _or_null(seats, "usage_change")}
    return seats.select(*by, seats="quantity", **before)


def _null() -> pl.Expr:
    return pl.lit(None, QUANTITY)


def _or_null(rows: pl.DataFrame, column: str) -> pl.Expr:
    return pl.col(column) if column in rows.columns else _null()


def _texts(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with everything but whole numbers as exact text."""
    return format_columns(rows.lazy()).collect().to_dicts()
