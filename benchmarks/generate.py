"""A seeded lake of one meter: dates, subjects with a heavy tail, and copies within and across dates."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl

from lake import Lake, paths
from lake.meters import save_meter
from schemas.meter import parse_meter

METER = "active_users"
DIMENSIONS = ("plan", "workspace", "role", "source")
FIRST = dt.date(2026, 1, 1)
FILES_PER_DATE = 4
SUBJECTS = 10_000
# Of a hundred events two or three repeat a key, and one of five of those the key of another date.
COPY_SHARE, ACROSS_SHARE = 0.025, 0.2


def generate(folder: Path, events: int, dates: int, seed: int = 7) -> None:
    """Make a lake of about so many events in an empty folder; the same for the same numbers."""
    lake = Lake.init(str(folder))
    body = {"name": METER, "unit": "user", "dimensions": [{"name": d, "type": "string"} for d in DIMENSIONS]}
    save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "benchmark"))
    for number in range(dates):
        _write(folder, _events(number, events // dates, seed), FIRST + dt.timedelta(days=number))


def _events(number: int, count: int, seed: int) -> pl.DataFrame:
    """The events of one date; every random number is a hash of its row, so nothing depends on order."""
    row = pl.int_range(pl.len(), dtype=pl.UInt64) + number * count

    def draw(salt: int) -> pl.Expr:
        return row.hash(seed * 1_000 + salt) / 2.0**64

    other = pl.when(draw(2) < ACROSS_SHARE).then((draw(3) * (number + 1) * count).cast(pl.UInt64))
    key = pl.when(draw(1) < COPY_SHARE).then(other.otherwise(row - row % 7)).otherwise(row)
    subject = (draw(4).pow(4) * SUBJECTS).cast(pl.Int64)
    midnight = pl.lit(dt.datetime.combine(FIRST + dt.timedelta(days=number), dt.time(), dt.UTC))
    at = midnight + pl.duration(microseconds=(draw(5) * 86_400_000_000).cast(pl.Int64))
    return pl.DataFrame({"row": pl.repeat(0, count, eager=True)}).select(
        idempotency_key=pl.format("evt_{}_2026_user", key),
        subject=pl.format("org_{}", subject),
        quantity=((draw(6) * 1_000_000).cast(pl.Int64) + 1).cast(pl.Decimal(38, 9)),
        timestamp=at.dt.cast_time_unit("us"),
        received_at=(at + pl.duration(seconds=(draw(7) * 60).cast(pl.Int64))).dt.cast_time_unit("us"),
        plan=pl.format("plan_{}", subject % 4),
        workspace=pl.format("workspace_{}", subject * 3 + (draw(8) * 2).cast(pl.Int64)),
        role=pl.format("role_{}", (draw(9) * 3).cast(pl.Int64)),
        source=pl.format("source_{}", (draw(10) * 2).cast(pl.Int64)),
        metadata=pl.lit(None, pl.String),
    )


def _write(folder: Path, df: pl.DataFrame, date: dt.date) -> None:
    target = folder / paths.events(METER, date)
    target.mkdir(parents=True)
    for part in range(FILES_PER_DATE):
        rows = df[part * df.height // FILES_PER_DATE : (part + 1) * df.height // FILES_PER_DATE]
        rows.write_parquet(target / f"part-{part}.parquet")
