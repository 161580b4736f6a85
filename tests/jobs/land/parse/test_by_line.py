"""What the careful way of parsing reads, and what it says of a line that is no event."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from jobs.land.parse.by_column import parse_by_column
from jobs.land.parse.by_line import parse_by_line
from jobs.land.parse.parsed import LINE
from parsing import METERS, line, meter_of

REFUSED = {
    "not json": ("not json", "not_json"),
    "half an object": ('{"subject": "s"', "not_json"),
    "two objects": (line() + line(), "not_json"),
    "NaN": (line().replace('"quantity": 1', '"quantity": NaN'), "not_json"),
    "a key twice": (line()[:-1] + ', "quantity": 2}', "not_json"),
    "half a surrogate pair": (line(subject="\ud800"), "not_json"),
    "null": ("null", "not_an_object"),
    "an array": ("[1]", "not_an_object"),
    "65 levels": (line({"x": json.loads("[" * 64 + "]" * 64)}), "too_large"),
    "500 levels": (line({"x": 0}).replace('"x": 0', '"x": ' + "[" * 500 + "]" * 500), "too_large"),
    "900 levels": (line({"x": 0}).replace('"x": 0', '"x": ' + "[" * 900 + "]" * 900), "too_large"),
    "a million levels": ("[" * 1_000_000, "too_large"),
    "an unknown field without a key": (line(unit="x", idempotency_key=...), "unknown_field"),
    "no meter": (line(meter=...), "meter_missing"),
    "an empty meter": (line(meter=" "), "meter_missing"),
    "a meter that is a number": (line(meter=1), "meter_missing"),
    "an unknown meter": (line(meter="nope"), "unknown_meter"),
    "a key that is a number": (line(idempotency_key=1), "idempotency_key_invalid"),
    "a subject that is a number": (line(subject=1), "subject_invalid"),
    "a quantity of text": (line(quantity="many"), "quantity_invalid"),
    "a quantity of true": (line(quantity=True), "quantity_invalid"),
    "a quantity NaN as text": (line(quantity="NaN"), "quantity_invalid"),
    "a quantity Infinity as text": (line(quantity="Infinity"), "quantity_invalid"),
    "a quantity of 30 digits": (line(quantity="1" + "0" * 29), "quantity_invalid"),
    "a huge exponent": (line(quantity="1e999999999"), "quantity_invalid"),
    "a quantity in other digits": (line(quantity="١٢"), "quantity_invalid"),
    "a quantity with an underscore": (line(quantity="1_000"), "quantity_invalid"),
    "a timestamp that is a number": (line(timestamp=1718791200), "timestamp_invalid"),
    "metadata that is text": (line("text"), "metadata_invalid"),
    "text in the place of a parent": (line({"service": "api"}), "metadata_conflict"),
    "a number for a string": (line({"plan": 1}), "dimension_type"),
    "text for a number": (line({"seats": "1"}), "dimension_type"),
    "true for a number": (line({"seats": True}), "dimension_type"),
    "a number beyond a double": (line().replace("}", ', "metadata": {"seats": 1e400}}'), "dimension_type"),
    "1 for a boolean": (line({"trial": 1}), "dimension_type"),
    "an object for a string": (line({"plan": {}}), "dimension_type"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_line_that_is_no_event_has_its_reason(text: str, reason: str) -> None:
    lines = text.encode(errors="surrogatepass")
    assert parse_by_column(lines, METERS) is None
    (said,) = parse_by_line(lines, METERS).rejected
    assert said.reason == reason
    assert said.detail


QUANTITIES = {
    "482.7": "482.7",
    "12345678901234567890123456789.123456789": "12345678901234567890123456789.123456789",
    "0.1234567885": "0.123456788",
    "0.1234567895": "0.123456790",
    "482.70000000000005": "482.7",
    "1e3": "1000",
    "1.5E-3": "0.0015",
    '"2.50"': "2.5",
    '" 7 "': "7",
    '"+5"': "5",
}


@pytest.mark.parametrize(("written", "expected"), QUANTITIES.items(), ids=QUANTITIES)
def test_a_quantity_is_its_decimal_text_to_nine_places_half_even(written: str, expected: str) -> None:
    lines = line().replace('"quantity": 1', f'"quantity": {written}').encode()
    for parsed in (parse_by_column(lines, METERS), parse_by_line(lines, METERS)):
        if parsed is not None:
            assert parsed.events[0][1]["quantity"].to_list() == [Decimal(expected)]


REST = {
    "nothing": ({"plan": "pro"}, None),
    "numbers as written": ('{"x":1.10,"y":[1e3,-0]}', '{"x":1.10,"y":[1e3,-0]}'),
    "order of keys": ({"z": 1, "plan": "pro", "a": {"c": None, "b": "é"}}, '{"z":1,"a":{"c":null,"b":"é"}}'),
    "a sibling of a nested dimension": (
        {"service": {"tier": "gold", "zone": "a"}},
        '{"service":{"zone":"a"}}',
    ),
    "a nested value beside a flat one": (
        {"service.tier": "x", "service": {"tier": "y"}},
        '{"service":{"tier":"y"}}',
    ),
}


@pytest.mark.parametrize(("given_metadata", "expected"), REST.values(), ids=REST)
def test_undeclared_metadata_is_kept_as_it_was_written(given_metadata: Any, expected: str | None) -> None:
    text = given_metadata if isinstance(given_metadata, str) else json.dumps(given_metadata)
    lines = line().replace("}", f', "metadata": {text}}}').encode()
    ((_, df),) = parse_by_line(lines, METERS).events
    assert df["metadata"].to_list() == [expected]


DOTTED = {
    "nested": ({"service": {"tier": "gold"}}, "gold"),
    "flat": ({"service.tier": "gold"}, "gold"),
    "both: flat wins": ({"service": {"tier": "silver"}, "service.tier": "gold"}, "gold"),
    "flat null: nested": ({"service": {"tier": "gold"}, "service.tier": None}, "gold"),
    "neither": ({"service": {}}, None),
}


@pytest.mark.parametrize(("given_metadata", "expected"), DOTTED.values(), ids=DOTTED)
def test_a_dotted_dimension_is_a_nested_path_or_a_flat_key(given_metadata: Any, expected: str | None) -> None:
    lines = line(given_metadata).encode()
    for parsed in (parse_by_column(lines, METERS), parse_by_line(lines, METERS)):
        if parsed is not None:
            assert parsed.events[0][1]["service.tier"].to_list() == [expected]


def test_a_dimension_that_is_the_parent_of_another_is_text_or_a_conflict() -> None:
    meters = {"m": meter_of("m", ("service", "string"), ("service.tier", "string"))}
    ((_, df),) = parse_by_line(line({"service": "api", "service.tier": "gold"}).encode(), meters).events
    assert df.select("service", "service.tier").rows() == [("api", "gold")]
    (said,) = parse_by_line(line({"service": {"tier": "gold"}}).encode(), meters).rejected
    assert said.reason == "metadata_conflict"


def test_line_numbers_count_blank_lines() -> None:
    parsed = parse_by_line(f"\n{line()}\n\nx\n".encode(), METERS)
    assert parsed.events[0][1][LINE].to_list() == [1]
    assert [said.line for said in parsed.rejected] == [3]


def test_cloudevents_are_usage_bodies() -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/api",
        "type": "m",
        "subject": "s",
        "time": "2026-06-19T10:00:00Z",
    }
    parsed = parse_by_line(
        json.dumps(event | {"data": {"quantity": 2, "plan": "pro"}, "region": "eu"}).encode(), METERS
    )
    ((_, df),) = parsed.events
    expected = {
        "idempotency_key": "/api/1",
        "subject": "s",
        "plan": "pro",
        "quantity": Decimal(2),
        "metadata": '{"region":"eu"}',
    }
    assert df.select(expected.keys()).row(0, named=True) == expected
    nested = json.dumps(event | {"data": {"quantity": 2, "metadata": {"plan": "pro"}}}).encode()
    assert parse_by_line(nested, METERS).events[0][1]["plan"].to_list() == ["pro"]
    assert isinstance(df, pl.DataFrame)
    no_id = json.dumps(event | {"id": " ", "data": {"quantity": 2}}).encode()
    assert parse_by_line(no_id, METERS).events[0][1]["idempotency_key"].str.strip_chars().to_list() == [""]
    text = json.dumps(event | {"data": {"quantity": 2, "metadata": "plan"}}).encode()
    assert parse_by_line(text, METERS).rejected[0].reason == "metadata_invalid"
