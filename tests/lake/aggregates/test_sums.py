"""Sums are those of Python's integers or missing, on every engine, for one group and for many."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.aggregates.sums import EXACT, check_sums, exact_count, exact_sum, exact_totals, small_count, sums_of
from schemas.columns import QUANTITY
from schemas.errors import SumTooLargeError

Engine = Literal["in-memory", "streaming"]
ENGINES: list[Engine] = ["in-memory", "streaming"]
# In billionths; a decimal(38, 9) has less than 10^38 of them, and its 128 bits wrap at 2^127.
LIMIT, WRAPS = 10**38, 2**127
near = st.integers(-3, 3)
quantities = st.one_of(
    st.integers(-2, 2),
    st.integers(1 - LIMIT, LIMIT - 1),
    near.map(lambda n: LIMIT - 4 + n),
    near.map(lambda n: LIMIT // 2 + n),
    near.map(lambda n: WRAPS // 2 + n),
    near.map(lambda n: WRAPS // 4 + n),
    st.integers(0, 9).map(lambda n: n * 10**37),
    st.just(4 - LIMIT),
)
rows = st.lists(st.tuples(st.integers(0, 3), quantities), max_size=16)


def frame(rows: list[tuple[int, int]]) -> pl.LazyFrame:
    """Groups and billionths."""
    df = pl.DataFrame(rows, schema={"group": pl.Int64, "quantity": pl.Int128}, orient="row")
    return df.lazy().with_columns(pl.col("quantity").reinterpret(dtype=QUANTITY))


def billionths(frame: pl.LazyFrame, engine: Engine) -> list[tuple[int, int | None]]:
    return frame.with_columns(pl.col("quantity").to_physical()).sort("group").collect(engine=engine).rows()


def expected(rows: list[tuple[int, int]]) -> list[tuple[int, int | None]]:
    sums = {group: sum(number for of, number in rows if of == group) for group, _ in sorted(rows)}
    return [(group, total if abs(total) < LIMIT else None) for group, total in sums.items()]


@pytest.mark.parametrize("engine", ENGINES)
@given(rows)
def test_a_sum_by_group_is_exact_or_missing(engine: Engine, rows: list[tuple[int, int]]) -> None:
    assert billionths(frame(rows).group_by("group").agg(exact_sum("quantity")), engine) == expected(rows)


@pytest.mark.parametrize("engine", ENGINES)
@given(rows)
def test_sums_that_suit_their_events_are_exact_or_missing(
    engine: Engine, rows: list[tuple[int, int]]
) -> None:
    sums = sums_of(len(rows), max((abs(number) for _, number in rows), default=0))
    found = frame(rows).group_by("group").agg(sums.quantities("quantity"))
    assert billionths(found, engine) == expected(rows)


def test_sums_are_checked_where_the_largest_might_not_fit() -> None:
    assert sums_of(10**9, 10**29 - 1) is not EXACT
    assert sums_of(10**9, 10**29) is EXACT
    assert sums_of(1, None) is EXACT


@pytest.mark.parametrize("engine", ENGINES)
@given(rows)
def test_a_sum_of_all_is_exact_or_missing(engine: Engine, rows: list[tuple[int, int]]) -> None:
    one = [(0, number) for _, number in rows]
    found = frame(one).select(pl.lit(0).alias("group"), exact_sum("quantity"))
    assert billionths(found, engine) == (expected(one) or [(0, 0)])


@pytest.mark.parametrize("engine", ENGINES)
@given(rows)
def test_sums_of_sums_are_those_of_all_unless_one_is_missing(
    engine: Engine, rows: list[tuple[int, int]]
) -> None:
    by_group = frame(rows).group_by("group").agg(exact_sum("quantity"))
    found = by_group.select(pl.lit(0).alias("group"), exact_sum("quantity"))
    total = sum(number for _, number in rows)
    known = abs(total) < LIMIT and all(part is not None for _, part in expected(rows))
    assert billionths(found, engine) == [(0, total if known else None)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [2, 4, 5_000, 200_000])
def test_many_of_the_greatest_never_wrap_into_a_number(engine: Engine, count: int) -> None:
    found = frame([(n % 2, LIMIT - 1) for n in range(2 * count)]).group_by("group").agg(exact_sum("quantity"))
    assert billionths(found, engine) == [(0, None), (1, None)]


@pytest.mark.parametrize("engine", ENGINES)
@given(st.lists(st.one_of(st.integers(0, 3), st.integers(2**62 - 2, 2**63 - 1)), max_size=9))
def test_counts_are_exact_or_missing(engine: Engine, counts: list[int]) -> None:
    df = pl.DataFrame(
        {"group": [0] * len(counts), "events": counts}, schema={"group": pl.Int64, "events": pl.Int64}
    )
    total = sum(counts)
    right = total if total < 2**63 else None
    found = df.lazy().select(exact_count("events")).collect(engine=engine)
    assert found.schema == {"events": pl.Int64}
    assert found.item() == right
    grouped = df.lazy().group_by("group").agg(exact_count("events")).collect(engine=engine)
    assert grouped["events"].to_list() == ([right] if counts else [])


@given(rows)
def test_totals_have_any_size(rows: list[tuple[int, int]]) -> None:
    found = exact_totals(frame(rows), ["quantity", "group"])
    assert found.rows == len(rows)
    assert (
        found.sums["quantity"].as_integer_ratio()
        == Decimal(
            (int(sum(n for _, n in rows) < 0), tuple(map(int, str(abs(sum(n for _, n in rows))))), -9)
        ).as_integer_ratio()
    )
    assert found.sums["group"] == sum(group for group, _ in rows)


def test_a_missing_sum_is_named_by_its_keys_and_what_it_is_of() -> None:
    df = (
        frame([(n, LIMIT - 1) for n in range(5) for _ in range(2)])
        .group_by("group")
        .agg(exact_sum("quantity"))
    )
    found = df.sort("group").select("group", pl.lit(1).alias("events"), quantity_sum="quantity").collect()
    with pytest.raises(SumTooLargeError, match=r"meter 'm': a sum .* group 0; group 1; group 2 and 2 others"):
        check_sums(found, "meter 'm'", ["group"])


@pytest.mark.parametrize("engine", ENGINES)
def test_small_counts_are_exact_below_2_to_the_53_and_missing_from_there_on(engine: Engine) -> None:
    limit = 2**53
    groups = [[1, 2], [limit - 2, 1], [limit - 1, 1], [limit + 1, 1], [2**62, 2**62, 2**62], [1, None]]
    rows = [(number, count) for number, counts in enumerate(groups) for count in counts]
    df = pl.DataFrame(rows, schema={"group": pl.Int64, "events": pl.Int64}, orient="row")
    counted = df.lazy().group_by("group").agg(small_count("events")).sort("group").collect(engine=engine)
    assert counted["events"].to_list() == [3, limit - 1, None, None, None, None]
    assert counted.schema["events"] == pl.Int64
