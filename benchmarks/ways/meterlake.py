"""Meterlake itself: `aggregate` on a lake that has never been aggregated, its key index and state included."""

from __future__ import annotations

import sys

from jobs.cli.app import main

if __name__ == "__main__":
    sys.argv[1:] = ["--lake", sys.argv[1], "aggregate", "--json"]
    main()
