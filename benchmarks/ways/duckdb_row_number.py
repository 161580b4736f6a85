"""DuckDB in the form that everybody writes: the first row of each key by a window, then group by, three tables."""

from __future__ import annotations

import sys

from benchmarks.ways.duckdb_tables import ORDER, run

WINNERS = f"""
    select * exclude (place) from (
        select *, row_number() over (partition by idempotency_key order by {ORDER}) place from events)
    where place = 1"""

if __name__ == "__main__":
    run(WINNERS, *sys.argv[1:3])
