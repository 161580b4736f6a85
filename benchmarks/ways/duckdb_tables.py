"""What the DuckDB ways share: from the rows that won to the three tables, a file a date."""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks.generate import DIMENSIONS, EVENTS

KEYS = ", ".join(["subject", *DIMENSIONS])
COLUMNS = f"date, {KEYS}, quantity, timestamp, received_at"
ORDER = f"received_at, timestamp, quantity, {KEYS}"
# Structs compare field by field, so ties are resolved as in Meterlake.
MOMENT = "struct_pack(at := timestamp, received_at := received_at, quantity := quantity)"
MEASURES = f"""count(*) events, sum(quantity) quantity_sum, min(quantity) quantity_min, max(quantity) quantity_max,
    min({MOMENT}) first_event, max({MOMENT}) last_event"""
MERGED = """sum(events)::bigint events, sum(quantity_sum) quantity_sum, min(quantity_min) quantity_min,
    max(quantity_max) quantity_max, min(first_event) first_event, max(last_event) last_event"""
SAID = """quantity_sum quantity, events, quantity_sum, quantity_min, quantity_max,
    first_event.quantity quantity_first, first_event.at first_at, first_event.received_at first_received_at,
    last_event.quantity quantity_last, last_event.at last_at, last_event.received_at last_received_at"""


def run(winners: str, lake: str, out: str, first: str = "") -> None:
    """Write the tables for the rows of a query; `first` is a statement that it needs."""
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
    by_subject = f"select date, subject, {MERGED} from usage group by all"
    by_dimension = " union all ".join(
        f"select date, '{name}' dimension, {name} as value, count(distinct subject) subjects, {MERGED}"
        " from usage group by all"
        for name in DIMENSIONS
    )
    tables = {
        "usage": f"select date, {KEYS}, {SAID} from usage order by date, {KEYS}",
        "usage_by_subject": f"select date, subject, {SAID} from ({by_subject}) order by date, subject",
        "usage_by_dimension": f"select date, dimension, value, subjects, {SAID} from ({by_dimension}) "
        "order by date, dimension, value",
    }
    for table, query in tables.items():
        options = "format parquet, partition_by (date), write_partition_columns true, compression zstd"
        connection.execute(f"copy ({query}) to '{target / table}' ({options})")
