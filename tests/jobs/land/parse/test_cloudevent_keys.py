"""The key of a CloudEvent is that of no other, and an event that landed before keys were so is not counted twice."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from jobs.land.job import land
from jobs.land.parse.cloudevents import earlier_key, key_of
from jobs.run_report import RunReport, reported
from lake import Lake
from support import DAY, METER, a_lake, aggregated, event, put

NAME = METER["name"]
NOON = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
# Few signs, so that texts meet.
text = st.text("a/:%2F ", max_size=6) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
pair = st.tuples(text, text)


@given(pair, pair)
@example(("svc/a", "7"), ("svc", "a/7"))
@example(("cloudevent:", "a"), ("", "a/"))
def test_two_events_have_one_key_only_if_they_are_one(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


@given(text, text)
def test_the_key_that_earlier_versions_gave_can_be_told(source: str, name: str) -> None:
    key = key_of(source, name)
    assert earlier_key(key) == (f"{source}/{name}".strip() if "/" in name else None)


def cloudevent(source: str, name: str, quantity: int, **changes: Any) -> dict[str, Any]:
    found = {"specversion": "1.0", "source": source, "id": name, "type": NAME, "subject": "org_1"}
    return found | {"time": NOON.isoformat(), "data": {"quantity": quantity, "plan": "pro"}} | changes


def landed(lake: Lake, folder: Path, *events: dict[str, Any]) -> RunReport:
    file = folder / "usage.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in events))
    with reported(lake, "land") as report:
        land(lake, [str(file)], report)
    return report


def total(lake: Lake) -> Decimal:
    aggregated(lake)
    return Decimal(lake.usage(NAME).collect()["quantity"].sum())


def test_source_and_id_that_meet_in_one_text_are_two_events(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    both = [cloudevent("svc/a", "7", 7), cloudevent("svc", "a/7", 8)]
    landed(lake, tmp_path, *both)
    assert total(lake) == 15
    # Sent again, each in an input of its own.
    landed(lake, tmp_path, both[1], cloudevent("svc", "other", 100))
    landed(lake, tmp_path, both[0], cloudevent("svc", "others", 1000))
    assert total(lake) == 1115


def landed_before(
    lake: Lake, *events: dict[str, Any], name: str = "land-0123456789abcdef-0000.parquet"
) -> None:
    """Events as a version that knew one form of keys has landed them."""
    meter = lake.meter(NAME)
    put(lake, meter, name, *(event("svc/a/7", received_at=NOON) | each for each in events))


def test_a_retry_of_what_landed_before_counts_once(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    landed_before(lake, {"quantity": Decimal(8)})
    landed(lake, tmp_path, cloudevent("svc", "a/7", 8), cloudevent("svc", "b/7", 100))
    assert total(lake) == 108
    assert lake.duplicates(NAME).collect().height == 1
    # And again: it has the key that it has in the lake.
    landed(lake, tmp_path, cloudevent("svc", "a/7", 8), cloudevent("svc", "c/7", 1000))
    assert total(lake) == 1108


def test_another_event_that_landed_before_under_that_key_is_no_retry(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    landed_before(lake, {"quantity": Decimal(7)})
    landed(lake, tmp_path, cloudevent("svc", "a/7", 8))
    assert total(lake) == 15


def test_a_retry_without_a_time_is_found_on_any_date(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    landed_before(lake, {"quantity": Decimal(8)})
    again = cloudevent("svc", "a/7", 8)
    del again["time"]
    landed(lake, tmp_path, again)
    assert total(lake) == 8


def test_what_both_landed_before_stays_what_it_was(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    landed_before(lake, {"quantity": Decimal(7)}, {"quantity": Decimal(8)})
    assert total(lake) == 7
    landed(lake, tmp_path, cloudevent("svc/a", "7", 7), cloudevent("svc", "a/7", 8))
    assert total(lake) == 7


def test_producers_files_are_not_asked(tmp_path: Path) -> None:
    """Their keys are their own."""
    lake, _ = a_lake(tmp_path / "lake")
    landed_before(lake, {"quantity": Decimal(8)}, name="producer.parquet")
    landed(lake, tmp_path, cloudevent("svc", "a/7", 8))
    assert total(lake) == 16
