"""Distinct values of a field, pure: how many different ones the rows of a group have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from lake.measures import merge
from schemas.tables import QUANTITY

# The value of the field, in rows on their way to a count, and the count; no dimension's name has such a sign.
VALUE, COUNT = "#value", "#count"

# `lake.measures.measure` for events, and `lake.measures.merge` for rows of aggregates.
Group = Callable[[pl.LazyFrame, Sequence[str]], pl.LazyFrame]


def is_value(field: str) -> pl.Expr:
    """Return how many distinct values one row has, as a quantity: 1, or 0 for null."""
    return pl.col(field).is_not_null().cast(pl.Int64).cast(QUANTITY)


def by_value(rows: pl.LazyFrame, field: str, keys: Sequence[str], group: Group = merge) -> pl.LazyFrame:
    """Return the measures of rows by the value of `field`, as `VALUE`, and `keys`, which may contain the field."""
    # The value comes first, since it differs most: that groups in less time.
    return group(rows.with_columns(pl.col(field).alias(VALUE)), [VALUE, *keys])


def count_distinct(values: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Return one row by `keys`: how many distinct values it has, as `COUNT`, and all measures but `quantity`.

    `values` has one row by `VALUE` and `keys`. Null is no value, but its events are events of the group. Row order is
    not defined.
    """
    return merge(values, keys, pl.col(VALUE).count().cast(pl.Int64).alias(COUNT))


def count_values(values: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Return one row by `keys`, at least one: how many distinct values they have, as `COUNT`.

    `values` may have many rows of a value. Row order is not defined.
    """
    distinct = values.select(VALUE, *keys).unique()
    return distinct.group_by(*keys).agg(pl.col(VALUE).count().cast(pl.Int64).alias(COUNT))
