"""Checks tables of partitions by their models; only checked tables may be published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import NewType

import polars as pl

from lake import paths
from lake.dedupe.winners import DATE
from schemas.errors import BrokenLakeError
from schemas.meter import Meter
from schemas.validation import check_aggregate, check_earlier_aggregate

Tables = Mapping[str, pl.DataFrame]
# By name the rows of all tables of a partition; none where it has no event left.
ValidTables = NewType("ValidTables", Mapping[str, pl.DataFrame])


def valid_tables(
    meter: Meter, partitions: Mapping[dt.date, Tables]
) -> dict[dt.date, ValidTables | BrokenLakeError]:
    """Return by date the tables, or what is wrong with the first of them that breaks a rule.

    The partitions are checked together, which takes hardly longer than checking one.
    """
    with_tables = {date: tables for date, tables in sorted(partitions.items()) if tables}
    if _are_valid(meter, with_tables):
        return {date: ValidTables(tables) for date, tables in partitions.items()}
    return {date: _valid_or_error(meter, date, tables) for date, tables in partitions.items()}


def valid_earlier_tables(meter: Meter, date: dt.date, tables: Tables) -> ValidTables:
    """Return stored tables of one partition, which an earlier version may have made, to be published once more.

    Raises BrokenLakeError if one breaks a rule.
    """
    return _checked(check_earlier_aggregate, meter, date, tables)


def _are_valid(meter: Meter, partitions: Mapping[dt.date, Tables]) -> bool:
    try:
        for table in paths.TABLES if partitions else ():
            rows = _dated({date: tables[table] for date, tables in partitions.items()})
            check_aggregate(rows, meter, table, paths.aggregates(table, meter.name))
    except (BrokenLakeError, pl.exceptions.PolarsError):
        # Checking each by itself finds the wrong one; frames of different schemas can't even be concatenated.
        return False
    return True


def _valid_or_error(meter: Meter, date: dt.date, tables: Tables) -> ValidTables | BrokenLakeError:
    try:
        return _checked(check_aggregate, meter, date, tables)
    except BrokenLakeError as error:
        return error


def _checked(
    check: Callable[[pl.DataFrame, Meter, str, str], None], meter: Meter, date: dt.date, tables: Tables
) -> ValidTables:
    for table, rows in tables.items():
        check(_dated({date: rows}), meter, table, paths.aggregate(table, meter.name, date))
    return ValidTables(tables)


def _dated(rows: Mapping[dt.date, pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of all dates together, each with its date."""
    heights = {DATE: list(rows), "height": [each.height for each in rows.values()]}
    dates = pl.DataFrame(heights, schema={DATE: pl.Date, "height": pl.Int64})
    repeated = dates.select(pl.col(DATE).repeat_by("height").explode())
    return pl.concat([repeated, pl.concat(rows.values())], how="horizontal")
