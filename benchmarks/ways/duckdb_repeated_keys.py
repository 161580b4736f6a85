"""DuckDB with the window over the rows of repeated keys alone."""

from __future__ import annotations

import sys

from benchmarks.ways.duckdb_tables import COLUMNS, ORDER, run

REPEATED = "select idempotency_key from events group by 1 having count(*) > 1"
WINNERS = f"""
    select {COLUMNS} from events where idempotency_key not in (select idempotency_key from repeated)
    union all
    select {COLUMNS} from (
        select *, row_number() over (partition by idempotency_key order by {ORDER}) place
        from events where idempotency_key in (select idempotency_key from repeated))
    where place = 1"""

if __name__ == "__main__":
    run(WINNERS, *sys.argv[1:3], first=f"create temp table repeated as {REPEATED}")
