"""A page for any lake: without meters, with hundreds, with the names and numbers that nobody expects."""

from __future__ import annotations

import datetime as dt
import html
from pathlib import Path
from typing import Any

import pytest

from jobs.report_page.figures import Page, gather
from jobs.report_page.render import document
from lake import Lake
from support import DAY, a_lake, aggregated, define, event, put

NEXT = DAY + dt.timedelta(days=1)
LARGEST = "99999999999999999999.999999999"


def dimension(name: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "type": kind, "required": False}


def page_of(lake: Lake, until: dt.date = NEXT, days: int = 30) -> tuple[Page, str]:
    found = gather(lake, until, days)
    return found, document(found)


def test_a_lake_without_meters_says_what_to_define(tmp_path: Path) -> None:
    _, text = page_of(Lake.init(str(tmp_path)))
    assert "No meter here counts activity" in text
    assert "No meter says how many seats there are" in text
    assert "Nothing needs attention" in text


def test_a_meter_without_events_has_a_page(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path)
    found, text = page_of(lake)
    assert found.answers.activity is not None
    assert [each.customers for each in found.answers.activity.weeks or []] == [0] * 5
    assert "No usage in these dates." in text


def test_seats_alone_are_answered_and_nothing_about_users(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="last", unit="seat", series=["plan"])
    put(lake, meter, "a.parquet", event("a", quantity="5"), event("b", quantity="2", plan="free"))
    aggregated(lake)
    found, text = page_of(lake)
    assert found.answers.activity is None
    assert found.answers.seats is not None
    assert found.answers.seats.total is not None
    assert found.answers.seats.total.seats == "7"
    assert "Seats to bill</h2>" in text
    assert 'class="level"' in text
    assert 'class="bar"' not in text


def test_old_usage_is_pointed_at(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    _, text = page_of(lake, until=dt.date(2027, 1, 1))
    assert (
        f'No activity in these dates: the newest event of <bdi>active_users</bdi> is of <span class="whole">{DAY}'
        in text
    )


def test_hundreds_of_meters_make_a_page_of_bounded_size_that_says_what_it_leaves_out(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    for number in range(330):
        define(lake, name=f"meter {number:03}")
    found, text = page_of(lake)
    assert (len(found.meters), len(found.other_meters), found.meters_left_out) == (12, 300, 19)
    # The one with events is shown in detail.
    assert found.meters[0].status.meter == "active_users"
    assert "19 more meters: meterlake status" in text
    assert len(text) < 200_000


def test_dimensions_named_like_columns_of_an_answer_are_themselves(tmp_path: Path) -> None:
    names = ["ratio", "share", "usage_state", "usage_change", "over_quantity", "customers", "values"]
    lake, meter = a_lake(
        tmp_path,
        aggregation="unique_count",
        unique="who",
        dimensions=[
            *map(dimension, names),
            dimension("distinct"),
            dimension("who"),
            dimension("size", "number"),
        ],
    )
    seats = define(
        lake, name="seats", aggregation="last", unit="seat", series=[], dimensions=[dimension("ratio")]
    )
    values = {name: f"a {name}" for name in names}
    put(lake, meter, "a.parquet", event("a", who="u", **values), event("b", who="v", size=1.5, distinct="d"))
    put(lake, seats, "a.parquet", event("s", ratio="a ratio"))
    aggregated(lake)
    found, text = page_of(lake)
    assert found.status.problems == []
    assert found.answers.activity is not None
    by_name = {each.name: [*each.values.rows] for each in found.answers.activity.dimensions}
    # The most that are shown; the others are named.
    assert [*by_name] == [*names, "size"]
    assert found.answers.activity.dimensions_left_out == ["distinct"]
    for name in names:
        rows: list[Any] = by_name[name]
        assert {(row.value, row.customers, row.quantity, row.seats) for row in rows} == {
            (f"a {name}", 1, "1", None),
            (None, 1, "1", None),
        }
    assert '--group-by</span> <span class="whole">distinct' in text


def test_huge_numbers_and_long_names_are_exact_and_whole(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, name="n" * 240, unit="u" * 300, description="d" * 1000)
    events = [event(f"k{number}", "S" * 128, LARGEST, plan="p" * 500) for number in range(30)]
    put(lake, meter, "a.parquet", *events)
    aggregated(lake)
    found, text = page_of(lake)
    assert found.meters[0].quantity == "2999999999999999999999.99999997"
    assert "2,999,999,999,999,999,999,999.99999997" in text
    assert all(part in text for part in ("n" * 240, "S" * 128, "p" * 500))


@pytest.mark.parametrize("name", ["</style><script>x()</script>", "a\u202eb\x1b[31mc\nd", "ñ🙂 \"'&lt;"])
def test_names_are_text_and_steer_nothing(tmp_path: Path, name: str) -> None:
    lake, meter = a_lake(tmp_path, name=name, unit=name, description=name)
    put(lake, meter, "a.parquet", event("a", plan=name))
    aggregated(lake)
    _, text = page_of(lake)
    assert "<script" not in text
    assert text.count("</style>") == 1
    assert not {"\u202e", "\x1b"} & {*text}
    shown = name.encode("unicode_escape").decode() if not name.isprintable() else name
    assert (
        f'<bdi class="name">{html.escape(shown).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}</bdi>'
        in text
    )


def test_an_ambiguous_gauge_is_named_and_its_number_is_no_sum(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="last", unit="seat")
    put(lake, meter, "a.parquet", event("a", quantity="5"), event("b", quantity="7", plan="free"))
    aggregated(lake)
    _, text = page_of(lake)
    assert "active_users&#39; is ambiguous" in text
    assert "no sum of levels, since the definition has no series" in text
