"""Which meter of a lake counts activity and which one states seats, by definition or as somebody named them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.errors import BadInputError
from schemas.meter import Meter

# Units of a level that users can be compared with.
SEAT_UNITS = frozenset({"seat", "license", "licence", "user", "member"})


def choose_activity(meters: Sequence[Meter], events: Mapping[str, int]) -> Meter | None:
    """Return the meter that counts activity: one with events, rather of `unique_count`, and the one with the most events.

    `events` are those of the page's dates by meter. None where a lake has only gauges.
    """
    amounts = [meter for meter in meters if not meter.is_gauge]

    def rank(meter: Meter) -> tuple[bool, bool, int]:
        count = events.get(meter.name, 0)
        return count > 0, meter.unique is not None, count

    # Of equals the first by name.
    return max(amounts, key=rank, default=None)


def choose_seats(meters: Sequence[Meter], events: Mapping[str, int]) -> Meter | None:
    """Return the gauge with `series` whose unit is a seat, a license or the like, and which has the most events."""
    levels = [meter for meter in meters if meter.series is not None and _is_seat(meter.unit)]
    return max(levels, key=lambda meter: events.get(meter.name, 0), default=None)


def check_activity(meter: Meter) -> Meter:
    """Return a meter that somebody named for activity. Raises BadInputError for a gauge, which has levels, not activity."""
    if meter.is_gauge:
        raise BadInputError(
            "a gauge counts no activity",
            where="--activity",
            expected="a meter of sum, count, rate or unique_count",
            found=f"{meter.name!r}, of {meter.aggregation}",
        )
    return meter


def check_seats(meter: Meter) -> Meter:
    """Return a meter that somebody named for seats. Raises BadInputError for one whose levels nobody may add up."""
    if meter.series is None:
        raise BadInputError(
            "the levels of this meter can't be added up",
            where="--seats",
            expected='a gauge whose definition has "series"',
            found=f"{meter.name!r}, of {meter.aggregation} without series",
        )
    return meter


def _is_seat(unit: str) -> bool:
    return unit.casefold().removesuffix("s") in SEAT_UNITS
