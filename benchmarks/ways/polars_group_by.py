"""Polars' streaming group_by alone: no deduplication, nothing written."""

from __future__ import annotations

import sys

from benchmarks.ways.polars_tables import grouped

if __name__ == "__main__":
    grouped(sys.argv[1])
