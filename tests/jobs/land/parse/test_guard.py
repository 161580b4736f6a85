"""Text that pyarrow's reader would read wrongly, or crash on, is found before it reads it."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.json
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.land.parse.guard import has_spaced_name, is_plain, may_have_null

PLAIN = b'{"meter":"m","quantity":1}'


@pytest.mark.parametrize(
    "text",
    ["1", "-1", "0", "2.5", '"2.5"', '"+2.5"', "123456789012345678", "123456789012345678.123456789", "-0.1"],
)
@pytest.mark.parametrize("colon", [":", ": ", " : ", ":\t"])
def test_short_plain_quantities_are_left_to_pyarrow(text: str, colon: str) -> None:
    for after in ("", " ", ',"subject":"s"'):
        assert is_plain(f'{{"quantity"{colon}{text}{after}}}'.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("1e3", "1E3", '"1e3"', "1.1234567891", "1234567890123456789", '"1234567890123456789"'),
        *("1" * 39, "1" * 60, f'"{"1" * 60}"', "null", "true", "[1]", '{"a":1}', '" 1"', '"x"', "NaN", "- 1"),
    ],
)
@pytest.mark.parametrize("colon", [":", " : ", "\t:\r"])
def test_other_quantities_are_not(text: str, colon: str) -> None:
    odd = f'{{"subject":"s","quantity"{colon}{text},"meter":"m"}}'.encode()
    assert not is_plain(odd)
    assert not is_plain(b"\n".join([PLAIN, odd, PLAIN]))


@given(st.from_regex(r'"?[-+]?[0-9]{0,45}(\.[0-9]{0,45})?([eE][-+]?[0-9]{1,2})?"?', fullmatch=True))
def test_a_quantity_that_passes_is_read_exactly_or_refused(text: str) -> None:
    lines = f'{{"quantity":{text}}}'.encode()
    if not is_plain(lines):
        return
    schema = pa.schema([("quantity", pa.decimal128(38, 9))])
    options = pyarrow.json.ParseOptions(explicit_schema=schema)
    try:
        (found,) = pyarrow.json.read_json(pa.BufferReader(lines), parse_options=options)[
            "quantity"
        ].to_pylist()
    except pa.ArrowException:
        return
    assert found == Decimal(text.strip('"'))


@pytest.mark.parametrize(
    "lines",
    [
        *(b"", b"null", b"1", b'"x"', b"[]", b"\n", b" {}", b"{} ", b"{}\n", b"\n{}", b"{}\n\n{}"),
        *(b"{}\nnull", b"null\n{}", b"{}\nnull\n{}", b"{}\r\n{}", b"{}\n[{}]", b"{}\n {}"),
    ],
)
def test_lines_that_are_no_objects_are_not_plain(lines: bytes) -> None:
    assert not is_plain(lines)


@pytest.mark.parametrize("name", ["qu\\u0061ntity", "\\u0071uantity", "quantit\\u0079", "m\\u0065ter"])
def test_an_escaped_name_hides_nothing(name: str) -> None:
    assert json.loads(f'"{name}"') in ("quantity", "meter")
    assert not is_plain(f'{{"{name}":{"1" * 60}}}'.encode())
    assert not is_plain(f'{{"{name}" : 1}}'.encode())
    # In a value it does no harm.
    assert is_plain(f'{{"subject":"{name}","quantity":1}}'.encode())


@pytest.mark.parametrize("colon", [":", " :", ": ", " : "])
def test_a_null_is_found_but_for_fields_that_are_often_null(colon: str) -> None:
    for name in ("plan", "subject", "quantity", "timestamp2", ""):
        assert may_have_null(f'{{"{name}"{colon}null}}'.encode())
    for name in ("idempotency_key", "timestamp", "received_at"):
        assert not may_have_null(f'{{"{name}"{colon}null}}'.encode())
    assert not may_have_null(b'{"plan":"null"}')


@pytest.mark.parametrize("space", [" ", "\t", "\r", "  \t"])
def test_a_name_with_space_behind_it_is_found(space: str) -> None:
    assert has_spaced_name(f'{{"a":1,"b"{space}:2}}'.encode())
    assert not has_spaced_name(f'{{"a":{space}1,"b":"x{space}:y"}}'.encode())
