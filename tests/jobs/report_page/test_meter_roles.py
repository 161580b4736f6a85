"""Which meter counts activity, and which one states seats, by their definitions alone."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.report_page.meter_roles import choose_activity, choose_seats
from schemas.meter import Dimension, Meter

WHO = Dimension(name="who", type="string")


def meter(name: str, aggregation: Any = "sum", **more: Any) -> Meter:
    return Meter(name=name, unit=more.pop("unit", "x"), aggregation=aggregation, **more)


def unique(name: str) -> Meter:
    return meter(name, "unique_count", declared_unique="who", dimensions=(WHO,))


def seats(name: str, unit: str = "seat", aggregation: Any = "last") -> Meter:
    return meter(name, aggregation, unit=unit, declared_series=())


def test_activity_is_a_meter_that_counts_users_and_has_events() -> None:
    meters = [meter("calls", "count"), unique("people"), unique("visitors"), seats("seats")]
    chosen = choose_activity(meters, {"calls": 900, "people": 5, "visitors": 9, "seats": 99})
    assert chosen == meters[2]
    # One without events answers nothing.
    assert choose_activity(meters, {"calls": 1}) == meters[0]
    assert choose_activity(meters, {}) == meters[1]


def test_without_users_it_is_the_meter_with_the_most_events_and_never_a_gauge() -> None:
    meters = [meter("a"), meter("b", "count"), meter("level", "max")]
    assert choose_activity(meters, {"a": 1, "b": 2, "level": 3}) == meters[1]
    assert choose_activity(meters[2:], {"level": 3}) is None
    assert choose_activity([], {}) is None


@pytest.mark.parametrize("unit", ["seat", "Seats", "license", "licences", "user", "Members"])
def test_seats_are_a_gauge_with_series_of_such_a_unit(unit: str) -> None:
    meters = [
        seats("disk", "GB"),
        meter("mixed", "last", unit=unit),
        meter("sum", unit=unit),
        seats("s", unit),
    ]
    assert choose_seats(meters, {"disk": 9, "mixed": 9}) == meters[-1]
    assert choose_seats(meters[:-1], {}) is None


def test_of_several_seats_those_with_the_most_events_count() -> None:
    meters = [seats("old"), seats("new", aggregation="avg")]
    assert choose_seats(meters, {"old": 1, "new": 2}) == meters[1]
    assert choose_seats(meters, {}) == meters[0]
