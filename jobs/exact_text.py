"""Format values as exact text for CSV and JSON: decimals, times in RFC 3339, and text that is no formula."""

from __future__ import annotations

from decimal import Decimal

import polars as pl

RFC3339 = "%Y-%m-%dT%H:%M:%S%.fZ"
# The first four start a formula in a spreadsheet, which may trim the others first.
FORMULA = r"^[=+\-@\t\r\n]"


def instant_text(name: str) -> pl.Expr:
    """Return a time in UTC as RFC 3339, with as many digits of a second as it needs: none, 3 or 6."""
    return pl.col(name).dt.to_string(RFC3339)


def short_text(name: str) -> pl.Expr:
    """Return a decimal or a double as its shortest exact text: 482.7, 3, 0.000000001."""
    text = pl.col(name).cast(pl.String)
    pointed = text.str.contains(".", literal=True) & ~text.str.contains("e", literal=True)
    short = text.str.strip_chars_end("0").str.strip_chars_end(".")
    return pl.when(pointed).then(short).otherwise(text).alias(name)


def decimal_text(number: Decimal) -> str:
    """Return one decimal in the form of `short_text`."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def escape_formula(name: str) -> pl.Expr:
    """Return the text, with an apostrophe before it if it begins like a formula."""
    text = pl.col(name)
    return pl.when(text.str.contains(FORMULA)).then(pl.lit("'") + text).otherwise(text).alias(name)


def format_columns(lf: pl.LazyFrame, *, full: bool = False, safe: bool = False) -> pl.LazyFrame:
    """Return every column as text; null stays null, and integers stay numbers.

    Decimals are as short as possible, or with `full` have all nine places. With `safe`, text that a spreadsheet would
    read as a formula gets an apostrophe; numbers, also negative ones, are unchanged.
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
