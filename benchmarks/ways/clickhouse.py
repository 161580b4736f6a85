"""The ClickHouse engine in this process: `limit 1 by` the key, then group by, the three tables. Needs `chdb`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.generate import DIMENSIONS, EVENTS

KEYS = ", ".join(["subject", *DIMENSIONS])
MEASURES = """count() as events, sum(quantity) as quantity_sum, min(quantity) as quantity_min,
    max(quantity) as quantity_max, argMin(quantity, timestamp) as quantity_first, min(timestamp) as first_at,
    argMax(quantity, timestamp) as quantity_last, max(timestamp) as last_at"""
MERGED = """sum(u.events) as events, sum(u.quantity_sum) as quantity_sum, min(u.quantity_min) as quantity_min,
    max(u.quantity_max) as quantity_max, argMin(u.quantity_first, u.first_at) as quantity_first,
    min(u.first_at) as first_at, argMax(u.quantity_last, u.last_at) as quantity_last, max(u.last_at) as last_at"""


def main(lake: str, out: str) -> None:
    """One file a table, since the engine writes no more to local disk in one statement."""
    from chdb.session import Session

    session = Session()
    source = f"file('{Path(lake) / EVENTS}', Parquet)"
    session.query("create database bench engine = Atomic")
    session.query(
        f"create table bench.usage engine = Memory as select toDate(timestamp) as date, {KEYS}, {MEASURES} from "
        f"(select * from {source} order by received_at, timestamp, quantity, {KEYS} limit 1 by idempotency_key) "
        f"group by date, {KEYS}"
    )
    by_dimension = " union all ".join(
        f"select u.date as date, '{name}' as dimension, u.{name} as value, uniqExact(u.subject) as subjects, {MERGED} "
        f"from bench.usage u group by u.date, u.{name}"
        for name in DIMENSIONS
    )
    tables = {
        "usage": f"select * from bench.usage order by date, {KEYS}",
        "usage_by_subject": f"select u.date as date, u.subject as subject, {MERGED} from bench.usage u "
        "group by u.date, u.subject order by date, subject",
        "usage_by_dimension": f"select * from ({by_dimension}) order by date, dimension, value",
    }
    for table, query in tables.items():
        (Path(out) / table).mkdir(parents=True)
        session.query(f"{query} into outfile '{Path(out) / table / 'all.parquet'}' format Parquet")


if __name__ == "__main__":
    main(*sys.argv[1:3])
