"""A seeded lake of one meter: dates, subjects with a heavy tail, and duplicates within and across dates."""

from __future__ import annotations

import datetime as dt
import json
from itertools import pairwise
from pathlib import Path

import msgspec
import polars as pl

from lake import Lake, paths
from lake.meters import save_meter
from schemas.meter import parse_meter

METER = "active_users"
DIMENSIONS = ("plan", "workspace", "role", "source")
FIRST = dt.date(2026, 1, 1)
EVENTS = paths.events(METER) + "*/*.parquet"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a generated lake. The same ones make the same events on every machine."""

    events: int
    dates: int
    files_per_date: int = 4
    # The more of an event's subjects have a low number, the heavier the tail: a uniform number to this power.
    subjects: int = 10_000
    skew: float = 4.0
    plans: int = 4
    workspaces_per_subject: int = 2
    roles: int = 3
    sources: int = 2
    # Of a hundred events two or three repeat a key, and one of five of those the key of a date up to so long before.
    copy_share: float = 0.025
    across_share: float = 0.2
    across_days: int = 2
    seed: int = 7


def generate(folder: Path, shape: Shape) -> None:
    """Make a lake of about so many events in an empty folder."""
    begin(folder)
    for number in range(shape.dates):
        add_date(folder, shape, number)


def begin(folder: Path) -> None:
    """Make a lake with the meter and no events."""
    lake = Lake.init(str(folder))
    body = {"name": METER, "unit": "user", "dimensions": [{"name": d, "type": "string"} for d in DIMENSIONS]}
    save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "benchmark"))


def add_date(folder: Path, shape: Shape, number: int) -> None:
    """Add the files of one date; the events of a date depend on its number and the shape alone."""
    target = folder / paths.events(METER, FIRST + dt.timedelta(days=number))
    target.mkdir(parents=True)
    count = shape.events // shape.dates
    bounds = [
        number * count + part * count // shape.files_per_date for part in range(shape.files_per_date + 1)
    ]
    for part, (start, end) in enumerate(pairwise(bounds)):
        events(shape, number, start, end).write_parquet(target / f"part-{part:04}.parquet")


def events(shape: Shape, number: int, start: int, end: int) -> pl.DataFrame:
    """Some events of one date; every random number is a hash of its row, so nothing depends on order."""
    row = pl.col("row")

    def draw(salt: int) -> pl.Expr:
        return row.hash(shape.seed * 1_000 + salt) / 2.0**64

    back = (draw(3) * shape.across_days * (shape.events // shape.dates)).cast(pl.UInt64)
    other = pl.when(draw(2) < shape.across_share).then(pl.max_horizontal(row, back) - back)
    key = pl.when(draw(1) < shape.copy_share).then(other.otherwise(row - row % 7)).otherwise(row)
    subject = (draw(4).pow(shape.skew) * shape.subjects).cast(pl.Int64)
    midnight = pl.lit(dt.datetime.combine(FIRST + dt.timedelta(days=number), dt.time(), dt.UTC))
    at = midnight + pl.duration(microseconds=(draw(5) * 86_400_000_000).cast(pl.Int64))
    workspace = subject * shape.workspaces_per_subject + _one_of(draw(8), shape.workspaces_per_subject)
    return pl.DataFrame({"row": pl.int_range(start, end, dtype=pl.UInt64, eager=True)}).select(
        idempotency_key=pl.format("evt_{}_2026_user", key),
        subject=pl.format("org_{}", subject),
        quantity=(_one_of(draw(6), 1_000_000) + 1).cast(pl.Decimal(38, 9)),
        timestamp=at.dt.cast_time_unit("us"),
        received_at=(at + pl.duration(seconds=_one_of(draw(7), 60))).dt.cast_time_unit("us"),
        plan=pl.format("plan_{}", subject % shape.plans),
        workspace=pl.format("workspace_{}", workspace),
        role=pl.format("role_{}", _one_of(draw(9), shape.roles)),
        source=pl.format("source_{}", _one_of(draw(10), shape.sources)),
        metadata=pl.lit(None, pl.String),
    )


def _one_of(drawn: pl.Expr, count: int) -> pl.Expr:
    return (drawn * count).cast(pl.Int64)
