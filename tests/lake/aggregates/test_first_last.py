"""Packed or not, the first and the last event of a group are the same."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lake.aggregates.first_last import ANY, pack
from lake.aggregates.measures import Partials, measure
from schemas.columns import INSTANT, QUANTITY

SCHEMA = {"subject": pl.String(), "timestamp": INSTANT, "received_at": INSTANT, "quantity": QUANTITY}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
BILLIONTH = Decimal("0.000000001")

moments = st.one_of(
    st.integers(0, 3), st.integers(0, 86_399_999_999), st.integers(0, 253_402_300_799_999_999)
)
delays = st.one_of(
    st.just(0), st.integers(-3, 3), st.integers(-86_400_000_000, 10**12), st.integers(-(10**17), 10**17)
)
quantities = st.one_of(st.integers(0, 2), st.integers(0, 10**12), st.integers(-(10**37), 10**37))
groups = st.sampled_from(["a", "a", "b"])


def micro(number: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=number)


def frame(rows: list[tuple[str, int, int, int]]) -> pl.DataFrame:
    """Events by subject, microseconds since 1970, microseconds of delay, and billionths."""
    said: list[dict[str, Any]] = []
    for subject, at, delay, quantity in rows:
        received_at = min(max(at + delay, 0), 253_402_300_799_999_999)
        said.append(
            {
                "subject": subject,
                "timestamp": micro(at),
                "received_at": micro(received_at),
                "quantity": Decimal(f"{quantity}E-9"),
            }
        )
    return pl.DataFrame(said, schema=SCHEMA)


@given(st.lists(st.tuples(groups, moments, delays, quantities), min_size=1, max_size=12))
def test_packed_or_not_the_measures_are_the_same(rows: list[tuple[str, int, int, int]]) -> None:
    df = frame(rows)
    packed = pack(df.lazy())
    spans = []
    for part in ("timestamp", "late", "quantity"):
        lateness = df["received_at"].to_physical() - df["timestamp"].to_physical()
        numbers = lateness if part == "late" else df[part].to_physical()
        spans.append((max(numbers.to_list()) - min(numbers.to_list())).bit_length())
    assert (packed is None) == (sum(spans) > 126)
    if packed:
        assert packed.largest_quantity >= max(map(abs, df["quantity"].to_physical()))
    plain = measure(df.lazy(), ["subject"]).sort("subject").collect()
    found = measure(df.lazy(), ["subject"], Partials(packed or ANY)).sort("subject").collect()
    assert found.equals(plain)
    assert found.schema == plain.schema


def test_quantities_of_38_digits_are_packed_or_not_but_never_an_error() -> None:
    for digits in (37, 38):
        df = frame([("a", 5, 2, 1), ("a", 5, 2, 10**digits - 1)])
        packed = pack(df.lazy())
        assert (packed is None) == (digits == 38)
        found = measure(
            df.select(pl.all().sort_by("quantity").slice(0, 1)).lazy(), [], Partials(packed or ANY)
        )
        assert found.collect()["quantity_first"].to_list() == [BILLIONTH]


def test_what_is_absent_or_insane_is_not_packed() -> None:
    df = frame([("a", 1, 1, 1)])
    assert pack(df.lazy()) is not None
    assert pack(df.clear().lazy()) is None
    for name in ("timestamp", "received_at", "quantity"):
        assert pack(df.with_columns(pl.lit(None, SCHEMA[name]).alias(name)).lazy()) is None
    for number in (-(2**63), 2**63 - 1):
        far = df.with_columns(pl.lit(number, pl.Int64).cast(INSTANT).alias("received_at"))
        assert pack(pl.concat([df, far]).lazy()) is None


def test_rows_that_do_not_count_may_only_widen_the_range() -> None:
    df = frame([("a", 5, 2, 7), ("a", 5, 2, 9), ("b", 4, 0, 1)])
    missing = df.with_columns(pl.lit(None, QUANTITY).alias("quantity"))
    packed = pack(pl.concat([df, missing, frame([("x", 0, 10**9, 10**15)])]).lazy())
    assert packed is not None
    found = measure(df.lazy(), [], Partials(packed)).collect()
    assert found.equals(measure(df.lazy(), []).collect())
    assert found["quantity_first"].to_list() == [BILLIONTH]
    assert found["quantity_last"].to_list() == [9 * BILLIONTH]
