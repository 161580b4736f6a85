"""Charts: levels are steps, amounts are bars, and both have a scale of round numbers."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from jobs.report_page.answers import Curve
from jobs.report_page.charts import (
    HEIGHT,
    WIDTH,
    curves_chart,
    grouped,
    number_ticks,
    short_number,
    usage_chart,
)
from jobs.report_page.usage import Bar

FIRST = dt.date(2026, 6, 1)
DAY = dt.timedelta(days=1)


def bars(*quantities: str | None) -> list[Bar]:
    """A bar for each of the days from the first on; none where there is no quantity."""
    return [
        Bar(name=f"{FIRST + DAY * number}", quantity=text, events=1, length=1)
        for number, text in enumerate(quantities)
        if text is not None
    ]


def test_a_level_is_drawn_as_steps_with_a_gap_where_nothing_is_known() -> None:
    chart = usage_chart(bars("5", "10", None, "0"), FIRST, FIRST + 4 * DAY, is_level=True)
    # From the left, half as high as the scale; a step up; and after the gap another line, on the ground.
    assert chart.paths == [("level", f"M0 50h250V0h250M750 {HEIGHT}h250")]
    assert [(tick.label, tick.percent) for tick in chart.numbers][-1] == ("10", 100)


def test_an_amount_is_drawn_as_bars_of_which_none_is_too_low_to_be_seen() -> None:
    ((kind, path),) = usage_chart(bars("4", None, "0.001", "0"), FIRST, FIRST + 4 * DAY, is_level=False).paths
    assert kind == "bar"
    tops = [float(top) for top in re.findall(r"V([\d.]+)h", path)]
    assert tops == [0, HEIGHT - 0.8]


def test_windows_are_lines_above_the_bars_of_single_days() -> None:
    points = [(FIRST, 1), (FIRST + DAY, 2)]
    chart = curves_chart([Curve(days=days, points=points) for days in (1, 7)], FIRST, FIRST + 2 * DAY)
    assert [kind for kind, _ in chart.paths] == ["window-0", "window-1"]
    assert chart.paths[1][1] == f"M{WIDTH // 4} 50L{3 * WIDTH // 4} 0"
    assert chart.spots[0].text == "2026-06-01: 1 in a day · 1 in 7 days"


@pytest.mark.parametrize("greatest", [1e-9, 0.3, 1, 7, 12, 99.5, 120, 168, 1001, 4e21, 9.99e28])
def test_scales_are_few_round_numbers_up_to_the_greatest(greatest: float) -> None:
    ticks = number_ticks(greatest)
    assert ticks[0] == 0
    assert ticks[-2] < greatest <= ticks[-1] * (1 + 1e-9)
    assert 3 <= len(ticks) <= 6
    labels = [short_number(tick) for tick in ticks]
    assert len({*labels}) == len(labels)
    assert max(map(len, labels)) <= 8


def test_a_scale_without_numbers_is_one() -> None:
    assert number_ticks(0) == [0, 1]


def test_numbers_of_a_scale_are_short() -> None:
    numbers = (0, 0.5, 150, 5000, 20_000, 2.5e6, 1e9, 3e12, 3e20)
    assert [*map(short_number, numbers)] == ["0", "0.5", "150", "5,000", "20k", "2.5M", "1B", "3T", "3e+20"]


def test_numbers_of_tables_are_exact_and_grouped() -> None:
    texts = ["1234567.000000001", "-1234", "0.5", "not computable"]
    assert [*map(grouped, texts)] == ["1,234,567.000000001", "-1,234", "0.5", "not computable"]


@pytest.mark.parametrize(("days", "labels"), [(1, 1), (20, 5), (90, 3), (400, 5), (3660, 5)])
def test_dates_are_labelled_a_few_times(days: int, labels: int) -> None:
    chart = usage_chart([], FIRST, FIRST + days * DAY, is_level=False)
    assert len(chart.dates) == labels
    assert all(0 <= tick.percent < 100 for tick in chart.dates)
