"""The ClickHouse engine in this process: `limit 1 by` the key, then group by, the three tables. Needs `chdb`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.generate import DIMENSIONS, EVENTS

KEYS = ", ".join(["subject", *DIMENSIONS])
# Tuples compare part by part, so ties are resolved as in Meterlake.
MEASURES = """count() as events, sum(quantity) as quantity_sum, min(quantity) as quantity_min,
    max(quantity) as quantity_max, min(tuple(timestamp, received_at, quantity)) as first_event,
    max(tuple(timestamp, received_at, quantity)) as last_event"""
MERGED = """sum(u.events) as events, sum(u.quantity_sum) as quantity_sum, min(u.quantity_min) as quantity_min,
    max(u.quantity_max) as quantity_max, min(u.first_event) as first_event, max(u.last_event) as last_event"""
SAID = """quantity_sum as quantity, events, quantity_sum, quantity_min, quantity_max,
    first_event.3 as quantity_first, first_event.1 as first_at, first_event.2 as first_received_at,
    last_event.3 as quantity_last, last_event.1 as last_at, last_event.2 as last_received_at"""


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
    by_subject = (
        f"select u.date as date, u.subject as subject, {MERGED} from bench.usage u group by u.date, u.subject"
    )
    tables = {
        "usage": f"select date, {KEYS}, {SAID} from bench.usage order by date, {KEYS}",
        "usage_by_subject": f"select date, subject, {SAID} from ({by_subject}) order by date, subject",
        "usage_by_dimension": f"select date, dimension, value, subjects, {SAID} from ({by_dimension}) "
        "order by date, dimension, value",
    }
    for table, query in tables.items():
        (Path(out) / table).mkdir(parents=True)
        session.query(f"{query} into outfile '{Path(out) / table / 'all.parquet'}' format Parquet")


if __name__ == "__main__":
    main(*sys.argv[1:3])
