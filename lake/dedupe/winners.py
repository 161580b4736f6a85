"""Deduplication, pure: which keys may be repeated, and which of the copies of a key counts."""

from __future__ import annotations

import polars as pl

from schemas.columns import ROW
from schemas.meter import Meter

HASH = "key_hash"
# Of the hash so many bits are kept: sorted and packed they take three bytes a key, and of a billion keys and a night's
# million about a thousand are alike by accident, which costs reading them.
HASH_BITS = 40
# Where a copy lies: its partition, and whether that partition is sealed (then only its winners are known).
DATE, SETTLED = "date", "settled"
CONFLICT = "conflict"
# What a losing copy tells of its winner.
WINNER = ("subject", "quantity", "timestamp", DATE)


def key_hash(key: pl.Expr | None = None) -> pl.Expr:
    """Return the hash of a key as a `UInt64` of `HASH_BITS` bits; null for no key.

    It is the same in every process of one Polars version, and differs between versions.
    """
    whole = (pl.col("idempotency_key") if key is None else key).hash()
    return whole.and_(pl.lit(2**HASH_BITS - 1, pl.UInt64)).alias(HASH)


def losers(copies: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """Return the copies that do not count: of each key all but the winner.

    `copies` are events with `date`, `row` and `settled`, of whole keys: of a key that is there, every copy.
    The winner is the smallest (received_at, timestamp, quantity, subject, dimensions in declared order), null
    before any value; a settled copy has won already. Gives the copies' columns, `conflict` (subject, quantity
    or a dimension differs from the winner's), and the winner's subject, quantity, timestamp and date. Row order is
    not defined.
    """
    payload = ["subject", "quantity", *meter.dimension_names]
    # Copies alike in all of the payload count alike; the last two only make the choice of one the same always.
    order = ["idempotency_key", SETTLED, "received_at", "timestamp", *_reordered(payload), "metadata", ROW]
    ranked = copies.sort(order, descending=[name == SETTLED for name in order], nulls_last=False)
    key = ranked["idempotency_key"]
    wins = (key != key.shift(1)).fill_null(value=True)
    said = ranked.filter(wins).select(pl.col(*payload, "timestamp", DATE).name.prefix("winner_"))
    beaten = ~wins & ~ranked[SETTLED]
    # The copies of a key stand in a row, the winner first: the running count of winners leads to it.
    both = ranked.filter(beaten).hstack(said[(wins.cum_sum() - 1).filter(beaten)])
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"winner_{name}")) for name in payload)
    winner = [f"winner_{name}" for name in WINNER]
    return both.select(pl.col(ranked.columns).exclude(SETTLED), differs.alias(CONFLICT), *winner)


def _reordered(payload: list[str]) -> list[str]:
    subject, quantity, *dimensions = payload
    return [quantity, subject, *dimensions]
