"""Charts as paths of SVG with a scale: amounts as bars, levels as steps, counts of windows as lines. Pure.

A chart is WIDTH by HEIGHT units, which a page stretches; its labels are text of the page beside it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobs.report_page.answers import Curve
from jobs.report_page.usage import Bar
from lake.calendar import DAY

WIDTH, HEIGHT = 1000, 100
GAP = 0.2
# What was used at all is to be seen.
LEAST_HEIGHT = 0.8
MAX_LABELS = 6
# More dates than these are too narrow to point at.
MAX_POINTED = 400
Points = Sequence[tuple[dt.date, float]]


class Tick(NamedTuple):
    """A number or a date of a scale, and where it is: percent from the bottom or from the left."""

    label: str
    percent: float


class Spot(NamedTuple):
    """A date of a chart to point at, and what it then says."""

    x: float
    text: str


class Chart(NamedTuple):
    """The paths of a chart by their class, the scales below and beside it, and what can be pointed at."""

    paths: list[tuple[str, str]]
    numbers: list[Tick]
    dates: list[Tick]
    spots: list[Spot]
    spot_width: float

    @property
    def widest(self) -> str:
        """The longest label of the numbers, which the scale makes room for."""
        return max((tick.label for tick in self.numbers), key=len)


def usage_chart(days: Sequence[Bar], since: dt.date, until: dt.date, *, is_level: bool) -> Chart:
    """Return the chart of a meter's days: levels as steps, amounts as bars."""
    points = [(dt.date.fromisoformat(bar.name or ""), float(bar.quantity)) for bar in days]
    scale = _Scale(since, until, max((value for _, value in points), default=0))
    path = ("level", scale.steps(points)) if is_level else ("bar", scale.bars(points))
    texts = {dt.date.fromisoformat(bar.name or ""): f"{bar.name}: {grouped(bar.quantity)}" for bar in days}
    return scale.chart([path], texts)


def curves_chart(curves: Sequence[Curve], since: dt.date, until: dt.date) -> Chart:
    """Return the chart of counts by day: those of one day as bars, those of longer windows as lines above them."""
    greatest = max((count for curve in curves for _, count in curve.points), default=0)
    scale = _Scale(since, until, greatest)
    paths = [
        (f"window-{place}", scale.line(curve.points) if curve.days > 1 else scale.bars(curve.points))
        for place, curve in enumerate(curves)
    ]
    texts: dict[dt.date, str] = {}
    for curve in curves:
        for date, count in curve.points:
            texts[date] = (
                f"{texts.get(date, date)}{' ·' if date in texts else ':'} {count:,} in {window(curve.days)}"
            )
    return scale.chart(paths, texts)


def window(days: int) -> str:
    """Return what people call so many days."""
    return "a day" if days == 1 else f"{days} days"


def grouped(quantity: str) -> str:
    """Return a number's text with commas between thousands; anything else as it is."""
    whole, point, rest = quantity.partition(".")
    digits = whole.removeprefix("-")
    return f"{whole.removesuffix(digits)}{int(digits):,}{point}{rest}" if digits.isdigit() else quantity


def short_number(number: float) -> str:
    """Return a round number for a scale: 0.5, 150, 20k, 1.5M, 3e+20."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size <= abs(number) < 1e15:
            # 10,000 is 10k, and 5,000 stays 5,000.
            return f"{number / (1e3 if letter == 'k' else size):.12g}{letter}"
    return f"{number:,.12g}" if number == 0 or 1e-4 <= abs(number) < 1e4 else f"{number:.3g}"


def number_ticks(greatest: float) -> list[float]:
    """Return round numbers from 0 to the first at or above the greatest: three to six of them, evenly spaced."""
    if greatest <= 0:
        return [0.0, 1.0]
    size = 10.0 ** math.floor(math.log10(greatest))
    step = next(part * size for part in (0.2, 0.25, 0.5, 1.0, 2.0, 5.0) if greatest / (part * size) <= 4)
    count = max(1, math.ceil(greatest / step - 1e-9))
    return [step * number for number in range(count + 1)]


class _Scale:
    """How dates and numbers become units of a chart."""

    def __init__(self, since: dt.date, until: dt.date, greatest: float) -> None:
        self.since, self.until = since, until
        self.ticks = number_ticks(greatest)
        self.width = WIDTH / (until - since).days

    def bars(self, points: Points) -> str:
        """Return a bar for each point that is not 0."""
        inset, width = self.width * GAP / 2, self.width * (1 - GAP)
        return "".join(
            f"M{_short(self._x(date) + inset)} {HEIGHT}V{_short(self._y(value, LEAST_HEIGHT))}h{_short(width)}V{HEIGHT}z"
            for date, value in points
            if value
        )

    def steps(self, points: Points) -> str:
        """Return a level for each run of dates that have points, and nothing between."""
        path, after = "", None
        for date, value in points:
            to = (
                f"V{_short(self._y(value))}"
                if date == after
                else f"M{_short(self._x(date))} {_short(self._y(value))}"
            )
            path += f"{to}h{_short(self.width)}"
            after = date + DAY
        return path

    def line(self, points: Points) -> str:
        """Return a line through the middles of the dates."""
        places = [
            f"{_short(self._x(date) + self.width / 2)} {_short(self._y(value))}" for date, value in points
        ]
        return f"M{'L'.join(places)}" if places else ""

    def chart(self, paths: list[tuple[str, str]], texts: dict[dt.date, str]) -> Chart:
        """Return the chart of these paths, with what its dates say where there are not too many of them."""
        few = (self.until - self.since).days <= MAX_POINTED
        spots = [Spot(round(self._x(date), 2), text) for date, text in texts.items()] if few else []
        numbers = [Tick(short_number(tick), 100 * tick / self.ticks[-1]) for tick in self.ticks]
        return Chart(paths, numbers, [*self._dates()], spots, round(self.width, 2))

    def _dates(self) -> Iterator[Tick]:
        """Label some first dates of months, or of years, or where there are few dates, some dates."""
        days = (self.until - self.since).days
        dates = [self.since + DAY * number for number in range(days)]
        months = [date for date in dates if date.day == 1]
        years = [date for date in months if date.month == 1]
        few = (dates, "{0.day} {0:%b}") if len(months) < 2 else (months, "{0:%b} {0.year}")
        places, form = (years, "{0.year}") if len(years) > 1 else few
        for date in places[:: -(-len(places) // MAX_LABELS)]:
            yield Tick(form.format(date), 100 * (date - self.since).days / days)

    def _x(self, date: dt.date) -> float:
        return (date - self.since).days * self.width

    def _y(self, value: float, least: float = 0.0) -> float:
        return HEIGHT - max(HEIGHT * value / self.ticks[-1], least)


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
