"""The tables of a lake as lazy frames: raw events, deduplicated events, the copies that lost, and the aggregates."""

from __future__ import annotations

import datetime as dt

import polars as pl

from lake import paths
from lake.admission import admit
from lake.compacted import list_events
from lake.copies import find_losers, settled_winners
from lake.dedup import DATE
from lake.events import ROW, Partition, event_columns
from lake.index import KeyIndex
from lake.measures import SECONDS_PER_DAY, merge, with_quantity
from lake.parts import part_files
from lake.state import load_state
from lake.storage import Storage
from lake.sums import check_sums, exact_count
from schemas.errors import BadInputError
from schemas.meter import Meter
from schemas.tables import QUANTITY, Measures, UsageByDimension, UsageBySubject, column_types

Dates = tuple[dt.date | None, dt.date | None]


def raw_events(storage: Storage, meter: Meter, dates: Dates) -> pl.LazyFrame:
    """Every row of the readable event files, valid or not, copies included: `date`, then the event columns."""
    open_partitions = _chosen(_partitions(storage, meter), dates)
    frames = [partition.rows().select(*_event_columns(partition)) for partition in open_partitions.values()]
    return pl.concat([_no_events(meter), *frames])


def events(storage: Storage, meter: Meter, dates: Dates) -> pl.LazyFrame:
    """The events that count: `date`, then the event columns, in order of date and file.

    The lazy frame holds which copies lose; they are looked for when it is made, over all partitions of the meter.
    """
    partitions = _partitions(storage, meter)
    chosen = _chosen(partitions, dates)
    lost = _lost(storage, meter, partitions, chosen, [DATE, ROW])
    frames = []
    for date, partition in chosen.items():
        rows = lost.filter(pl.col(DATE) == date)[ROW]
        counting = partition.valid().filter(~pl.col(ROW).is_in(rows.implode()))
        frames.append(counting.select(*_event_columns(partition)))
    return pl.concat([_no_events(meter), *frames])


def duplicates(storage: Storage, meter: Meter, dates: Dates) -> pl.LazyFrame:
    """The copies that do not count: `date`, the event columns, `conflict`, and what the winner says.

    `conflict` is whether subject, quantity or a dimension differs from the winner's; `winner_subject`,
    `winner_quantity`, `winner_timestamp` and `winner_date` are the winner's. Sorted by date and file.
    """
    partitions = _partitions(storage, meter)
    chosen = _chosen(partitions, dates)
    lost = _lost(storage, meter, partitions, chosen)
    return lost.lazy().filter(pl.col(DATE).is_in(list(chosen))).select(DATE, pl.exclude(DATE, ROW))


def aggregate_rows(storage: Storage, meter: Meter, table: str, dates: Dates) -> pl.LazyFrame:
    """The rows of one aggregate table: `date`, then its keys and measures, in order of date and keys."""
    schema = aggregate_columns(meter, table)
    frames = [pl.LazyFrame(schema={DATE: pl.Date, **schema})]
    for date, file in part_files(storage, paths.aggregates(table, meter.name)).items():
        if _within(date, dates):
            rows = storage.scan([file], schema=schema, missing_columns="insert", extra_columns="ignore")
            frames.append(rows.select(pl.lit(date).alias(DATE), *schema))
    return pl.concat(frames)


def totals(storage: Storage, meter: Meter, by: list[str], dates: Dates) -> pl.LazyFrame:
    """The rows of all dates merged by some of the keys of `usage`: the keys, then the measures, sorted by keys.

    They are computed now. Raises SumTooLargeError naming the keys of a sum that is too large.
    """
    _check_fields(meter, by)
    table = "usage" if set(by) - {"subject"} else "usage_by_subject"
    rows = aggregate_rows(storage, meter, table, dates)
    merged = with_quantity(merge(rows, by), meter, _seconds(storage, meter, dates))
    found = (merged.sort(by) if by else merged).collect(engine="streaming")
    return check_sums(found, f"meter {meter.name!r}", by).lazy()


def values(storage: Storage, meter: Meter, name: str, dates: Dates) -> pl.LazyFrame:
    """The values of a dimension or of `subject` as text: `value` and `events`, the most frequent first."""
    _check_fields(meter, [name])
    if name == "subject":
        rows = aggregate_rows(storage, meter, "usage_by_subject", dates).rename({"subject": "value"})
    else:
        table = aggregate_rows(storage, meter, "usage_by_dimension", dates)
        rows = table.filter(pl.col("dimension") == name)
    counted = rows.group_by("value").agg(exact_count("events")).collect(engine="streaming")
    check_sums(counted, f"meter {meter.name!r}", ["value"], pl.col("events").is_null())
    return counted.lazy().sort("events", "value", descending=[True, False])


def aggregate_columns(meter: Meter, table: str) -> dict[str, pl.DataType]:
    """Columns and types of one aggregate table for a meter, in order."""
    keys = {
        "usage": column_types(UsageBySubject) | meter.dimension_dtypes,
        "usage_by_subject": column_types(UsageBySubject),
        "usage_by_dimension": column_types(UsageByDimension),
    }
    double = meter.aggregation in ("avg", "rate")
    return keys[table] | column_types(Measures) | {"quantity": pl.Float64() if double else QUANTITY}


def _check_fields(meter: Meter, names: list[str]) -> None:
    unknown = set(names) - {"subject", *meter.dimension_names}
    if unknown:
        raise BadInputError(
            f"meter {meter.name!r} can't be grouped by {', '.join(sorted(unknown))}",
            expected=f"some of {', '.join(['subject', *meter.dimension_names])}",
            found=", ".join(names),
        )


def _seconds(storage: Storage, meter: Meter, dates: Dates) -> int:
    """The length of the bucket that the dates make up; an open end is the first or last date with rows."""
    files = part_files(storage, paths.aggregates("usage", meter.name))
    held = [date for date in files if _within(date, dates)]
    if not held:
        return SECONDS_PER_DAY
    since, until = dates
    # Counted so that no date is taken beyond the end of the calendar.
    days = ((until or max(held)) - (since or min(held))).days + (0 if until else 1)
    return days * SECONDS_PER_DAY


def _partitions(storage: Storage, meter: Meter) -> dict[dt.date, Partition]:
    state = load_state(storage, meter.name)
    partitions, _ = admit(storage, meter, list_events(storage, meter.name, state).files, state)
    return partitions


def _chosen(partitions: dict[dt.date, Partition], dates: Dates) -> dict[dt.date, Partition]:
    return {date: partition for date, partition in partitions.items() if _within(date, dates)}


def _within(date: dt.date, dates: Dates) -> bool:
    since, until = dates
    return (since is None or date >= since) and (until is None or date < until)


def _lost(
    storage: Storage,
    meter: Meter,
    partitions: dict[dt.date, Partition],
    chosen: dict[dt.date, Partition],
    keep: list[str] | None = None,
) -> pl.DataFrame:
    settled = settled_winners(storage, meter, load_state(storage, meter.name).sealed)
    index = KeyIndex(storage, meter.name, partitions)
    return find_losers(meter, partitions, settled, chosen, index, keep)


def _event_columns(partition: Partition) -> list[pl.Expr | str]:
    return [pl.lit(partition.date).alias(DATE), *event_columns(partition.meter)]


def _no_events(meter: Meter) -> pl.LazyFrame:
    return pl.LazyFrame(schema={DATE: pl.Date, **event_columns(meter)})
