"""The tables of a lake as lazy frames: raw events, deduplicated events, duplicates, and the aggregates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping

import polars as pl

from lake import paths
from lake.aggregates.measures import billed
from lake.aggregates.missing_tables import missing_table
from lake.aggregates.quantities import looked_back, range_totals
from lake.aggregates.sums import check_sums, exact_count, lacks_quantity
from lake.calendar import DAY
from lake.consistent_read import Answer, Snapshot, read_consistently, with_snapshot
from lake.dedupe.find_losers import find_losers, load_sealed_winners
from lake.dedupe.key_index import KeyIndex
from lake.dedupe.winners import DATE
from lake.events.partition import Partition
from lake.partition_files import part_files
from lake.state.records import MeterState
from lake.state.state_file import decode_or_rebuild_state, load_state
from lake.storage import Storage, StoredFile
from schemas.columns import INSTANT, MEASURES, QUARANTINE_TYPES, ROW, aggregate_columns, event_columns
from schemas.errors import BadInputError
from schemas.meter import ROUNDED_AGGREGATIONS, Meter

Dates = tuple[dt.date | None, dt.date | None]
PARTITION_TYPES: dict[str, pl.DataType] = {
    DATE: pl.Date(),
    **dict.fromkeys(("events", "duplicates", "conflicts", "invalid"), pl.Int64()),
    "sealed_at": INSTANT,
}


def raw_events(storage: Storage, meter: Meter, dates: Dates) -> pl.LazyFrame:
    """Return every row of the readable event files, valid or not, with duplicates: `date`, then the event columns."""

    def rows(snapshot: Snapshot) -> pl.LazyFrame:
        selected = _in_range(snapshot.partitions, dates).values()
        frames = [partition.rows().select(*_event_columns(partition)) for partition in selected]
        return pl.concat([_no_events(meter), *frames])

    return with_snapshot(storage, meter, rows)


def events(storage: Storage, meter: Meter, dates: Dates) -> pl.LazyFrame:
    """Return the events that count: `date`, then the event columns, in order of date and file.

    Duplicates are searched for when the frame is made, across all partitions of the meter.
    """
    return with_snapshot(storage, meter, lambda snapshot: deduplicated(snapshot, dates))


def deduplicated(snapshot: Snapshot, dates: Dates) -> pl.LazyFrame:
    """Return `events` of a snapshot."""
    selected = _in_range(snapshot.partitions, dates)
    losers = _losers(snapshot, selected, [DATE, ROW])
    frames = []
    for date, partition in selected.items():
        rows = losers.filter(pl.col(DATE) == date)[ROW]
        counting = partition.valid().filter(~pl.col(ROW).is_in(rows.implode()))
        frames.append(counting.select(*_event_columns(partition)))
    return pl.concat([_no_events(snapshot.meter), *frames])


def duplicates(storage: Storage, meter: Meter, dates: Dates) -> pl.LazyFrame:
    """Return the duplicates that do not count: `date`, the event columns, `conflict`, and columns of the winner.

    `conflict` is whether subject, quantity or a dimension differs from the winner's; `winner_subject`,
    `winner_quantity`, `winner_timestamp` and `winner_date` are the winner's. Sorted by date and file.
    """

    def rows(snapshot: Snapshot) -> pl.LazyFrame:
        selected = _in_range(snapshot.partitions, dates)
        losers = _losers(snapshot, selected).lazy()
        return losers.filter(pl.col(DATE).is_in(list(selected))).select(DATE, pl.exclude(DATE, ROW))

    return with_snapshot(storage, meter, rows)


def partitions(storage: Storage, meter: Meter) -> pl.LazyFrame:
    """Return what the state records of each date: `date`, the counts of its rows, and `sealed_at`; sorted by date."""
    records = load_state(storage, meter.name).partitions
    rows = [
        (date, each.events, each.duplicates, each.conflicts, sum(each.invalid.values()), each.sealed_at)
        for date, each in sorted(records.items())
    ]
    return pl.LazyFrame(rows, schema=PARTITION_TYPES, orient="row")


def quarantine(storage: Storage, meter: str | None) -> pl.LazyFrame:
    """Return the rejected rows of a meter, or of all with what names none: `meter`, `date`, then QUARANTINE_TYPES."""
    folder = paths.QUARANTINE if meter is None else paths.quarantine(meter)
    files: dict[tuple[str, dt.date], list[StoredFile]] = {}
    for file in storage.list(folder):
        place = paths.split_partition(file.path)
        if place and place.file.endswith(".parquet"):
            files.setdefault((place.meter, place.date), []).append(file)
    frames = [
        storage.scan(listed).select(
            pl.lit(None if name == paths.NO_METER else name, pl.String).alias("meter"),
            pl.lit(date).alias(DATE),
            *QUARANTINE_TYPES,
        )
        for (name, date), listed in files.items()
    ]
    empty = pl.LazyFrame(schema={"meter": pl.String(), DATE: pl.Date(), **QUARANTINE_TYPES})
    return pl.concat([empty, *frames])


def aggregate_rows(storage: Storage, meter: Meter, table: str, dates: Dates) -> pl.LazyFrame:
    """Return the rows of one aggregate table: `date`, then its keys and measures, in order of date and keys."""
    return from_aggregates(storage, meter, table, dates, lambda rows, _: rows)


def from_aggregates(  # noqa: PLR0913 - which rows, and what to make of them
    storage: Storage,
    meter: Meter,
    table: str,
    dates: Dates,
    work: Callable[[pl.LazyFrame, Mapping[dt.date, pl.LazyFrame]], Answer],
    *,
    is_whole: bool = False,
) -> Answer:
    """Return the result of `work` on `aggregate_rows`, all and by date; `is_whole` if it reads all that it needs.

    Raises BrokenLakeError naming table and dates if the state counts events of dates that have no file.
    """
    folder = paths.aggregates(table, meter.name)

    def list_files() -> dict[dt.date, StoredFile]:
        return {date: file for date, file in part_files(storage, folder).items() if _within(date, dates)}

    def rows(files: Mapping[dt.date, StoredFile]) -> Answer:
        _check_table(storage, meter, table, dates, files)
        return work(*dated_rows(storage, files, meter, table))

    return read_consistently(list_files, rows, folder, is_whole=is_whole)


def totals(storage: Storage, meter: Meter, by: list[str], dates: Dates) -> pl.LazyFrame:
    """Return the rows of all dates merged by some of the keys of `usage`: the keys, then the measures, sorted by keys.

    They are computed now. Raises SumTooLargeError naming the keys of a sum that is too large.
    """
    _check_fields(meter, by)
    table = "usage" if meter.needs_usage or set(by) - {"subject"} else "usage_by_subject"

    def merged(rows: pl.LazyFrame, by_date: Mapping[dt.date, object]) -> pl.DataFrame:
        totals = range_totals(rows, meter, by, dates[0], _length(by_date, dates)).select(*by, *MEASURES)
        return (totals.sort(by) if by else totals).collect(engine="streaming")

    since, until = dates
    read_dates = (since and looked_back(meter, since), until)
    merged_rows = from_aggregates(storage, meter, table, read_dates, merged, is_whole=True)
    return check_sums(merged_rows, f"meter {meter.name!r}", by, lacks_quantity()).lazy()


def values(storage: Storage, meter: Meter, name: str, dates: Dates) -> pl.LazyFrame:
    """Return the values of a dimension or of `subject` as text: `value` and `events`, the most frequent first."""
    _check_fields(meter, [name])
    table = "usage_by_subject" if name == "subject" else "usage_by_dimension"

    def count(rows: pl.LazyFrame, _: object) -> pl.DataFrame:
        named = (
            rows.rename({"subject": "value"})
            if name == "subject"
            else rows.filter(pl.col("dimension") == name)
        )
        return named.group_by("value").agg(exact_count("events")).collect(engine="streaming")

    counted = from_aggregates(storage, meter, table, dates, count, is_whole=True)
    check_sums(counted, f"meter {meter.name!r}", ["value"], pl.col("events").is_null())
    return counted.lazy().sort("events", "value", descending=[True, False])


def dated_rows(
    storage: Storage, files: Mapping[dt.date, StoredFile], meter: Meter, table: str
) -> tuple[pl.LazyFrame, dict[dt.date, pl.LazyFrame]]:
    """Return the rows of these files of an aggregate table, all and by date: `date`, then its keys and measures."""
    schema = aggregate_columns(meter, table)
    frames = {
        date: table_rows(storage, file, meter, table).select(pl.lit(date).alias(DATE), *schema)
        for date, file in files.items()
    }
    return pl.concat([pl.LazyFrame(schema={DATE: pl.Date, **schema}), *frames.values()]), frames


def table_rows(storage: Storage, file: StoredFile, meter: Meter, table: str) -> pl.LazyFrame:
    """Return the rows of one file of an aggregate table, with `aggregate_columns`; dimensions that it lacks are null.

    `quantity` of avg and rate is computed from the other measures, since earlier versions wrote it as a double.
    """
    schema = aggregate_columns(meter, table)
    is_added = meter.series is not None and table != "usage"
    if meter.aggregation not in ROUNDED_AGGREGATIONS or is_added:
        return storage.scan([file], schema=schema, missing_columns="insert", extra_columns="ignore")
    stored = {name: dtype for name, dtype in schema.items() if name != "quantity"}
    rows = storage.scan([file], schema=stored, missing_columns="insert", extra_columns="ignore")
    return rows.with_columns(billed(meter)).select(schema.keys())


def _check_table(
    storage: Storage, meter: Meter, table: str, dates: Dates, files: Mapping[dt.date, StoredFile]
) -> None:
    body = storage.read(paths.state(meter.name))
    # Without a state nothing is known to be missing; the next run rebuilds it from the existing files.
    state = decode_or_rebuild_state(storage, meter.name, body) if body else MeterState()
    records = {date: record for date, record in state.partitions.items() if _within(date, dates)}
    if error := missing_table(meter.name, table, records, files):
        raise error


def _check_fields(meter: Meter, names: list[str]) -> None:
    unknown = set(names) - {"subject", *meter.dimension_names}
    if unknown:
        raise BadInputError(
            f"meter {meter.name!r} can't be grouped by {', '.join(sorted(unknown))}",
            expected=f"some of {', '.join(['subject', *meter.dimension_names])}",
            found=", ".join(names),
        )


def _length(dates_with_rows: Collection[dt.date], dates: Dates) -> dt.timedelta:
    """Return the length of the range of dates as one bucket; an open end is the first or last date with rows."""
    if not dates_with_rows:
        return DAY
    since, until = dates
    # Counted so that no date is taken beyond the end of the calendar.
    days = ((until or max(dates_with_rows)) - (since or min(dates_with_rows))).days + (0 if until else 1)
    return days * DAY


def _in_range(partitions: Mapping[dt.date, Partition], dates: Dates) -> dict[dt.date, Partition]:
    return {date: partition for date, partition in partitions.items() if _within(date, dates)}


def _within(date: dt.date, dates: Dates) -> bool:
    since, until = dates
    return (since is None or date >= since) and (until is None or date < until)


def _losers(
    snapshot: Snapshot, chosen: dict[dt.date, Partition], columns: list[str] | None = None
) -> pl.DataFrame:
    storage, meter = snapshot.storage, snapshot.meter
    sealed_winners = load_sealed_winners(storage, meter, snapshot.state.sealed)
    index = KeyIndex(storage, meter.name, snapshot.partitions)
    return find_losers(meter, snapshot.partitions, sealed_winners, chosen, index, columns)


def _event_columns(partition: Partition) -> list[pl.Expr | str]:
    return [pl.lit(partition.date).alias(DATE), *event_columns(partition.meter)]


def _no_events(meter: Meter) -> pl.LazyFrame:
    return pl.LazyFrame(schema={DATE: pl.Date, **event_columns(meter)})
