"""Whether the ways that deduplicate give the same rows as Meterlake, in all three tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from benchmarks.generate import METER
from lake import Lake

TABLES = ("usage", "usage_by_subject", "usage_by_dimension")


def same_rows(lake: Path, outs: Mapping[str, Path]) -> None:
    """Exit with a message if a folder of tables, by way, has other rows than the lake."""
    ours = Lake(str(lake))
    for table in TABLES:
        rows = getattr(ours, table)(METER)
        expected = _said(rows)
        for name, out in outs.items():
            files = sorted((out / table).rglob("*.parquet"))
            found = _said(pl.scan_parquet(files, hive_partitioning=False))
            if found != expected:
                sys.exit(f"{name} has other rows of {table} than Meterlake: {found}, not {expected}")


def _said(rows: pl.LazyFrame) -> tuple[object, ...]:
    """The number of rows, and a sum of their hashes, which is the same in whatever order they come."""
    typed = rows.select(_comparable(name) for name in sorted(rows.collect_schema().names()))
    # Half of each hash, since all of them would leave 64 bits.
    hashed = typed.select(pl.struct(pl.all()).hash().and_(2**32 - 1).sum().alias("hashes"), pl.len())
    return hashed.collect(engine="streaming").row(0)


def _comparable(name: str) -> pl.Expr:
    """A column as every engine can say it."""
    column = pl.col(name)
    if name.startswith("quantity"):
        return column.cast(pl.Decimal(38, 9))
    if name.endswith("_at"):
        return column.dt.replace_time_zone(None).dt.cast_time_unit("us")
    kinds = {"date": pl.Date(), "events": pl.Int64(), "subjects": pl.Int64()}
    return column.cast(kinds.get(name, pl.String()))
