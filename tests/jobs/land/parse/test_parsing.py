"""All ways of parsing lines give the same, and the careful one says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.land.parse import choose as parse_module
from jobs.land.parse.by_column import parse_by_column
from jobs.land.parse.by_line import parse_by_line
from jobs.land.parse.choose import parse
from jobs.land.parse.parsed import LINE, Parsed
from jobs.land.parse.rest import parse_rest
from parsing import METERS, assert_every_way_gives_the_same, assert_same, line, meter_of


def test_the_usual_line_goes_the_fast_way() -> None:
    lines = [
        line({"plan": "pro", "seats": 5, "trial": True, "service": {"tier": "gold"}}),
        line({"service.tier": "flat"}, meter="m", quantity="2.5"),
        line({"region": "eu"}, meter="other"),
        line(meter="bare", received_at="2026-06-19T10:00:00Z", idempotency_key=None),
    ]
    assert parse_by_column("\n".join(lines).encode(), METERS) is not None


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
        "id": st.sampled_from(["1", None]),
        "Quantity": st.just(1),
        "plan": st.sampled_from(["pro", 1, None]),
        "service": st.sampled_from([{"tier": "gold"}, {"zone": 2}, {}, "x", None]),
        "service.tier": st.sampled_from(["flat", None]),
        "specversion": st.just("1.0"),
    },
)


@pytest.fixture(scope="module", autouse=True)
def _blocks_are_cut_small() -> Iterator[None]:
    """Let a few lines be enough to be cut in two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse_module, "CAREFUL_LINES", 2)
        yield


@given(st.lists(bodies, min_size=1, max_size=5))
def test_every_way_gives_what_the_careful_one_gives(events: list[dict[str, Any]]) -> None:
    assert_every_way_gives_the_same("\n".join(json.dumps(event) for event in events).encode())


# Mostly right, so that the faster ways do not refuse them; each in its own text, which a JSON library would even out.
texts = {
    "plan": st.sampled_from(['"pro"', '""', "null", '"\\u00e9"', '"a\\":b"']),
    "seats": st.sampled_from(["1", "1.50", "null", "-0.0", "1e3", "1e400", "NaN"]),
    "trial": st.sampled_from(["true", "false", "null"]),
    "service": st.sampled_from(
        ['{"tier":"gold"}', "{}", "null", '{"tier":null}', '{"tier":"g","zone":2}', '"x"']
    ),
    "service.tier": st.sampled_from(['"flat"', "null"]),
    "region": st.sampled_from(['"eu"', "null", "{}"]),
    "extra": st.sampled_from(
        ['"t"', "1.10", "null", "[1, 2]", '{"a": 1}', "01", '"\\ud800"', "12345678901234567890"]
    ),
    "metadata": st.sampled_from(["null", "{}"]),
}
members = st.sampled_from(sorted(texts)).flatmap(lambda name: st.tuples(st.just(name), texts[name]))
colons = st.sampled_from([":", ":", ":", ": ", " :"])
events_as_text = st.builds(
    lambda meter, key, quantity, said, colon: (
        f'{{"meter":"{meter}","subject":"s","quantity":{quantity},"idempotency_key":{key},"metadata":{{'
        + ",".join(f'"{name}"{colon}{value}' for name, value in said)
        + "}}"
    ),
    st.sampled_from(["m", "m", "other", "bare"]),
    st.sampled_from(['"k"', "null"]),
    st.sampled_from(["1", "2.5", '"2.5"', "0.1234567895"]),
    st.lists(members, max_size=3),
    colons,
)


@settings(max_examples=300)
@given(
    st.lists(events_as_text, min_size=1, max_size=5).map("\n".join),
    st.lists(st.tuples(st.integers(0, 600), st.sampled_from('{}[]":,0.eE+-\\ \n\t\x00\x80')), max_size=1),
)
def test_every_way_reads_every_text_alike(text: str, changes: list[tuple[int, str]]) -> None:
    for place, character in changes:
        text = text[:place] + character + text[place + 1 :]
    assert_every_way_gives_the_same(text.encode().rstrip(b"\n"))


UNDECLARED = {
    "a null where others have a dimension": '{"region":null}',
    "an empty object in the place of a branch": '{"service":{}}',
    "a flat value beside an empty branch": '{"service.tier":"x","service":{}}',
    "a null branch": '{"service":null}',
    "a null leaf": '{"service":{"tier":null}}',
}


@pytest.mark.parametrize("metadata", UNDECLARED.values(), ids=UNDECLARED)
@pytest.mark.parametrize("meter", ["m", "other", "bare"])
def test_what_stands_in_other_lines_changes_no_metadata(meter: str, metadata: str) -> None:
    others = [line({"plan": "pro"}), line({"region": "eu"}, meter="other"), line(meter="bare")]
    said = f'{{"subject":"s","meter":"{meter}","quantity":1,"metadata":{metadata}}}'
    assert_every_way_gives_the_same("\n".join([said, *others]).encode())


def test_undeclared_metadata_is_read_without_the_careful_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = line({"plan": "pro", "trace": "x", "n": 7, "on": True, "off": None}).encode()
    exact, given_to_it = parse_by_line(lines, METERS), list[bytes]()

    def noted(lines: bytes, meters: Any) -> Parsed:
        given_to_it.append(lines)
        return parse_by_line(lines, meters)

    monkeypatch.setattr("jobs.land.parse.rest.parse_by_line", noted)
    found = parse_rest(lines, METERS)
    assert found is not None
    assert_same(found, exact)
    assert found.events[0][1]["metadata"].to_list() == ['{"trace":"x","n":7,"on":true,"off":null}']
    assert not any(given_to_it)


def test_plain_undeclared_metadata_goes_the_fast_way() -> None:
    lines = (
        '{"subject":"s","meter":"other","quantity":1,"metadata":{"trace": "a,\\u007b", "region": "eu"}}',
        '{"subject":"s","meter":"other","quantity":1,"metadata":{"trace": "é}", "region": "eu", "n": 1.10}}',
        '{"subject":"s","meter":"bare","quantity":1,"metadata":{"n": 10e-1, "on": false}}',
        '{"subject":"s","meter":"bare","quantity":1,"metadata":{}}',
        '{"subject":"s","meter":"bare","quantity":1}',
    )
    plain = "\n".join(lines[1:]).encode()
    found = parse_by_column(plain, METERS)
    assert found is not None
    assert_same(found, parse_by_line(plain, METERS))
    assert [df["metadata"].to_list() for _, df in found.events] == [
        ['{"n":10e-1,"on":false}', None, None],
        ['{"trace":"é}","n":1.10}'],
    ]
    # An escape is written another way than it was read.
    assert parse_by_column("\n".join(lines).encode(), METERS) is None


NOT_ALIKE = {
    "another order": '{"n":1,"trace":"t"}',
    "a number that is none": '{"trace":"t","n":NaN}',
    "a number beyond floats": '{"trace":"t","n":1e999}',
    "a name twice": '{"trace":"t","n":1,"n":1}',
    "text as a number": '{"trace":"t","n":"1"}',
    "a space before a colon": '{"trace":"t","n" :1}',
    "a name that only it has": '{"trace":"t","n":1,"late":1}',
    "a null": '{"trace":null,"n":1}',
    "an object": '{"trace":"t","n":{"trace":"u"}}',
    "an escape": '{"trace":"\\n","n":1}',
    "an escaped name": '{"tr\\u0061ce":"t","n":1}',
    "a name of a field": '{"trace":"t","n":1,"quantity":2}',
    "a control character": '{"trace":"\x01","n":1}',
    "a dimension of another meter": '{"trace":"t","n":1,"region":"eu"}',
}


@pytest.mark.parametrize("metadata", NOT_ALIKE.values(), ids=NOT_ALIKE)
@pytest.mark.parametrize("first", [False, True])
def test_undeclared_metadata_that_is_not_alike_is_left_to_slower_ways(
    metadata: str,
    first: bool,
) -> None:
    def event(meter: str, said: str) -> str:
        return f'{{"subject":"s","meter":"{meter}","quantity":1,"metadata":{said}}}'

    usual = [event("bare", '{"trace":"t","n":1}'), event("other", '{"trace":"t","region":"eu","n":1.0}')]
    odd = event("bare", metadata)
    lines = "\n".join([odd, *usual] if first else [*usual, odd]).encode()
    assert_every_way_gives_the_same(lines)


flat_members = st.tuples(
    st.sampled_from(
        ["plan", "seats", "service", "service.tier", "region", "trace", "n", "id", "Subject", "metadata"]
    ),
    st.sampled_from(
        [
            '"t"',
            "1",
            "1.10",
            "true",
            "null",
            '{"tier":"g"}',
            '{"a":{"a":1}}',
            '[{"n":1}]',
            '":"',
            '"\\u00e9"',
            "{}",
        ]
    ),
)
flat_bodies = st.builds(
    lambda meter, key, said, colon: (
        f'{{"meter"{colon}"{meter}","subject":"s","quantity":1,{key}'
        + ", ".join(f'"{name}"{colon}{value}' for name, value in [*said, ("more", "1")])
        + "}"
    ),
    st.sampled_from(["m", "other", "bare", " other ", "nope"]),
    st.sampled_from(
        ['"idempotency_key":"k",'] * 4 + ["", '"idempotency_key":" ",', '"idempotency_key":null,']
    ),
    st.lists(flat_members, max_size=3),
    colons,
)


@settings(max_examples=400)
@given(
    st.lists(flat_bodies, min_size=1, max_size=4).map("\n".join),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from('{}[]":,0.eE+-\\ \n\t\x00n')), max_size=1),
)
def test_every_way_reads_flat_members_alike(text: str, changes: list[tuple[int, str]]) -> None:
    for place, character in changes:
        text = text[:place] + character + text[place + 1 :]
    assert_every_way_gives_the_same(text.encode().rstrip(b"\n"))


def test_flat_members_are_read_without_the_careful_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(plan="pro", seats=n, trace={"a": [{"b": 1}]}, **{"service.tier": "gold"}) for n in range(9)]
    lines[3] = line({"extra": 1.5}, meter="other", trace="x", region="eu")
    lines[4] = line({"region": "eu"}, meter="other")
    text = "\n".join(lines).encode()
    exact = parse_by_line(text, METERS)
    monkeypatch.setattr(parse_module, "parse_by_line", lambda *_: pytest.fail("the careful way was taken"))
    assert_same(parse(text, METERS), exact)
    assert exact.rejected == []


FLAT: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "anything where there is a key": ({"trace": "x", "n": 1.5}, None, '{"trace":"x","n":1.5}'),
    "a dimension": ({"plan": "pro", "idempotency_key": ...}, None, None),
    "a path": ({"service": {"tier": "gold"}, "idempotency_key": None}, None, None),
    "behind the metadata": ({"metadata": {"x": 1}, "trace": "y"}, None, '{"x":1,"trace":"y"}'),
    "a null beside a value": ({"metadata": {"plan": "pro"}, "plan": None}, None, None),
    "anything where there is no key": ({"trace": "x", "idempotency_key": ...}, "unknown_field", "trace"),
    "anything where the key is empty": ({"trace": "x", "idempotency_key": " "}, "unknown_field", "trace"),
    "an id for a key": (
        {"trace": "x", "event_id": "1", "idempotency_key": ...},
        "unknown_field",
        '"event_id": did you mean idempotency_key?',
    ),
    "a key in other letters": (
        {"idempotencyKey": "1", "idempotency_key": ...},
        "unknown_field",
        '"idempotencyKey": did you mean idempotency_key?',
    ),
    "a field in other letters": ({"Quantity": 5, "quantity": ...}, "unknown_field", "did you mean quantity?"),
    "a field in other letters beside null": (
        {"Quantity": 5, "quantity": None},
        "unknown_field",
        "did you mean",
    ),
    "a field in other letters beside itself": ({"Quantity": 5}, None, '{"Quantity":5}'),
    "a value in both": ({"plan": "a", "metadata": {"plan": "a"}}, "metadata_conflict", "plan"),
    "an undeclared value in both": ({"x": 1, "metadata": {"x": 2}}, "metadata_conflict", "x"),
    "a path in both": (
        {"service.tier": "a", "metadata": {"service": {"tier": "a"}}},
        "metadata_conflict",
        "service.tier",
    ),
    "another type": ({"seats": "1"}, "dimension_type", "seats"),
}


@pytest.mark.parametrize(("changes", "reason", "found"), FLAT.values(), ids=FLAT)
def test_a_member_that_is_no_field_is_metadata_or_names_what_was_meant(
    changes: dict[str, Any], reason: str | None, found: str | None
) -> None:
    text = line(**changes).encode()
    assert_every_way_gives_the_same(text)
    parsed = parse_by_line(text, METERS)
    if reason is None:
        assert parsed.events[0][1]["metadata"].to_list() == [found]
    else:
        assert [said.reason for said in parsed.rejected] == [reason]
        assert found
        assert found in parsed.rejected[0].detail


def test_a_dimension_may_have_almost_the_name_of_a_field() -> None:
    meters = {"m": meter_of("m", ("time_stamp", "string"))}
    ((_, df),) = parse(line(time_stamp="x", timestamp=...).encode(), meters).events
    assert df["time_stamp"].to_list() == ["x"]


def test_blank_lines_keep_no_others_from_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_module, "parse_by_line", lambda *_: pytest.fail("the careful way was taken"))
    parsed = parse(f"\n{line()}\n\n\n{line()}\n \n{line()}".encode(), METERS)
    assert parsed.events[0][1][LINE].to_list() == [1, 4, 6]
    assert parse(b"\n\n", METERS) == Parsed([], [])


undeclared = st.tuples(
    st.sampled_from(["trace", "n", "on", "region", "a.b"]),
    st.sampled_from(
        ['"t"', '""', "1", "1.10", "-0", "1e999", "true", "false", "null", '":"', '"é"', '"n":', "{}"]
    ),
)
flat_events = st.builds(
    lambda meter, said: (
        f'{{"meter":"{meter}","subject":"s","quantity":1,"metadata":{{'
        + ", ".join(f'"{name}": {value}' for name, value in said)
        + "}}"
    ),
    st.sampled_from(["other", "bare"]),
    st.lists(undeclared, max_size=4),
)


@settings(max_examples=300)
@given(
    st.lists(flat_events, min_size=1, max_size=4).map("\n".join),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from('{}[]":,0.eE+-\\ \n\t\x00n')), max_size=1),
)
def test_every_way_reads_undeclared_metadata_alike(text: str, changes: list[tuple[int, str]]) -> None:
    for place, character in changes:
        text = text[:place] + character + text[place + 1 :]
    assert_every_way_gives_the_same(text.encode().rstrip(b"\n"))


def test_a_meter_that_only_late_lines_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.land.parse.by_column.START_BYTES", 100)
    lines = [line(meter="bare")] * 3 + [line({"region": "eu"}, meter="other")]
    found = parse_by_column("\n".join(lines).encode(), METERS)
    assert found is not None
    assert_same(found, parse_by_line("\n".join(lines).encode(), METERS))


def test_one_bad_line_keeps_few_others_from_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(lines: bytes, meters: Any) -> Parsed:
        seen.append(lines.count(b"\n") + 1)
        return parse_by_line(lines, meters)

    monkeypatch.setattr(parse_module, "parse_by_line", counted)
    lines = [line(idempotency_key=f"k{number}") for number in range(1000)]
    lines[700] = line(quantity="many")
    found = parse("\n".join(lines).encode(), METERS)
    assert [(said.line, said.reason) for said in found.rejected] == [(700, "quantity_invalid")]
    ((_, df),) = found.events
    assert df[LINE].to_list() == [number for number in range(1000) if number != 700]
    assert sum(seen) <= 2


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]":,0123456789.eE+-ntrufalsm\\ \n\t', max_size=80).map(str.encode)
)
def test_any_bytes_are_parsed_or_rejected(lines: bytes) -> None:
    exact = parse_by_line(lines, METERS)
    assert_every_way_gives_the_same(lines)
    found = len(exact.rejected) + sum(df.height for _, df in exact.events)
    assert found == sum(1 for text in lines.split(b"\n") if text.strip())
