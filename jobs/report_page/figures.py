"""The figures of a lake's page: what it answers first, usage of each meter, exports, and the lake's status.

Reads aggregates, states, manifests and reports, and no event data. Quantities are exact text.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from jobs.report_page.dates import Dates, page_dates
from jobs.report_page.exports import ExportFigures, newest_exports
from jobs.report_page.meter_roles import check_activity, check_seats, choose_activity, choose_seats
from jobs.report_page.questions import Answers, ask
from jobs.report_page.scope import Scope
from jobs.report_page.usage import MeterFigures, fill_details, fill_total
from jobs.status import Status, status_with_days
from lake import Lake
from lake.calendar import DAY
from schemas.meter import Meter

TOP = 10
RUNS = 12
# Meters that are shown with charts and rankings, and those in the table of the others.
MAX_DETAILED, MAX_METERS = 12, 300


class Choice(NamedTuple):
    """What somebody asked to see: the meters of activity and seats, those in detail, the month, rows of a table."""

    activity: str | None = None
    seats: str | None = None
    detailed: Sequence[str] = ()
    month: dt.date | None = None
    top: int = TOP


class Page(msgspec.Struct, kw_only=True):
    """All that the page shows, of since <= date < until. `other_meters` have no charts and rankings.

    `meters_left_out` is how many are in neither, and `exports_left_out` how many older exports there are.
    """

    lake: str
    since: dt.date
    until: dt.date
    answers: Answers
    meters: list[MeterFigures]
    other_meters: list[MeterFigures]
    meters_left_out: int
    exports: list[ExportFigures]
    exports_left_out: int
    status: Status


def gather(lake: Lake, until: dt.date, days: int, choice: Choice | None = None) -> Page:
    """Return the figures of the `days` dates before `until`. What can't be read is among the status' problems.

    The calendar's first year is left out, as by `query`. Raises BadInputError where something is chosen that is not in
    the lake, or that makes no sense.
    """
    choice = choice or Choice()
    named = _named(lake, choice)
    status, daily = status_with_days(lake, RUNS, until - DAY)
    # What can't be read is among the problems already.
    meters = lake.meters(lambda _: None)
    events = _events(daily, page_dates(until, days, until, ()))
    activity = named.activity or choose_activity(meters, events)
    seats = named.seats or choose_seats([meter for meter in meters if meter != activity], events)
    roles = [each for each in (activity, seats) if each]
    used = [date for each in roles for date, count in daily.get(each.name, {}).items() if count]
    scope = Scope(lake, page_dates(until, days, choice.month, used), choice.top, status)
    answers = ask(scope, activity, seats)
    figures = _ordered(status, events, choice.detailed or [each.name for each in roles])
    count = len(choice.detailed) or MAX_DETAILED
    shown, others = figures[:count], figures[count : count + MAX_METERS]
    _fill(scope, meters, shown, others)
    exports = newest_exports(lake.storage, status)
    return Page(
        lake=lake.url,
        since=scope.dates.since,
        until=until,
        answers=answers,
        meters=shown,
        other_meters=others,
        meters_left_out=len(figures) - len(shown) - len(others),
        exports=exports.shown,
        exports_left_out=exports.left_out,
        status=status,
    )


class _Named(NamedTuple):
    """The meters that somebody named for activity and seats."""

    activity: Meter | None
    seats: Meter | None


def _named(lake: Lake, choice: Choice) -> _Named:
    """Return the named meters. Raises BadInputError for a name that no meter has, and for a meter of another kind."""
    for name in choice.detailed:
        lake.meter(name)
    return _Named(
        None if choice.activity is None else check_activity(lake.meter(choice.activity)),
        None if choice.seats is None else check_seats(lake.meter(choice.seats)),
    )


def _events(daily: Mapping[str, Mapping[dt.date, int]], dates: Dates) -> dict[str, int]:
    """Return the events of the page's dates by meter."""
    return {
        name: sum(count for date, count in counts.items() if dates.since <= date < dates.until)
        for name, counts in daily.items()
    }


def _fill(
    scope: Scope, meters: Sequence[Meter], detailed: Sequence[MeterFigures], others: Sequence[MeterFigures]
) -> None:
    """Fill in the figures of the meters whose definition can be read."""
    by_name = {meter.name: meter for meter in meters}
    for figures in detailed:
        if meter := by_name.get(figures.status.meter):
            fill_details(figures, scope, meter)
    for figures in others:
        if meter := by_name.get(figures.status.meter):
            fill_total(figures, scope, meter)


def _ordered(status: Status, events: Mapping[str, int], first: Sequence[str]) -> list[MeterFigures]:
    """Return the figures to be filled, those of `first` before all others, then those with the most events."""
    places = {name: place for place, name in reversed([*enumerate(first)])}
    ordered = sorted(
        status.meters,
        key=lambda each: (places.get(each.meter, len(first)), -events.get(each.meter, 0), each.meter),
    )
    return [MeterFigures(status=each) for each in ordered]
