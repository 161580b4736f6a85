"""What the DuckDB ways share: from the rows that won to the three tables, a file a date."""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks.generate import DIMENSIONS, EVENTS

KEYS = ", ".join(["subject", *DIMENSIONS])
COLUMNS = f"date, {KEYS}, quantity, timestamp, received_at"
ORDER = f"received_at, timestamp, quantity, {KEYS}"
MEASURES = """count(*) events, sum(quantity) quantity_sum, min(quantity) quantity_min, max(quantity) quantity_max,
    arg_min(quantity, timestamp) quantity_first, min(timestamp) first_at,
    arg_max(quantity, timestamp) quantity_last, max(timestamp) last_at"""
MERGED = """sum(events)::bigint events, sum(quantity_sum) quantity_sum, min(quantity_min) quantity_min,
    max(quantity_max) quantity_max, arg_min(quantity_first, first_at) quantity_first, min(first_at) first_at,
    arg_max(quantity_last, last_at) quantity_last, max(last_at) last_at"""


def run(winners: str, lake: str, out: str, first: str = "") -> None:
    """Write the tables for the rows that a query gives; `first` is a statement that it needs."""
    target = Path(out)
    target.mkdir(parents=True)
    connection = duckdb.connect(config={"preserve_insertion_order": False})
    source = f"read_parquet('{Path(lake) / EVENTS}', hive_partitioning = true)"
    connection.execute(f"create temp view events as select * replace (date::date as date) from {source}")
    if first:
        connection.execute(first)
    connection.execute(
        f"create temp table usage as select date, {KEYS}, {MEASURES} from ({winners}) group by all"
    )
    by_dimension = " union all ".join(
        f"select date, '{name}' dimension, {name} as value, count(distinct subject) subjects, {MERGED}"
        " from usage group by all"
        for name in DIMENSIONS
    )
    tables = {
        "usage": f"select * from usage order by date, {KEYS}",
        "usage_by_subject": f"select date, subject, {MERGED} from usage group by all order by date, subject",
        "usage_by_dimension": f"select * from ({by_dimension}) order by date, dimension, value",
    }
    for table, query in tables.items():
        options = "format parquet, partition_by (date), write_partition_columns true, compression zstd"
        connection.execute(f"copy ({query}) to '{target / table}' ({options})")
