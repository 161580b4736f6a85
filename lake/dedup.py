"""Deduplication, pure: which keys may be repeated, and which of the copies of a key counts."""

from __future__ import annotations

import polars as pl

from lake.events import ROW
from schemas.meter import Meter

HASH = "key_hash"
# Where a copy lies: its partition, and whether that partition is sealed (then only its winners are known).
DATE, SETTLED = "date", "settled"
CONFLICT = "conflict"


def key_hash() -> pl.Expr:
    """The key's hash. It is the same in every process of one Polars version, and differs between versions."""
    return pl.col("idempotency_key").hash().alias(HASH)


def repeated(hashes: pl.Series) -> pl.Series:
    """The hashes that occur more than once, each once, sorted."""
    ordered = hashes.sort()
    return ordered.filter(ordered == ordered.shift(1)).unique(maintain_order=True)


def losers(copies: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """The copies that do not count: of each key all but the winner.

    `copies` are events with `date`, `row` and `settled`, of whole keys: of a key that is there, every copy.
    The winner is the smallest (received_at, timestamp, quantity, subject, dimensions in declared order), null
    before any value; a settled copy has won already. Gives the copies' columns, `conflict` (subject, quantity
    or a dimension differs from the winner's), and the winner's subject, quantity, timestamp and date, sorted by
    date and row.
    """
    payload = ["subject", "quantity", *meter.dimension_names]
    # Copies alike in all of these count alike; metadata only makes the reader's choice of one the same always.
    order = ["idempotency_key", SETTLED, "received_at", "timestamp", *_reordered(payload), "metadata"]
    ranked = copies.sort(order, descending=[name == SETTLED for name in order], nulls_last=False)
    # `first().over(key)` on sorted rows is the winner's value.
    winner = {name: pl.col(name).first().over("idempotency_key") for name in (*payload, "timestamp", DATE)}
    differs = pl.any_horizontal(pl.col(name).ne_missing(winner[name]) for name in payload)
    said = [winner[name].alias(f"winner_{name}") for name in ("subject", "quantity", "timestamp", DATE)]
    return (
        ranked.with_columns(
            differs.alias(CONFLICT), *said, wins=pl.col("idempotency_key").is_first_distinct()
        )
        .filter(~pl.col("wins") & ~pl.col(SETTLED))
        .drop("wins", SETTLED)
        .sort(DATE, ROW)
    )


def _reordered(payload: list[str]) -> list[str]:
    subject, quantity, *dimensions = payload
    return [quantity, subject, *dimensions]
