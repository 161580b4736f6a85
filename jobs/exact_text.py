"""Values as exact text, for CSV and JSON: decimals, times as RFC 3339, and cells that no spreadsheet computes."""

from __future__ import annotations

from decimal import Decimal

import polars as pl

RFC3339 = "%Y-%m-%dT%H:%M:%S%.fZ"
# A spreadsheet takes a cell that begins with the first four for a formula, and may trim the others before.
FORMULA = r"^[=+\-@\t\r\n]"


def instant_text(name: str) -> pl.Expr:
    """A time in UTC as RFC 3339, with as many digits of a second as it needs: none, 3 or 6."""
    return pl.col(name).dt.to_string(RFC3339)


def short_text(name: str) -> pl.Expr:
    """A decimal or a double as its shortest exact text: 482.7, 3, 0.000000001."""
    text = pl.col(name).cast(pl.String)
    pointed = text.str.contains(".", literal=True) & ~text.str.contains("e", literal=True)
    short = text.str.strip_chars_end("0").str.strip_chars_end(".")
    return pl.when(pointed).then(short).otherwise(text).alias(name)


def decimal_text(number: Decimal) -> str:
    """One decimal as `short_text` has it."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def escape_formula(name: str) -> pl.Expr:
    """Text that begins like a formula with an apostrophe before it."""
    text = pl.col(name)
    return pl.when(text.str.contains(FORMULA)).then(pl.lit("'") + text).otherwise(text).alias(name)


def format_columns(lf: pl.LazyFrame, *, full: bool = False, safe: bool = False) -> pl.LazyFrame:
    """Every column as text, null staying null; whole numbers stay numbers.

    Decimals are short, or with `full` have all their nine places. With `safe`, text that a spreadsheet would take
    for a formula begins with an apostrophe; numbers, negative ones too, stay as they are.
    """
    return lf.select(_text(name, dtype, full=full, safe=safe) for name, dtype in lf.collect_schema().items())


def _text(name: str, dtype: pl.DataType, *, full: bool, safe: bool) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return instant_text(name)
    if dtype == pl.String():
        return escape_formula(name) if safe else pl.col(name)
    if dtype.is_integer():
        return pl.col(name)
    exact = isinstance(dtype, pl.Decimal) and full
    return pl.col(name).cast(pl.String) if exact or dtype == pl.Boolean() else short_text(name)
