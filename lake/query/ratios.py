"""Ratios of exact quantities: decimals of nine places, rounded half-even once."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from lake.aggregates.measures import avg_parts, rate_parts
from lake.aggregates.rounding import quotient
from schemas.columns import QUANTITY
from schemas.meter import Meter

BILLION = 10**9
# Below this, a product and twice its remainder fit 128 bits, whatever the error of a double.
_SAFE = 2.0**125
_WIDE = pl.Int128()


class Fraction(NamedTuple):
    """An exact quantity in billionths: an integer divided by an integer above 0."""

    numerator: pl.Expr
    denominator: pl.Expr

    def named(self, prefix: str) -> tuple[pl.Expr, pl.Expr]:
        """Return both as columns, for `fraction`."""
        return self.numerator.alias(f"#{prefix} numerator"), self.denominator.alias(f"#{prefix} denominator")


def fraction(prefix: str) -> Fraction:
    """Return the columns that `Fraction.named` made."""
    return Fraction(pl.col(f"#{prefix} numerator"), pl.col(f"#{prefix} denominator"))


def exact_quantity(meter: Meter, value: str) -> Fraction:
    """Return the exact quantity of an answer's rows, whose column `value` may be rounded.

    Rows of `avg` need the measure `quantity_sum`. For filled rows, which have no events, `value` is exact.
    """
    one = pl.lit(1, _WIDE)
    if value != "quantity":
        return Fraction(pl.col(value).cast(_WIDE) * _wide(BILLION), one)
    if meter.aggregation == "rate":
        return Fraction(*rate_parts(pl.col("bucket_end") - pl.col("bucket_start")))
    shown = pl.col(value).cast(QUANTITY).to_physical()
    if meter.aggregation == "avg" and meter.series is None:
        parts = zip(avg_parts(), (shown, one), strict=True)
        return Fraction(*(pl.when(pl.col("events") > 0).then(part).otherwise(other) for part, other in parts))
    return Fraction(shown, one)


def ratio(over: Fraction, under: Fraction) -> pl.Expr:
    """Return one quantity divided by another as decimal(38, 9); null over 0, of null, and beyond 38 digits."""
    parts = [*over, under.denominator, under.numerator]
    return pl.struct(part.cast(_WIDE).alias(f"{n}") for n, part in enumerate(parts)).map_batches(
        _divided, return_dtype=QUANTITY, is_elementwise=True
    )


def _divided(parts: pl.Series) -> pl.Series:
    rows = parts.struct.unnest()
    over, over_by, under_by, under = (pl.col(name) for name in rows.columns)
    # Equal lengths of buckets cancel each other out.
    is_equal = over_by == under_by
    above = [over, pl.when(is_equal).then(1).otherwise(under_by), _wide(BILLION)]
    below = [under, pl.when(is_equal).then(1).otherwise(over_by)]
    is_safe = (_size(above) < _SAFE) & (_size(below) < _SAFE)
    if rows.select(is_safe.all()).item():
        return rows.select(quotient(_product(above), _product(below))).to_series()
    exact = pl.Series([_exact(*row) for row in rows.iter_rows()], dtype=_WIDE)
    return exact.reinterpret(dtype=QUANTITY)


def _exact(over: int | None, over_by: int | None, under_by: int | None, under: int | None) -> int | None:
    """Return the ratio of one row in billionths, by Python's integers, which are of any size."""
    if over is None or over_by is None or under_by is None or not under:
        return None
    whole, rest = divmod(over * under_by * BILLION, under * over_by)
    twice = 2 * rest - under * over_by
    rounded = whole + (twice > 0 or (twice == 0 and whole % 2))
    return rounded if rounded < 10**38 else None


def _size(factors: list[pl.Expr]) -> pl.Expr:
    return _product([factor.cast(pl.Float64) for factor in factors]).fill_null(0)


def _product(factors: list[pl.Expr]) -> pl.Expr:
    first, *others = factors
    for factor in others:
        first *= factor
    return first


def _wide(number: int) -> pl.Expr:
    return pl.lit(number, _WIDE)
