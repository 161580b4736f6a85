"""Both ways of parsing lines give the same, and the careful one says what is wrong."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.landing.exact import parse_exact
from jobs.landing.fast import parse_fast
from jobs.landing.parsed import LINE
from schemas.meter import Meter, parse_meter
from schemas.rules import REASONS


def _meter(name: str, *dimensions: tuple[str, str]) -> Meter:
    body = {
        "name": name,
        "unit": "u",
        "dimensions": [{"name": n, "type": t, "required": False} for n, t in dimensions],
    }
    return parse_meter(json.dumps(body).encode(), "test")


METERS = {
    meter.name: meter
    for meter in (
        _meter(
            "m", ("plan", "string"), ("seats", "number"), ("trial", "boolean"), ("service.tier", "string")
        ),
        _meter("other", ("region", "string")),
        _meter("bare"),
    )
}


def line(metadata: Any = None, **changes: Any) -> str:
    body = {
        "idempotency_key": "k",
        "subject": "s",
        "meter": "m",
        "quantity": 1,
        "timestamp": "2026-06-19T10:00:00Z",
    }
    body |= {"metadata": metadata} if metadata is not None else {}
    return json.dumps({name: value for name, value in (body | changes).items() if value is not ...})


def test_the_usual_line_goes_the_fast_way() -> None:
    lines = [
        line({"plan": "pro", "seats": 5, "trial": True, "service": {"tier": "gold"}}),
        line({"service.tier": "flat"}, meter="m", quantity="2.5"),
        line({"region": "eu"}, meter="other"),
        line(meter="bare", received_at="2026-06-19T10:00:00Z", idempotency_key=None),
    ]
    assert parse_fast("\n".join(lines).encode(), METERS) is not None


values = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(["pro", "1", "true", "", 'é\n"q"', "\x00", "{}", " x "]),
    st.sampled_from([0, 1, -1, 1.5, -0.0, 10**25, 1e-7, 12345678901234567890]),
    st.sampled_from(
        [[], [1], {}, {"tier": "gold"}, {"tier": None}, {"tier": 1, "zone": 2}, {"deep": {"er": [1.10]}}]
    ),
)
metadata = st.one_of(
    st.dictionaries(
        st.sampled_from(["plan", "seats", "trial", "service", "service.tier", "region", "extra"]),
        values,
        max_size=4,
    ),
    values,
)
bodies = st.fixed_dictionaries(
    {"meter": st.sampled_from(["m", "m", "m", "other", "bare", " m ", "nope", None, 1])},
    optional={
        "idempotency_key": st.sampled_from(["k", "", " k ", None, 1]),
        "subject": st.sampled_from(["s", " s ", None, 1, ""]),
        "quantity": st.sampled_from(
            [1, 0, -1, 2.5, "2.5", " 2.5 ", "x", "", "1e3", "NaN", "+5", ".5", "5.", True, None]
        )
        | st.decimals(
            allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20
        ).map(str),
        "timestamp": st.sampled_from(["2026-06-19T10:00:00Z", "x", 1, None]),
        "received_at": st.sampled_from(["2026-06-19T10:00:00Z", None, {}]),
        "metadata": metadata,
        "unknown": st.just(1),
    },
)


@given(st.lists(bodies, min_size=1, max_size=4))
def test_what_the_fast_way_accepts_the_careful_way_gives_too(events: list[dict[str, Any]]) -> None:
    lines = "\n".join(json.dumps(event) for event in events).encode()
    fast, exact = parse_fast(lines, METERS), parse_exact(lines, METERS)
    assert {said.reason for said in exact.rejected} <= REASONS.keys()
    if fast is not None:
        assert exact.rejected == fast.rejected == []
        assert [meter.name for meter, _ in fast.events] == [meter.name for meter, _ in exact.events]
        for (_, one), (_, other) in zip(fast.events, exact.events, strict=True):
            assert one.equals(other)
            assert one.schema == other.schema


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]":,0123456789.eE+-ntrufalsm\\ \n\t', max_size=80).map(str.encode)
)
def test_any_bytes_are_parsed_or_rejected(lines: bytes) -> None:
    parse_fast(lines, METERS)
    exact = parse_exact(lines, METERS)
    found = len(exact.rejected) + sum(df.height for _, df in exact.events)
    assert found == sum(1 for text in lines.split(b"\n") if text.strip())


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
    "a million levels": ("[" * 1_000_000, "too_large"),
    "an unknown field": (line(unit="x"), "unknown_field"),
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
    assert parse_fast(lines, METERS) is None
    (said,) = parse_exact(lines, METERS).rejected
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
    for parsed in (parse_fast(lines, METERS), parse_exact(lines, METERS)):
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
    ((_, df),) = parse_exact(lines, METERS).events
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
    for parsed in (parse_fast(lines, METERS), parse_exact(lines, METERS)):
        if parsed is not None:
            assert parsed.events[0][1]["service.tier"].to_list() == [expected]


def test_a_dimension_that_is_the_parent_of_another_is_text_or_a_conflict() -> None:
    meters = {"m": _meter("m", ("service", "string"), ("service.tier", "string"))}
    ((_, df),) = parse_exact(line({"service": "api", "service.tier": "gold"}).encode(), meters).events
    assert df.select("service", "service.tier").rows() == [("api", "gold")]
    (said,) = parse_exact(line({"service": {"tier": "gold"}}).encode(), meters).rejected
    assert said.reason == "metadata_conflict"


def test_line_numbers_count_blank_lines() -> None:
    parsed = parse_exact(f"\n{line()}\n\nx\n".encode(), METERS)
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
    parsed = parse_exact(
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
    assert parse_exact(nested, METERS).events[0][1]["plan"].to_list() == ["pro"]
    assert isinstance(df, pl.DataFrame)
