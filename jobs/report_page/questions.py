"""All answers about active users of one lake, and what could not be answered."""

from __future__ import annotations

import datetime as dt
from functools import partial

import msgspec

from jobs.report_page.activity import ActivityQuestions
from jobs.report_page.answers import Count, Curve, Month, Movements, Ranked, SeatRow
from jobs.report_page.dates import QUIET_DAYS
from jobs.report_page.scope import Scope
from jobs.report_page.seats import SeatQuestions
from schemas.meter import Meter


class Dimension(msgspec.Struct, kw_only=True, frozen=True):
    """One dimension of the activity meter, by its values."""

    name: str
    values: Ranked


class Activity(msgspec.Struct, kw_only=True):
    """Who was active by one meter, `users` being the dimension whose values it counts. None: it can't be computed."""

    meter: str
    unit: str
    aggregation: str
    users: str | None
    customer_curves: list[Curve] | None
    user_curves: list[Curve] | None
    weeks: list[Count] | None
    weeks_left_out: int
    months: list[Month] | None
    months_left_out: int
    dimensions: list[Dimension]
    dimensions_left_out: list[str]
    # None too for a month that is not over.
    movements: Movements | None
    quiet_since: dt.date
    quiet_days: int = QUIET_DAYS
    quiet: Ranked | None


class Seats(msgspec.Struct, kw_only=True):
    """The seats of one meter. None: it can't be computed, or of the total, there are none."""

    meter: str
    unit: str
    total: SeatRow | None
    rows: Ranked | None


class Answers(msgspec.Struct, kw_only=True):
    """What a page answers first, about the month since <= date < until; None where there is no meter for it."""

    month: dt.date
    month_until: dt.date
    is_over: bool
    activity: Activity | None
    seats: Seats | None


def ask(scope: Scope, activity: Meter | None, seats: Meter | None) -> Answers:
    """Return all answers. What can't be answered is among the status' problems."""
    dates, users = scope.dates, activity if activity and activity.unique else None
    return Answers(
        month=dates.month,
        month_until=dates.month_until,
        is_over=dates.is_over,
        activity=_activity(scope, ActivityQuestions(scope, activity, seats)) if activity else None,
        seats=_seats(scope, SeatQuestions(scope, seats, users)) if seats else None,
    )


def _activity(scope: Scope, asked: ActivityQuestions) -> Activity:
    meter, dates = asked.meter, scope.dates
    answer = partial(scope.attempt, meter.name)
    names = asked.dimension_names
    by_name = {name: answer(partial(asked.dimension, name)) for name in names}
    return Activity(
        meter=meter.name,
        unit=meter.unit,
        aggregation=meter.aggregation,
        users=meter.unique,
        customer_curves=answer(asked.customer_curves),
        user_curves=answer(asked.user_curves),
        weeks=answer(asked.weeks),
        weeks_left_out=dates.weeks_left_out,
        months=answer(asked.months),
        months_left_out=dates.months_left_out,
        dimensions=[Dimension(name=name, values=values) for name, values in by_name.items() if values],
        dimensions_left_out=[name for name in meter.dimension_names if name not in (*names, meter.unique)],
        movements=answer(asked.movements),
        quiet_since=dates.quiet_since,
        quiet=answer(asked.quiet),
    )


def _seats(scope: Scope, asked: SeatQuestions) -> Seats:
    meter = asked.meter
    return Seats(
        meter=meter.name,
        unit=meter.unit,
        total=scope.attempt(meter.name, asked.total),
        rows=scope.attempt(meter.name, asked.rows),
    )
