"""Exact quotients, and doubles as quantities of nine places: rounded half-even once, never computed as doubles."""

from __future__ import annotations

import polars as pl

from schemas.columns import QUANTITY


def quotient(billionths: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """Return integers divided by integers above 0 as decimal(38, 9), in billionths; null where one is null or it is 0.

    Nothing overflows for numbers up to 10^38, no intermediate step either.
    """
    number, by = billionths.cast(pl.Int128), divisor.cast(pl.Int128)
    whole = number // by
    rest = number - whole * by
    # Twice the rest could leave 128 bits.
    more, is_odd = by - rest, whole % 2 == 1
    is_up = (rest > more) | ((rest == more) & is_odd)
    return (whole + is_up.cast(pl.Int128)).reinterpret(dtype=QUANTITY)


def from_double(number: pl.Expr) -> pl.Expr:
    """Return doubles as decimal(38, 9): the shortest decimal text of each, rounded half-even."""
    return number.cast(pl.String).cast(QUANTITY)
