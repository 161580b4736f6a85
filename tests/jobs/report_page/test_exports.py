"""The exports of a page: the newest of each meter and form, so many in all, and how many others there are."""

from __future__ import annotations

from jobs.report_page.exports import MAX_EXPORTS, PERIODS, _newest, _places


def test_of_each_period_the_newest_revision_is_shown_and_whether_it_is_closed() -> None:
    folder = "exports/a%2Fb/period=2026-06"
    listed = [f"{folder}/revision={number:04}/manifest.json" for number in (1, 3, 2)]
    listed += [
        f"{folder}/by=plan/revision=0001/manifest.json",
        f"{folder}/closed.json",
        f"{folder}/latest.json",
    ]
    assert [tuple(place) for place in sorted(_places(listed))] == [
        ("a/b", "", "2026-06", 3, True),
        ("a/b", "by=plan/", "2026-06", 1, False),
    ]


def test_the_newest_periods_are_shown_of_few_meters_and_of_many() -> None:
    periods = [f"2026-{month:02}" for month in range(1, 13)]

    def listed(meters: int) -> list[str]:
        folders = (f"exports/m{number}/period={period}" for number in range(meters) for period in periods)
        return [f"{folder}/revision=0001/manifest.json" for folder in folders]

    assert [place.period for place in _newest(_places(listed(1)))] == periods[: -PERIODS - 1 : -1]
    many = _newest(_places(listed(50)))
    assert len(many) == MAX_EXPORTS
    # All of the newest period, and the rest of the one before.
    assert [place.period for place in many] == ["2026-12"] * 50 + ["2026-11"] * (MAX_EXPORTS - 50)
