"""What a question shows beside its answer, in small lakes where every number can be seen: share, compare, over."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lake import Lake
from lake.query.compound import explain_parts, run_query
from lake.query.question import Question
from lake.query.time_buckets import instant
from schemas.errors import BadInputError, RefusedError
from support import DAY, a_lake, aggregated, define, event, put, retained

ONE = dt.timedelta(days=1)
# Four days after the first one, of which one has nothing.
RANGE = (DAY + ONE, DAY + 5 * ONE)


def used(lake: Lake, name: str, *rows: tuple[int, str, str], **more: Any) -> None:
    """Land events (day, subject, quantity) of a meter, and aggregate."""
    meter = lake.meter(name)
    for number, (day, subject, quantity) in enumerate(rows):
        date = DAY + day * ONE
        one = event(f"{number}", subject, quantity, day=date, **more)
        put(lake, meter, f"{number}.parquet", one, day=date)
    aggregated(lake)


def asked(lake: Lake, name: str = "active_users", **more: Any) -> list[tuple[Any, ...]]:
    """Rows with the number of their day in place of the bucket."""
    since, until = more.pop("range", RANGE)
    found = lake.query(name, since, until, **more).collect()
    days = [(start.date() - DAY).days for start in found["bucket_start"]]
    return [
        (day, *row) for day, row in zip(days, found.drop("bucket_start", "bucket_end").rows(), strict=True)
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Days 0 to 4: a stays, b leaves and returns, c was there at first only, d comes."""
    lake, meter = a_lake(tmp_path)
    rows = [
        (0, "c", "1"),
        (0, "a", "1"),
        (1, "a", "2"),
        (1, "b", "6"),
        (2, "a", "3"),
        (3, "d", "4"),
        (4, "b", "5"),
    ]
    used(lake, meter.name, *rows)
    return lake


def test_each_group_has_its_usage_before_and_a_state(lake: Lake) -> None:
    assert asked(lake, by=["subject"], compare="previous") == [
        (1, "a", 2, 1, 1, 1, "active"),
        (1, "b", 6, 1, 0, 6, "new"),
        (1, "c", 0, 0, 1, -1, "lost"),
        (2, "a", 3, 1, 2, 1, "active"),
        (2, "b", 0, 0, 6, -6, "lost"),
        (3, "a", 0, 0, 3, -3, "lost"),
        (3, "d", 4, 1, 0, 4, "new"),
        (4, "b", 5, 1, 0, 5, "returned"),
        (4, "d", 0, 0, 4, -4, "lost"),
    ]
    assert asked(lake, compare="previous") == [
        *((1, 8, 2, 2, 6, "active"), (2, 3, 1, 8, -5, "active"), (3, 4, 1, 3, 1, "active")),
        (4, 5, 1, 4, 1, "active"),
    ]
    # Under a filter, only what it keeps was ever there.
    assert asked(lake, compare="previous", where="subject = 'b'") == [
        *((1, 6, 1, 0, 6, "new"), (2, 0, 0, 6, -6, "lost"), (4, 5, 1, 0, 5, "returned"))
    ]


def test_top_compares_the_greatest_groups_and_fill_has_rows_without_a_state(lake: Lake) -> None:
    assert asked(lake, by=["subject"], compare="previous", top=1) == [
        *((1, "b", 6, 1, 0, 6, "new"), (2, "b", 0, 0, 6, -6, "lost"), (4, "b", 5, 1, 0, 5, "returned"))
    ]
    ranked = asked(lake, by=["subject"], compare="previous", top=2)
    assert [row[:2] for row in ranked] == [(1, "b"), (1, "a"), (2, "b"), (2, "a"), (3, "a"), (4, "b")]
    filled = asked(lake, by=["subject"], compare="previous", fill=True, where="subject in ('b', 'c')")
    assert filled == [
        *((1, "b", 6, 1, 0, 6, "new"), (1, "c", 0, 0, 1, -1, "lost"), (2, "b", 0, 0, 6, -6, "lost")),
        *((3, "b", 0, 0, 0, 0, None), (4, "b", 5, 1, 0, 5, "returned")),
    ]


def test_a_level_of_0_is_not_there(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="last")
    used(lake, meter.name, (0, "a", "0"), (1, "a", "5"), (2, "a", "0"), (3, "a", "0"), (4, "a", "1"))
    assert asked(lake, by=["subject"], compare="previous") == [
        (1, "a", 5, 1, 0, 5, "new"),
        (2, "a", 0, 1, 5, -5, "lost"),
        (3, "a", 0, 1, 0, 0, None),
        (4, "a", 1, 1, 0, 1, "returned"),
    ]


def test_windows_of_days_are_compared_with_those_that_end_a_day_before(lake: Lake) -> None:
    found = asked(
        lake, by=["subject"], distinct="subject", rolling=2, compare="previous", where="subject < 'c'"
    )
    assert [(day, subject, now, before, state) for day, subject, now, _, before, _, state in found] == [
        *(
            (1, "a", 1, 1, "active"),
            (1, "b", 1, 0, "new"),
            (2, "a", 1, 1, "active"),
            (2, "b", 1, 1, "active"),
        ),
        *(
            (3, "a", 1, 1, "active"),
            (3, "b", 0, 1, "lost"),
            (4, "a", 0, 1, "lost"),
            (4, "b", 1, 0, "returned"),
        ),
    ]


def test_a_level_that_is_carried_is_there(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="last", series=[], carry_days=2)
    used(lake, meter.name, (0, "a", "3"), (1, "b", "1"), (4, "b", "5"), (4, "a", "0"))
    assert asked(lake, by=["subject"], compare="previous", share=True) == [
        *((1, "a", 3, 0, Decimal("0.75"), 3, 0, "active"), (1, "b", 1, 1, Decimal("0.25"), 0, 1, "new")),
        *((2, "a", 3, 0, Decimal("0.75"), 3, 0, "active"), (2, "b", 1, 0, Decimal("0.25"), 1, 0, "active")),
        *((3, "a", 0, 0, 0, 3, -3, "lost"), (3, "b", 1, 0, 1, 1, 0, "active")),
        *((4, "a", 0, 1, 0, 0, 0, None), (4, "b", 5, 1, 1, 1, 4, "active")),
    ]


def test_active_users_are_compared_and_stand_over_seats(tmp_path: Path) -> None:
    dimensions = [{"name": "user", "type": "string"}]
    lake, meter = a_lake(tmp_path, aggregation="unique_count", unique="user", dimensions=dimensions)
    seats = define(lake, name="seats", aggregation="last", series=[])
    for user, days in (("u", (1, 2)), ("v", (2, 3))):
        for day in days:
            date = DAY + day * ONE
            put(lake, meter, f"{user}.parquet", event(None, "a", user=user, day=date), day=date)
    used(lake, seats.name, (1, "a", "4"), (2, "a", "4"), (3, "a", "3"))
    third = Decimal("0.333333333")
    assert asked(
        lake, by=["subject"], over="seats", compare="previous", range=(DAY + ONE, DAY + 4 * ONE)
    ) == [
        *((1, "a", 1, 1, 0, 1, "new", 4, Decimal("0.25")), (2, "a", 2, 2, 1, 1, "active", 4, Decimal("0.5"))),
        (3, "a", 1, 1, 2, -1, "active", 3, third),
    ]
    two = {"over": "seats", "bucket": "none", "distinct": "user", "range": (DAY + 3 * ONE, DAY + 4 * ONE)}
    assert asked(lake, **two) == [(3, 1, 1, 3, third)]
    # A user is in several groups, but once in the total.
    put(lake, meter, "w.parquet", event(None, "b", user="v", day=DAY + 3 * ONE), day=DAY + 3 * ONE)
    aggregated(lake)
    both = asked(lake, by=["subject"], share=True, range=(DAY + 3 * ONE, DAY + 4 * ONE))
    assert both == [(3, "a", 1, 1, 1), (3, "b", 1, 1, 1)]


def test_hours_and_days_of_a_zone_know_sealed_dates_from_their_aggregates(lake: Lake) -> None:
    retained(lake, DAY + 32 * ONE)
    after = (DAY + 3 * ONE, DAY + 5 * ONE)
    noon = {"bucket": "hour", "range": (instant(DAY + 3 * ONE), instant(DAY + 5 * ONE))}
    expected = [(3, "d", "new"), (3, "d", "lost"), (4, "b", "returned"), (4, "b", "lost")]
    found = asked(lake, by=["subject"], compare="previous", **noon)
    assert [(day, subject, state) for day, subject, *_, state in found] == expected
    assert asked(lake, by=["subject"], compare="previous", range=after)[-2:] == [
        *((4, "b", 5, 1, 0, 5, "returned"), (4, "d", 0, 0, 4, -4, "lost"))
    ]
    found = asked(lake, by=["subject"], compare="previous", zone="America/New_York", range=after)
    assert [(day, subject, state) for day, subject, *_, state in found] == [
        *((3, "a", "lost"), (3, "d", "new"), (4, "b", "returned"), (4, "d", "lost"))
    ]
    # The hour before is one of a sealed date.
    with pytest.raises(RefusedError, match="sealed") as refused:
        asked(lake, compare="previous", bucket="hour", range=(DAY + 2 * ONE, DAY + 3 * ONE))
    assert refused.value.hint == "--compare reads the hour before the range too: begin later"
    # The quantity of single events is gone with them.
    with pytest.raises(RefusedError, match="sealed") as refused:
        asked(lake, compare="previous", where="quantity > 1", range=after)
    assert "leave `quantity` out" in refused.value.hint


def test_what_is_read_beside_is_explained(lake: Lake) -> None:
    meter = lake.meter("active_users")
    question = Question(
        since=instant(RANGE[0]),
        until=instant(RANGE[1]),
        by=("plan",),
        share=True,
        compare="previous",
        over=meter.name,
    )
    found = explain_parts(lake.storage, run_query(lake.storage, meter, question).parts)
    assert list(found) == ["asked", "total", "before", "over"]
    assert [(each.table, each.partitions) for each in found.values()] == [("usage", n) for n in (4, 4, 1, 4)]
    earlier = Question(since=instant(RANGE[0]) + ONE, until=instant(RANGE[1]), compare="previous")
    found = explain_parts(lake.storage, run_query(lake.storage, meter, earlier).parts)
    assert {name: each.partitions for name, each in found.items()} == {"asked": 3, "before": 1, "history": 1}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bucket": "none"}, "there is no bucket before this one"),
        (
            {"bucket": "week"},
            "does not consist of whole weeks, which --compare needs: expected whole weeks of UTC",
        ),
        (
            {"range": (RANGE[0], instant(RANGE[1]) - dt.timedelta(hours=1))},
            "does not consist of whole days",
        ),
        (
            {"zone": "Europe/Berlin", "range": (instant(RANGE[0]), RANGE[1])},
            "does not consist of whole days",
        ),
        (
            {"zone": "Asia/Kolkata", "bucket": "hour"},
            "expected whole hours of UTC, such as 2026-06-19T18:00:00+00:00 to",
        ),
        ({"compare": "next"}, "no such comparison: expected previous, found 'next'"),
        (
            {"bucket": "year", "zone": "Asia/Tokyo", "range": (dt.date(2, 1, 1), dt.date(3, 1, 1))},
            "leaves the calendar",
        ),
    ],
)
def test_a_comparison_without_a_bucket_before_is_refused(lake: Lake, more: Any, message: str) -> None:
    with pytest.raises(BadInputError) as raised:
        asked(lake, **{"compare": "previous", **more})
    assert message in str(raised.value)


def test_a_share_is_of_all_groups_also_with_top(lake: Lake) -> None:
    assert asked(lake, by=["subject"], share=True, range=(DAY + ONE, DAY + 3 * ONE)) == [
        *((1, "a", 2, 1, Decimal("0.25")), (1, "b", 6, 1, Decimal("0.75")), (2, "a", 3, 1, 1))
    ]
    assert asked(lake, by=["subject"], share=True, top=1, bucket="none") == [(1, "b", 11, 2, Decimal("0.55"))]
    assert asked(lake, by=["subject"], share=True, fill=True, where="subject = 'd'") == [
        *((1, "d", 0, 0, None), (2, "d", 0, 0, None), (3, "d", 4, 1, 1), (4, "d", 0, 0, None))
    ]
    # What has left has no part of what there is.
    assert asked(
        lake, by=["subject"], share=True, compare="previous", range=(DAY + 2 * ONE, DAY + 3 * ONE)
    ) == [*((2, "a", 3, 1, 1, 2, 1, "active"), (2, "b", 0, 0, 0, 6, -6, "lost"))]


def test_a_share_is_rounded_half_even_and_exact_for_numbers_of_any_size(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    large = "99999999999999999999.000000001"
    used(
        lake,
        meter.name,
        (1, "a", large),
        (1, "b", large),
        (1, "c", "0.000000001"),
        (2, "a", "1"),
        (2, "b", "2"),
    )
    half, third, two = map(Decimal, ("0.5", "0.333333333", "0.666666667"))
    found = asked(lake, by=["subject"], share=True, range=(DAY + ONE, DAY + 3 * ONE))
    assert [row[-1] for row in found] == [half, half, 0, third, two]


@pytest.mark.parametrize("aggregation", ["avg", "min", "max", "first", "last"])
def test_a_share_of_levels_that_do_not_add_up_is_refused(tmp_path: Path, aggregation: str) -> None:
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    with pytest.raises(
        BadInputError, match=f"expected a meter of amounts, .* found {aggregation} without `series`"
    ):
        lake.query(meter.name, *RANGE, by=["plan"], share=True)


def test_another_meter_stands_beside_in_all_buckets_and_groups(lake: Lake) -> None:
    seats = define(lake, name="seats", aggregation="last")
    used(lake, seats.name, (1, "a", "4"), (1, "x", "2"), (2, "b", "3"), (3, "d", "0"))
    assert asked(lake, by=["subject"], over="seats", range=(DAY + ONE, DAY + 4 * ONE)) == [
        (1, "a", 2, 1, 4, Decimal("0.5")),
        (1, "b", 6, 1, None, None),
        (1, "x", None, None, 2, None),
        (2, "a", 3, 1, None, None),
        (2, "b", None, None, 3, None),
        (3, "d", 4, 1, 0, None),
    ]
    # Amounts that are missing are 0 where rows are filled; a level is what it was last.
    assert asked(
        lake,
        by=["subject"],
        over="seats",
        fill=True,
        where="subject in ('b', 'x')",
        range=(DAY + ONE, DAY + 3 * ONE),
    ) == [*((1, "b", 6, 1, None, None), (1, "x", 0, 0, 2, 0), (2, "b", 0, 0, 3, 0), (2, "x", 0, 0, 2, 0))]
    assert asked(lake, by=["subject"], over="seats", top=1, range=(DAY + ONE, DAY + 3 * ONE)) == [
        *((1, "b", 6, 1, None, None), (2, "b", None, None, 3, None))
    ]
    assert asked(lake, "seats", over="active_users", bucket="none") == [(1, 0, 4, 20, 0)]
    # Who has seats alone was not active in the bucket before either.
    alone = asked(lake, by=["subject"], over="seats", compare="previous", where="subject = 'x'")
    assert alone == [(1, "x", None, None, 0, 0, None, 2, None)]


def test_a_ratio_that_no_column_holds_is_an_error_and_never_another_number(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    small = define(lake, name="small")
    large = "99999999999999999999.999999999"
    used(lake, meter.name, (1, "a", large), (2, "a", large), (2, "b", large))
    used(lake, small.name, (1, "a", "0.000000001"), (2, "a", "0.000000001"))
    assert asked(lake, over="small", by=["subject"], where="subject = 'a'")[0][-1] == Decimal(large + "e9")
    with pytest.raises(
        RefusedError,
        match=f"a ratio is too large.*found more: bucket_start {DAY + 2 * ONE}",
    ):
        asked(lake, over="small")


def test_another_meter_must_have_the_fields_of_the_question(lake: Lake) -> None:
    dimensions = [{"name": "region", "type": "string"}, {"name": "plan", "type": "number"}]
    define(lake, name="regions", dimensions=dimensions)
    for more, message in [
        (
            {"by": ["plan"]},
            "--group-by has a field that both meters must have: 'plan': expected a dimension 'plan' of type string, found one of type number",
        ),
        ({"where": "plan = 'pro'"}, "--filter has a field that both meters must have: 'plan'"),
        ({"over": "seats"}, "no meter 'seats' in this lake"),
    ]:
        with pytest.raises(BadInputError) as raised:
            asked(lake, **{"over": "regions", **more})
        assert message in str(raised.value)
    with pytest.raises(
        BadInputError, match="'region': expected a dimension 'region' of type string, found no such dimension"
    ):
        asked(lake, "regions", by=["region"], over="active_users")


def test_a_dimension_may_have_the_name_of_a_column_that_is_not_asked_for(tmp_path: Path) -> None:
    names = ["share", "Ratio", "usage_state"]
    dimensions = [{"name": name, "type": "string", "required": False} for name in names]
    lake, meter = a_lake(tmp_path, dimensions=dimensions)
    used(lake, meter.name, (1, "a", "1"))
    assert asked(lake, by=names) == [(1, None, None, None, 1, 1)]
    assert asked(lake, by=["share"], compare="previous") == [
        (1, None, 1, 1, 0, 1, "new"),
        (2, None, 0, 0, 1, -1, "lost"),
    ]
    for name, more in zip(
        names, ({"share": True}, {"over": meter.name}, {"compare": "previous"}), strict=True
    ):
        with pytest.raises(BadInputError, match=f"the dimension '{name}' has the name of a column"):
            asked(lake, by=[name], **more)
