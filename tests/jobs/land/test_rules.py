"""Every rule of a row: it lands, or is in quarantine with its reason and its text."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from landing import BODY, TABLE, body, landed, quarantined, written
from support import DAY, a_lake

RULES: dict[str, tuple[dict[str, Any], str | None]] = {
    "a subject of 128 bytes": ({"subject": "a" * 128}, None),
    "a subject of 129 bytes": ({"subject": "a" * 129}, "subject_invalid"),
    "a subject that is trimmed": ({"subject": " org:1.2-3_4 "}, None),
    "a subject with a space": ({"subject": "a b"}, "subject_invalid"),
    "a subject with a NUL": ({"subject": "a\x00"}, "subject_invalid"),
    "a subject that begins with a dot": ({"subject": ".a"}, "subject_invalid"),
    "an empty subject": ({"subject": " "}, "subject_missing"),
    "no subject": ({"subject": ...}, "subject_missing"),
    "no key": ({"idempotency_key": ...}, None),
    "no quantity": ({"quantity": ...}, "quantity_missing"),
    "a quantity of numeric text": ({"quantity": "2.5"}, None),
    "a quantity of 0": ({"quantity": 0}, "quantity_not_positive"),
    "a quantity that rounds to 0": ({"quantity": "0.0000000001"}, "quantity_not_positive"),
    "a negative quantity": ({"quantity": -1}, "quantity_not_positive"),
    "no timestamp": ({"timestamp": ...}, None),
    "a timestamp with an offset": ({"timestamp": "2026-06-19T12:00:00.123456789+02:00"}, None),
    "a timestamp in small letters": ({"timestamp": "2026-06-19t10:00:00z"}, None),
    "a timestamp without a zone": ({"timestamp": "2026-06-19T10:00:00"}, "timestamp_invalid"),
    "a date": ({"timestamp": "2026-06-19"}, "timestamp_invalid"),
    "a day that is none": ({"timestamp": "2026-02-30T10:00:00Z"}, "timestamp_invalid"),
    "the year 1": ({"timestamp": "0001-01-01T00:00:00Z"}, "timestamp_out_of_range"),
    "the year 0": ({"timestamp": "0000-01-01T00:00:00Z"}, "timestamp_invalid"),
    "an empty timestamp": ({"timestamp": ""}, "timestamp_invalid"),
    "24 hours ahead": ({"timestamp": "2026-06-20T10:00:00Z", "received_at": "2026-06-19T10:00:00Z"}, None),
    "more than 24 hours ahead": (
        {"timestamp": "2026-06-20T10:00:00.000001Z", "received_at": "2026-06-19T10:00:00Z"},
        "timestamp_in_future",
    ),
    "a received_at without a zone": ({"received_at": "2026-06-19T10:00:00"}, "received_at_invalid"),
    "no plan": ({"metadata": {}}, "dimension_missing"),
    "a null plan": ({"metadata": {"plan": None}}, "dimension_missing"),
    "an empty plan": ({"metadata": {"plan": ""}}, None),
    "a plan that is a number": ({"metadata": {"plan": 1}}, "dimension_type"),
    "metadata that is a list": ({"metadata": []}, "metadata_invalid"),
    "another meter": ({"meter": "other"}, "unknown_meter"),
    "a member that is no field": ({"unit": "x"}, None),
    "a member that is no field, and no key": ({"unit": "x", "idempotency_key": ...}, "unknown_field"),
}


@pytest.mark.parametrize(("changes", "reason"), RULES.values(), ids=RULES)
def test_a_row_lands_or_is_kept_with_its_reason_and_its_text(
    tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    lake, meter = a_lake(tmp_path / "lake", dimensions=[{"name": "plan", "type": "string"}])
    text = json.dumps(body(**changes))
    report = landed(lake, written(tmp_path, body(1), text, body(2)))
    assert lake.events(meter.name).collect().height == (2 if reason else 3)
    assert report.quarantined == ({reason: 1} if reason else {})
    assert report.exit_code == (1 if reason else 0)
    if reason:
        kept = quarantined(lake).row(0, named=True)
        assert kept["raw"] == text
        assert kept["position"] == 2
        assert kept["source"] == "usage.jsonl"
        assert kept["detail"].startswith("expected")


COUNTED = {
    "JSON Lines": ("a.jsonl", json.dumps(BODY | {"quantity": None}) + "\n"),
    "JSON Lines without the member": (
        "a.jsonl",
        json.dumps({k: v for k, v in BODY.items() if k != "quantity"}) + "\n",
    ),
    "a CloudEvent": (
        "a.json",
        json.dumps(
            {
                "specversion": "1.0",
                "id": "1",
                "source": "s",
                "type": "active_users",
                "subject": "org_123",
                "time": "2026-06-19T10:00:00Z",
            }
        ),
    ),
    "CSV": (
        "a.csv",
        "subject,meter,quantity,timestamp\norg_123,active_users,,2026-06-19T10:00:00Z\n",
    ),
    "CSV without the column": (
        "a.csv",
        "subject,meter,timestamp\norg_123,active_users,2026-06-19T10:00:00Z\n",
    ),
}


@pytest.mark.parametrize(("name", "text"), COUNTED.values(), ids=COUNTED)
@pytest.mark.parametrize("aggregation", ["count", "rate", "last"])
def test_an_absent_quantity_is_one_where_events_are_counted(
    tmp_path: Path, name: str, text: str, aggregation: str
) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation=aggregation)
    (tmp_path / name).write_text(text)
    report = landed(lake, tmp_path / name)
    if aggregation == "last":
        assert report.exit_code == 1
        assert report.events_landed == 0
    else:
        assert report.exit_code == 0
        assert lake.events(meter.name).collect()["quantity"].to_list() == [Decimal(1)]


def test_parquet_needs_no_quantity_where_events_are_counted(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation="count")
    pl.DataFrame(TABLE).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(TABLE).with_columns(quantity=pl.Series([2.5, None, 3.0])).write_parquet(
        tmp_path / "b.parquet"
    )
    assert landed(lake, tmp_path / "a.parquet", tmp_path / "b.parquet").exit_code == 0
    found = lake.raw_events(meter.name).collect()["quantity"].to_list()
    assert sorted(found) == [Decimal(1)] * 4 + [Decimal("2.5"), Decimal(3)]


def test_a_gauge_may_be_zero_but_not_less(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation="last")
    report = landed(lake, written(tmp_path, body(1, quantity=0), body(2, quantity=-1)))
    assert report.quarantined == {"quantity_negative": 1}
    assert lake.events(meter.name).collect()["quantity"].to_list() == [Decimal(0)]


def test_the_date_is_that_of_the_timestamp_in_utc(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    landed(lake, written(tmp_path, body(timestamp="2026-06-20T01:30:00+02:00")))
    assert lake.events(meter.name).collect()["date"].to_list() == [DAY]


LEAP_SECONDS = {
    "2026-06-19T23:59:60Z": dt.datetime(2026, 6, 20, tzinfo=dt.UTC),
    "2026-06-20T05:29:60+05:30": dt.datetime(2026, 6, 20, tzinfo=dt.UTC),
    "2026-06-19T23:59:60.5Z": dt.datetime(2026, 6, 20, 0, 0, 0, 500_000, dt.UTC),
    "2026-06-19T10:00:60Z": dt.datetime(2026, 6, 19, 10, 1, tzinfo=dt.UTC),
    "2026-06-19T10:00:61Z": None,
}


@pytest.mark.parametrize(("text", "expected"), LEAP_SECONDS.items(), ids=LEAP_SECONDS)
def test_second_60_of_any_minute_is_second_0_of_the_next(
    tmp_path: Path, text: str, expected: dt.datetime | None
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path, body(timestamp=text)))
    assert report.quarantined == ({} if expected else {"timestamp_invalid": 1})
    found = lake.events(meter.name).collect()
    assert found["timestamp"].to_list() == ([expected] if expected else [])
    assert found["date"].to_list() == ([expected.date()] if expected else [])
