"""The filter language: what it accepts, what it means, and how it tells what is wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.query.filter_parser import MAX_DEPTH, parse_filter
from schemas.columns import QUANTITY
from schemas.errors import BadInputError

FIELDS: dict[str, pl.DataType] = {
    "subject": pl.String(),
    "plan": pl.String(),
    "service.tier": pl.String(),
    "2fa-on": pl.Boolean(),
    "seats": pl.Float64(),
    "in": pl.String(),
    "quantity": QUANTITY,
}
ROWS = pl.DataFrame(
    [
        ("a", "pro", "gold", True, 1.0, "x", Decimal("482.7")),
        ("b", "it's", None, False, -0.25, None, Decimal("0.000000001")),
        ("c", None, "Gold", None, None, "y", Decimal("12345678901234567890123456789.123456789")),
        ("d", 'a "q" \\ \n é', "", True, 1e6, "z", Decimal(0)),
    ],
    schema=FIELDS,
    orient="row",
)


def kept(text: str) -> str:
    """The subjects of the rows that a filter keeps."""
    condition = parse_filter(text, FIELDS)
    return "".join(ROWS.filter(condition.expression)["subject"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plan = 'pro'", "a"),
        ('plan == "pro"', "a"),
        ("plan='it\\'s'", "b"),
        ('plan = "it\'s"', "b"),
        (r"plan = 'a \"q\" \\ \n \u00e9'", "d"),
        ("plan != 'pro'", "bd"),
        ("not plan = 'pro'", "bd"),
        ("plan is null", "c"),
        ("plan IS NOT NULL", "abd"),
        ("plan = 'pro' or plan is null", "ac"),
        ("service.tier < 'a'", "cd"),
        ("service.tier = ''", "d"),
        ("2fa-on = true", "ad"),
        ("2fa-on != TRUE", "b"),
        ("2fa-on in (true, false)", "abd"),
        ("seats>=-.25 and seats<1", "b"),
        ("seats = 1.", "a"),
        ("seats in (1e0, +1E6)", "ad"),
        ("seats not in (1)", "bd"),
        ("`in` in ('x', 'y')", "ac"),
        ("subject in ('a', 'b', 'c') and not (seats > 0 or plan = 'it\\'s')", ""),
        ("not (seats > 0 or plan = 'it\\'s') or subject = 'c'", "c"),
        ("subject = 'a' or subject = 'b' and seats = 5", "a"),
        ("(subject = 'a' or subject = 'b') and seats = 5", ""),
        ("not not subject = 'a'", "a"),
        ("quantity = 482.70", "a"),
        ("quantity <= 1e-9", "bd"),
        ("quantity = 12345678901234567890123456789.123456789", "c"),
        ("quantity > 12345678901234567890123456789.123456788", "c"),
        ("  subject\n=\t'a'  ", "a"),
    ],
)
def test_a_filter_keeps_what_it_says(text: str, expected: str) -> None:
    assert kept(text) == expected


def test_a_filter_names_the_fields_it_looks_at() -> None:
    assert parse_filter("plan = 'x' or (seats is null and not plan = 'y')", FIELDS).fields == {
        "plan",
        "seats",
    }


@pytest.mark.parametrize(
    ("text", "at", "expected", "found"),
    [
        ("", 1, "a field", "its end"),
        ("plan", 5, "a comparison", "its end"),
        ("plan = ", 7, "text in quotes, as plan is", "its end"),
        ("plan = pro", 8, "text in quotes, as plan is", "'pro'"),
        ("plan = 1", 8, "text in quotes, as plan is", "'1'"),
        ("plan = null", 8, "for no value at all write: plan is null", "'null'"),
        ("plan in ('a', null)", 15, "plan is null", "'null'"),
        ("region = 'x'", 1, "one of subject, plan, service.tier, 2fa-on, seats, in, quantity", "'region'"),
        ("Plan = 'x'", 1, "one of subject", "'Plan'"),
        ("in = 'x'", 1, "a field", "'in'"),
        ("1 = 1", 1, "a field", "'1'"),
        ("plan = 'a' plan = 'b'", 12, "and, or, or the end", "'plan'"),
        ("(plan = 'a'", 12, "a closing parenthesis", "its end"),
        ("plan = 'a')", 11, "and, or, or the end", "')'"),
        ("plan in ()", 10, "text in quotes", "')'"),
        ("plan in 'a'", 9, "values in parentheses", "\"'a'\""),
        ("plan in ('a' 'b')", 14, "a comma or a closing parenthesis", "\"'b'\""),
        ("plan not = 'a'", 10, "in", "'='"),
        ("plan is 'a'", 9, "null", "\"'a'\""),
        ("plan = 'a", 8, "a closing quote", '"\'a"'),
        ("plan = 'a\\q'", 10, "the escapes", r"'\\q'"),
        ("plan = '\\ud800'", 9, "the escapes", "ud800"),
        ("plan ~ 'a'", 6, "a field, a value or an operator", "\"~ 'a'\""),
        ("2fa-on > true", 8, "true and false have no order", "'>'"),
        ("2fa-on = 1", 10, "true or false", "'1'"),
        ("seats = 'x'", 9, "a number, as seats is", "\"'x'\""),
        ("seats = nan", 9, "a number, as seats is", "'nan'"),
        ("seats = 1e999", 9, "a finite number", "'1e999'"),
        ("quantity > 1e29", 12, "at most 29 digits before the point and 9 after it", "'1e29'"),
        ("quantity > 0.0000000001", 12, "9 after it", "'0.0000000001'"),
        ("quantity > 1e99999999999999999999", 12, "9 after it", "'1e99999999999999999999'"),
        ("__import__('os')", 1, "a field", "'__import__'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, at: int, expected: str, found: str) -> None:
    with pytest.raises(BadInputError, match=f"wrong at character {at}:") as raised:
        parse_filter(text, FIELDS)
    assert expected in raised.value.expected
    assert found in raised.value.found


def test_nesting_has_an_end_and_length_has_none() -> None:
    deep = "(" * (MAX_DEPTH - 1) + "plan = 'pro'" + ")" * (MAX_DEPTH - 1)
    assert kept(deep) == "a"
    for too_deep in (f"({deep})", "not " * 10_000 + "plan = 'pro'", "(" * 10_000):
        with pytest.raises(BadInputError, match="at most 100 nested conditions"):
            parse_filter(too_deep, FIELDS)
    assert kept(" or ".join(["plan = 'pro'"] * 5_000)) == "a"
    assert kept(f"subject in ({', '.join(map(repr, map(str, range(5_000))))}, 'b')") == "b"


@given(st.text(alphabet="plan seats=<>!()'\"\\,notidrul01.-+e`\n", max_size=40))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    try:
        condition = parse_filter(text, FIELDS)
    except BadInputError:
        return
    ROWS.filter(condition.expression)


@given(st.text(max_size=20).filter(lambda text: text.isprintable()))
def test_any_quoted_text_is_found_again(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    condition = parse_filter(f"plan = '{escaped}'", FIELDS)
    found: Any = pl.DataFrame({"plan": [value, f"{value}x"]}).filter(condition.expression)
    assert found["plan"].to_list() == [value]
