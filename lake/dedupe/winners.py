"""The rule of deduplication, pure: which of the events that share a key is the winner."""

from __future__ import annotations

import polars as pl

from schemas.columns import ROW
from schemas.meter import Meter

HASH = "key_hash"
# The bits of a hash that are stored: sorted and packed they take three bytes a key. Of a billion keys and a night's
# million about a thousand collide, which costs reading them.
HASH_BITS = 40
# Where an event is: its partition, and whether that partition is sealed (then only its winners are known).
DATE, IS_SEALED = "date", "#is_sealed"
CONFLICT = "conflict"
# The columns of the winner that stand in the row of a losing duplicate.
WINNER = ("subject", "quantity", "timestamp", DATE)


def key_hash(key: pl.Expr | None = None) -> pl.Expr:
    """Return the hash of a key as a `UInt64` of `HASH_BITS` bits; null for no key.

    It is the same in every process of one Polars version, and differs between versions.
    """
    full_hash = (pl.col("idempotency_key") if key is None else key).hash()
    return full_hash.and_(pl.lit(2**HASH_BITS - 1, pl.UInt64)).alias(HASH)


def losing_duplicates(duplicates: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """Return the events that lose: of each key all but the winner.

    `duplicates` are events with `date`, `row` and `#is_sealed`, and complete: every event of each of its keys. The winner
    is the smallest (received_at, timestamp, quantity, subject, dimensions in declared order), null before any value;
    one in a sealed partition has won already. Returns the columns of the events, `conflict` (subject, quantity or a
    dimension differs from the winner's), and the winner's subject, quantity, timestamp and date. Row order is not
    defined.
    """
    payload = ["subject", "quantity", *meter.dimension_names]
    # Duplicates with the same payload count the same; the last two columns only make the choice deterministic.
    order = ["idempotency_key", IS_SEALED, "received_at", "timestamp", *_reordered(payload), "metadata", ROW]
    ranked = duplicates.sort(order, descending=[name == IS_SEALED for name in order], nulls_last=False)
    key = ranked["idempotency_key"]
    wins = (key != key.shift(1)).fill_null(value=True)
    winners = ranked.filter(wins).select(pl.col(*payload, "timestamp", DATE).name.prefix("winner_"))
    loses = ~wins & ~ranked[IS_SEALED]
    # The events of a key are adjacent, the winner first, so the running count of winners is the index of its row.
    losers = ranked.filter(loses).hstack(winners[(wins.cum_sum() - 1).filter(loses)])
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"winner_{name}")) for name in payload)
    winner_columns = [f"winner_{name}" for name in WINNER]
    return losers.select(pl.col(ranked.columns).exclude(IS_SEALED), differs.alias(CONFLICT), *winner_columns)


def _reordered(payload: list[str]) -> list[str]:
    subject, quantity, *dimensions = payload
    return [quantity, subject, *dimensions]
