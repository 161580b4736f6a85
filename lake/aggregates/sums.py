"""Sums that are exact or null: the only way in which quantities and counts are added up.

Polars' in-memory engine lets sums of 128 bits wrap silently while it groups, and both engines those of 64 bits.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from schemas.columns import QUANTITY
from schemas.errors import SumTooLargeError

# The largest decimal(38, 9), in billionths.
_GREATEST = 10**38 - 1
# A wrapped sum is off by 2^128 or more; a sum of doubles, of as many rows as a lake can have, by much less.
_FAR = 2.0**126
_HIGH = 2**64
# How many groups an error names.
_MAX_NAMED = 3
# The measures that are sums.
SUMS = ("events", "quantity_sum")


class Totals(NamedTuple):
    """How many rows there are, and the exact sums of their columns by name."""

    rows: int
    sums: dict[str, Decimal]


def exact_sum(column: str) -> pl.Expr:
    """Return the sum of a column of quantities as decimal(38, 9), by group or of all; null if it has more than 38 digits.

    Null too if one of the quantities is null, since it is such a sum itself. The same on every engine.
    """
    number = pl.col(column).to_physical()
    total = number.sum()
    near = number.cast(pl.Float64).fill_null(float("inf")).sum()
    is_right = total.is_between(_wide(-_GREATEST), _wide(_GREATEST)) & (
        (total.cast(pl.Float64) - near).abs() < _FAR
    )
    return pl.when(is_right).then(total).reinterpret(dtype=QUANTITY).alias(column)


def exact_count(column: str) -> pl.Expr:
    """Return the sum of a column of counts as a bigint; null if it has more than 63 bits, or one of the counts is null."""
    total = pl.col(column).cast(pl.Int128).fill_null(_wide(_HIGH)).sum()
    return total.cast(pl.Int64, strict=False).alias(column)


def small_count(column: str) -> pl.Expr:
    """Return the sum of a column of counts as a bigint, by group or of all; null from 2^53 on, or if one of the counts is null.

    Faster than `exact_count`.
    """
    total = pl.col(column).cast(pl.Float64).fill_null(float("inf")).sum()
    # Doubles represent every integer below it, so every partial sum was exact.
    return pl.when(total < 2.0**53).then(total).cast(pl.Int64).alias(column)


class Sums(NamedTuple):
    """Functions from a column's name to the sum of its quantities, and of its counts."""

    quantities: Callable[[str], pl.Expr]
    counts: Callable[[str], pl.Expr]


# For any rows; checking each sum takes a tenth of the time of aggregating a partition.
EXACT = Sums(exact_sum, exact_count)
_UNCHECKED = Sums(lambda column: pl.col(column).sum(), lambda column: pl.col(column).sum())


def sums_of(rows: int, largest: int | None) -> Sums:
    """Return how to add up `rows` events, whose quantities are at most `largest` billionths; None if unknown.

    Where the sum of all would fit a quantity, no sum of some of them needs a check.
    """
    return EXACT if largest is None or rows * largest > _GREATEST else _UNCHECKED


def exact_totals(rows: pl.LazyFrame, columns: Iterable[str]) -> Totals:
    """Return the number of rows, and the sums of columns of quantities, counts or their text, of any size; null counts as 0."""
    names = list(columns)
    numbers = rows.with_columns(pl.col(name).cast(QUANTITY).fill_null(0) for name in names)
    totals = numbers.select(pl.len().alias("#rows"), *map(exact_sum, names)).collect(engine="streaming")
    sums: dict[str, Decimal] = {name: totals[name].item() for name in names}
    too_large = [name for name in names if totals[name].null_count()]
    return Totals(totals["#rows"].item(), sums | _sums_of_any_size(numbers, too_large))


def has_no_sum(columns: Iterable[str]) -> pl.Expr:
    """Return whether one of these columns is null in a row, since its sum is too large."""
    return pl.any_horizontal(pl.col(name).is_null() for name in columns)


def lacks_quantity() -> pl.Expr:
    """Return whether a row lacks its quantity, or with events one of their sums, since a sum is too large."""
    return has_no_sum(["quantity", "events"]) | ((pl.col("events") != 0) & has_no_sum(SUMS))


def check_sums(
    rows: pl.DataFrame, where: str, keys: Sequence[str], lacking: pl.Expr | None = None
) -> pl.DataFrame:
    """Return the rows. Raises SumTooLargeError if one is `lacking` a sum (default of `SUMS`), naming `where` and its keys."""
    without_sum = rows.filter(has_no_sum(SUMS) if lacking is None else lacking)
    if without_sum.height:
        raise sum_too_large(where, without_sum.select(keys).head(_MAX_NAMED).to_dicts(), without_sum.height)
    return rows


def sum_too_large(
    where: str, groups: Sequence[Mapping[str, Any]], count: int | None = None
) -> SumTooLargeError:
    """Return the error for groups whose sum is too large; `count` is how many they are, if more than `groups`."""
    named = "; ".join(filter(None, map(_group, groups[:_MAX_NAMED])))
    more = (count or len(groups)) - _MAX_NAMED
    return SumTooLargeError(
        "a sum is too large",
        where=where,
        expected="less than 10^29, which a decimal(38, 9) holds",
        found=f"more: {named or 'the sum of all'}{f' and {more} others' if more > 0 else ''}",
        hint="it includes quantities of 10^20 and more, which an earlier version accepted: ask for a shorter range or other "
        "groups; Lake.events has those of its events that are not sealed",
    )


def _sums_of_any_size(numbers: pl.LazyFrame, names: Sequence[str]) -> dict[str, Decimal]:
    """Return sums of quantities of any size: each is added up in two halves whose sums fit 128 bits."""
    if not names:
        return {}
    parts = []
    for name in names:
        number = pl.col(name).to_physical()
        high = number // _wide(_HIGH)
        parts += [high.sum().alias(f"high {name}"), (number - high * _wide(_HIGH)).sum().alias(f"low {name}")]
    halves = numbers.select(parts).collect(engine="streaming").row(0, named=True)
    return {name: _decimal(halves[f"high {name}"] * _HIGH + halves[f"low {name}"]) for name in names}


def _group(keys: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_key(value)}" for name, value in keys.items())


def _key(value: object) -> str:
    if value is None:
        return "null"
    return value.isoformat() if isinstance(value, dt.date) else repr(value)


def _decimal(billionths: int) -> Decimal:
    # Not by arithmetic, which would round to the context's digits.
    digits = tuple(map(int, str(abs(billionths))))
    return Decimal((int(billionths < 0), digits, -9))


def _wide(number: int) -> pl.Expr:
    return pl.lit(number, pl.Int128)
