"""The questions of the active-users use case, answered from the aggregate tables; pure functions of frames."""

from __future__ import annotations

import datetime as dt

import polars as pl


def active_customers(usage_by_subject: pl.LazyFrame, today: dt.date) -> pl.DataFrame:
    """User-days of activity by customer: `subject`, `week` (the last seven days), `month` (so far), most first."""
    date, events = pl.col("date"), pl.col("quantity_sum").cast(pl.Int128)
    week = (date > today - dt.timedelta(days=7)) & (date <= today)
    month = (date >= today.replace(day=1)) & (date <= today)
    return (
        usage_by_subject.group_by("subject")
        .agg(week=events.filter(week).sum().cast(pl.Int64), month=events.filter(month).sum().cast(pl.Int64))
        .filter(pl.col("month") + pl.col("week") > 0)
        .sort("month", "subject", descending=[True, False])
        .collect()
    )


def ranked(totals: pl.LazyFrame, by: str) -> pl.DataFrame:
    """Usage by the values of a dimension: `by`, `quantity`, and `share` of all from 0 to 1, most first."""
    return (
        totals.select(
            by,
            "quantity",
            share=pl.col("quantity").cast(pl.Float64) / pl.col("quantity").sum().cast(pl.Float64),
        )
        .sort("quantity", by, descending=[True, False])
        .collect()
    )


def to_bill(seats: pl.LazyFrame, seats_by_workspace: pl.LazyFrame) -> pl.DataFrame:
    """Return the seats of each customer, and how many of its workspaces have any.

    Columns `subject`, `workspaces`, `seats`; most seats first.
    """
    used = seats_by_workspace.group_by("subject").agg(workspaces=(pl.col("quantity") > 0).sum())
    return (
        seats.select("subject", seats=pl.col("quantity").cast(pl.Int64))
        .join(used, on="subject")
        .select("subject", "workspaces", "seats")
        .sort("seats", "subject", descending=[True, False])
        .collect()
    )
