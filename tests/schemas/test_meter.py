"""Every rule of a meter's definition, accepted and refused; which changes are allowed; its name in paths."""

import json
from typing import Any
from urllib.parse import unquote

import msgspec
import polars as pl
import pytest

from schemas.columns import RESERVED_NAMES
from schemas.errors import BadInputError, RefusedError
from schemas.meter import AGGREGATIONS, Meter, encode_name, parse_meter
from schemas.meter_changes import check_change

WHERE = "active_users.json"
# The body of Open Spanner's POST /v1/meters, as the contract quotes it.
ACTIVE_USERS = b"""
{"name": "active_users", "description": "Meaningful user activity", "unit": "user",
 "aggregation": "sum", "event_retention_days": 180,
 "dimensions": [{"name": "plan", "type": "string"}, {"name": "workspace", "type": "string"},
                {"name": "role", "type": "string"}, {"name": "source", "type": "string"}]}
"""


def parse(**fields: Any) -> Meter:
    return parse_meter(json.dumps({"name": "m", "unit": "u"} | fields).encode(), WHERE)


def parse_dimension(**fields: Any) -> Meter:
    return parse(dimensions=[{"name": "plan", "type": "string"} | fields])


def refusal(body: bytes) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        parse_meter(body, WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    return caught.value


def refusal_of(**fields: Any) -> BadInputError:
    return refusal(json.dumps({"name": "m", "unit": "u"} | fields).encode())


def refusal_of_dimension(**fields: Any) -> BadInputError:
    return refusal_of(dimensions=[{"name": "plan", "type": "string"} | fields])


def test_the_body_of_open_spanner_is_taken_unchanged() -> None:
    meter = parse_meter(ACTIVE_USERS, WHERE)
    assert (meter.name, meter.unit, meter.aggregation) == ("active_users", "user", "sum")
    assert (meter.description, meter.event_retention_days) == ("Meaningful user activity", 180)
    assert meter.dimension_names == ["plan", "workspace", "role", "source"]
    assert all(dimension.required and dimension.needs_value for dimension in meter.dimensions)


def test_what_is_stored_is_a_definition_again() -> None:
    meter = parse_meter(ACTIVE_USERS, WHERE)
    assert parse_meter(meter.to_json(), WHERE) == meter


def test_defaults() -> None:
    assert parse() == Meter(
        name="m", unit="u", description=None, aggregation="sum", event_retention_days=90, dimensions=()
    )


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "=", "a b", "Nutzer:innen", "日本", "007", "2026-01-01", "%2F", "a" * 240]
)
def test_a_name_is_free_text(name: str) -> None:
    assert parse(name=name).name == name


def test_name_and_unit_are_trimmed() -> None:
    meter = parse(name=" \t m\n", unit="  u ")
    assert (meter.name, meter.unit) == ("m", "u")


@pytest.mark.parametrize("field", ["name", "unit"])
@pytest.mark.parametrize("text", ["", " \t\n"])
def test_an_empty_text_is_refused(field: str, text: str) -> None:
    error = refusal_of(**{field: text})
    assert (error.what, error.expected, error.found) == (f"{field} is empty", f"a {field}", "no text")


@pytest.mark.parametrize("field", ["name", "unit"])
def test_a_missing_field_is_refused(field: str) -> None:
    body = {"name": "m", "unit": "u"}
    del body[field]
    assert f"missing required field `{field}`" in refusal(json.dumps(body).encode()).what


@pytest.mark.parametrize("name", ["a" * 241, "/" * 81])
def test_a_name_too_long_for_a_path_is_refused(name: str) -> None:
    error = refusal_of(name=name)
    assert error.what == "name is too long for a path"
    assert "240 bytes" in error.expected
    assert error.found in {"241 bytes", "243 bytes"}


@pytest.mark.parametrize("aggregation", ["sum", "count", "avg", "min", "max", "first", "last", "rate"])
def test_each_aggregation_is_taken(aggregation: str) -> None:
    assert parse(aggregation=aggregation).aggregation == aggregation
    assert aggregation in AGGREGATIONS


def test_unique_count_is_taken() -> None:
    meter = parse(aggregation="unique_count", unique="user", dimensions=[{"name": "user", "type": "string"}])
    assert (meter.unique, meter.needs_usage, meter.needs_quantity) == ("user", True, False)


@pytest.mark.parametrize("aggregation", ["SUM", "median", "", None, 1])
def test_another_aggregation_is_refused(aggregation: object) -> None:
    assert "$.aggregation" in refusal_of(aggregation=aggregation).what


@pytest.mark.parametrize(("given", "kept"), [(0, 90), (1, 1), (90, 90), (3650, 3650)])
def test_retention_is_taken(given: int, kept: int) -> None:
    assert parse(event_retention_days=given).event_retention_days == kept


@pytest.mark.parametrize("days", [-1, 3651])
def test_retention_out_of_range_is_refused(days: int) -> None:
    error = refusal_of(event_retention_days=days)
    assert error.what == "event_retention_days is out of range"
    assert (error.expected, error.found) == ("1 to 3650, or 0 for 90", str(days))


@pytest.mark.parametrize("days", ["90", 1.5, None, True])
def test_retention_of_another_type_is_refused(days: object) -> None:
    assert "$.event_retention_days" in refusal_of(event_retention_days=days).what


@pytest.mark.parametrize("name", ["a", "A-Z_9", "service.tier", "a.b.c", "-", "0"])
def test_a_dimension_name_is_taken(name: str) -> None:
    assert parse_dimension(name=name).dimension_names == [name]


@pytest.mark.parametrize("name", ["", "a b", ".a", "a.", "a..b", "ä", "a/b", " a", "a\n"])
def test_a_dimension_name_of_other_characters_is_refused(name: str) -> None:
    error = refusal_of_dimension(name=name)
    assert (error.what, error.found) == ("dimension name is not allowed", repr(name))
    assert "letters, digits" in error.expected


@pytest.mark.parametrize("name", [*sorted(RESERVED_NAMES), "Quantity", "METER"])
def test_a_dimension_named_like_a_column_is_refused(name: str) -> None:
    error = refusal_of_dimension(name=name)
    assert error.what == f"dimension name {name!r} is reserved"
    assert error.found == repr(name)
    # The error lists every reserved name.
    assert error.expected == f"none of {', '.join(sorted(RESERVED_NAMES))}"


def test_the_columns_of_the_contract_are_reserved() -> None:
    event = {"idempotency_key", "subject", "quantity", "timestamp", "received_at", "metadata"}
    aggregate = {"events", "quantity_sum", "quantity_min", "quantity_max", "quantity_first", "first_at"}
    aggregate |= {"quantity_last", "last_at", "dimension", "value", "subjects"}
    assert event | aggregate | {"meter", "date"} <= RESERVED_NAMES
    assert "subject.id" not in RESERVED_NAMES


def test_a_dimension_declared_twice_is_refused() -> None:
    dimension = {"name": "plan", "type": "string"}
    assert refusal_of(dimensions=[dimension, dimension]).what == "dimension 'plan' is declared twice"


@pytest.mark.parametrize(
    ("said", "dtype"), [("string", pl.String()), ("number", pl.Float64()), ("boolean", pl.Boolean())]
)
def test_a_dimension_type_is_taken(said: str, dtype: pl.DataType) -> None:
    assert parse_dimension(type=said).dimension_dtypes == {"plan": dtype}


@pytest.mark.parametrize("said", ["text", "String", "", None, 1])
def test_another_dimension_type_is_refused(said: object) -> None:
    assert "$.dimensions[0].type" in refusal_of_dimension(type=said).what


@pytest.mark.parametrize(
    ("fields", "needs_value"),
    [
        ({}, True),
        ({"required": True}, True),
        ({"required": False}, False),
        ({"deprecated": True}, False),
        ({"deprecated": True, "required": True}, False),
    ],
)
def test_a_dimension_is_required_unless_it_says_otherwise(fields: dict[str, bool], needs_value: bool) -> None:
    assert parse_dimension(**fields).dimensions[0].needs_value is needs_value


def test_a_dimension_may_be_described() -> None:
    dimension = parse_dimension(display_name="Plan", description="What they pay for").dimensions[0]
    assert (dimension.display_name, dimension.description) == ("Plan", "What they pay for")


@pytest.mark.parametrize("required", ["true", 1, None])
def test_required_is_strictly_boolean(required: object) -> None:
    assert "$.dimensions[0].required" in refusal_of_dimension(required=required).what


def test_a_typo_in_a_field_name_is_refused() -> None:
    error = refusal_of(retention=5)
    assert "`retention`" in error.what
    assert "event_retention_days" in error.hint
    error = refusal_of_dimension(require=True)
    assert "`require`" in error.what
    assert "required" in error.hint
    assert "event_retention_days" not in error.hint


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nope", b"[]", b'"m"', b"1", b"null", b"{}x", b'{"name":"\xff","unit":"u"}', b"[" * 100_000],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refusal(body).what.startswith("not a meter definition")


OLD = parse(
    dimensions=[
        {"name": "plan", "type": "string"},
        {"name": "seats", "type": "number", "required": False},
        {"name": "old", "type": "string", "deprecated": True},
    ]
)


def changed(name: str, **fields: Any) -> Meter:
    dimensions = tuple(msgspec.structs.replace(d, **fields) if d.name == name else d for d in OLD.dimensions)
    return msgspec.structs.replace(OLD, dimensions=dimensions)


def with_dimension(**fields: Any) -> Meter:
    added = parse_dimension(name="region", **fields).dimensions
    return msgspec.structs.replace(OLD, dimensions=OLD.dimensions + added)


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        msgspec.structs.replace(OLD, description="new"),
        msgspec.structs.replace(OLD, event_retention_days=1),
        msgspec.structs.replace(OLD, dimensions=OLD.dimensions[::-1]),
        with_dimension(required=False),
        with_dimension(deprecated=True),
        changed("plan", required=False),
        changed("plan", deprecated=True),
        changed("plan", display_name="Plan", description="What they pay for"),
    ],
)
def test_an_allowed_change(new: Meter) -> None:
    check_change(OLD, new)


@pytest.mark.parametrize(
    ("new", "what", "expected", "found"),
    [
        (msgspec.structs.replace(OLD, unit="v"), "unit", "u", "v"),
        (msgspec.structs.replace(OLD, aggregation="max"), "aggregation", "sum", "max"),
        (msgspec.structs.replace(OLD, dimensions=OLD.dimensions[1:]), "dimension plan", "stay", "removed"),
        (changed("plan", type="number"), "type of dimension plan", "string", "number"),
        (changed("seats", required=True), "dimension seats", "stay optional", "required"),
        (changed("old", deprecated=False), "dimension old", "stay optional", "required"),
        (with_dimension(), "new dimension region", "optional", "required"),
    ],
)
def test_a_refused_change(new: Meter, what: str, expected: str, found: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_change(OLD, new)
    assert what in caught.value.what
    assert expected in caught.value.expected
    assert found in caught.value.found
    assert "define a new meter" in caught.value.hint
    assert caught.value.exit_code == 1


def test_the_version_changes_exactly_when_the_numbers_may() -> None:
    same = [
        msgspec.structs.replace(OLD, description="new"),
        msgspec.structs.replace(OLD, event_retention_days=1),
        changed("plan", display_name="Plan"),
    ]
    other = [
        msgspec.structs.replace(OLD, name="n"),
        msgspec.structs.replace(OLD, unit="v"),
        msgspec.structs.replace(OLD, aggregation="max"),
        msgspec.structs.replace(OLD, dimensions=OLD.dimensions[::-1]),
        with_dimension(required=False),
        changed("plan", required=False),
    ]
    assert {meter.version for meter in same} == {OLD.version}
    assert len({meter.version for meter in [OLD, *other]}) == len(other) + 1


def test_the_version_is_the_same_in_every_release() -> None:
    """Else every partition of every lake would be recomputed after an upgrade."""
    assert parse_meter(ACTIVE_USERS, WHERE).version == "6310a9d72f02"


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("active_users", "active_users"),
        ("a b", "a b"),
        ("Nutzer ä 日本", "Nutzer ä 日本"),
        ("a/b", "a%2Fb"),
        ("a=b", "a%3Db"),
        ("..", "%2E."),
        (".", "%2E"),
        (".hidden", "%2Ehidden"),
        ("a.b", "a.b"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("\x00\x1f\x7f\n", "%00%1F%7F%0A"),
        ("\"#%'*/:=?\\{[]^", "%22%23%25%27%2A%2F%3A%3D%3F%5C%7B%5B%5D%5E"),
        ("}<>|;~!$&()+,-@_`", "}<>|;~!$&()+,-@_`"),
        ("007", "007"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_the_name_in_a_path(name: str, encoded: str) -> None:
    assert encode_name(name) == encoded
    assert unquote(encoded) == name
