"""Quotients are those of exact fractions, rounded half-even once to nine places."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.aggregates.rounding import from_double, quotient

GREATEST = 10**38 - 1
ENGINES: Any = ("streaming", "in-memory")
numbers = st.one_of(st.integers(-GREATEST, GREATEST), st.integers(-100, 100))
divisors = st.one_of(st.integers(1, GREATEST), st.integers(1, 100), st.sampled_from([86_400, 2**63 - 1]))


def billionths(numbers: list[int | None], divisors: list[int | None], engine: Any) -> list[int | None]:
    """The quotients of pairs of numbers, in billionths."""
    schema = {"number": pl.Int128, "by": pl.Int128}
    frame = pl.LazyFrame({"number": numbers, "by": divisors}, schema=schema)
    rounded = quotient(pl.col("number"), pl.col("by")).to_physical()
    return frame.select(rounded).collect(engine=engine).to_series().to_list()


@pytest.mark.parametrize("engine", ENGINES)
@given(pairs=st.lists(st.tuples(numbers, divisors), min_size=1))
def test_a_quotient_is_the_fraction_rounded_half_even(pairs: list[tuple[int, int]], engine: Any) -> None:
    expected = [round(Fraction(number, by)) for number, by in pairs]
    assert billionths([number for number, _ in pairs], [by for _, by in pairs], engine) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_a_half_goes_to_the_even_neighbour_on_both_sides_of_0(engine: Any) -> None:
    assert billionths([1, 3, 5, -1, -3, -5], [2] * 6, engine) == [0, 2, 2, 0, -2, -2]
    assert billionths([GREATEST, -GREATEST], [1, 1], engine) == [GREATEST, -GREATEST]
    assert billionths([GREATEST], [GREATEST - 1], engine) == [1]


@pytest.mark.parametrize("engine", ENGINES)
def test_there_is_no_quotient_of_nothing_nor_by_0(engine: Any) -> None:
    assert billionths([None, 1, 1], [1, None, 0], engine) == [None, None, None]


def test_a_double_is_rounded_half_even_by_its_shortest_text() -> None:
    doubles = [5e-10, 1.5e-9, 2.5e-9, -2.5e-9, 0.1, 1 / 3, 1e20, 1e-300, 2**-10]
    found = pl.DataFrame({"x": doubles}).select(from_double(pl.col("x"))).to_series().to_list()
    with localcontext(prec=60):
        places = Decimal("1e-9")
        assert found == [Decimal(repr(x)).quantize(places, ROUND_HALF_EVEN) for x in doubles]
