"""Derive every open partition once more from its raw events, and hold all that is published against it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import polars as pl

from jobs.progress import track
from jobs.report import Report
from jobs.tables import usage_tables
from lake import Lake, paths
from lake.admission import admit, reject_unreadable
from lake.copies import find_losers, settled_winners
from lake.dedup import DATE
from lake.events import ROW, Partition
from lake.index import KeyIndex
from lake.planning import changes
from lake.publish import PUBLISH_ORDER, checksum, published_files
from lake.readers import aggregate_columns
from lake.state import PartitionState, read_record
from lake.storage import Storage, StoredFile
from lake.survey import MeterView, survey
from schemas.errors import DifferenceError
from schemas.meter import Meter

MEASURED = ["events", "quantity_sum"]
KEYS = {"usage_by_subject": ["subject"], "usage_by_dimension": ["dimension", "value"]}


class _Published(NamedTuple):
    """One partition as it was concluded, and its tables as far as they can be read."""

    storage: Storage
    meter: Meter
    date: dt.date
    record: PartitionState
    tables: dict[str, pl.DataFrame]


def verify(lake: Lake, report: Report, *, meter: str | None = None) -> None:
    """Name every difference between what a lake says and what its events give; nothing is changed.

    Open partitions are derived from raw events, without the index; of sealed ones the checksum counts that was
    taken when they were sealed. Every published file is read to its end, and held to its columns, its order, its
    record and the totals of the other tables. Differences end the run with exit code 1.
    """
    for view in survey(lake.storage, meter):
        for difference in _of_meter(lake.storage, view, report):
            report.problem(difference)


def _of_meter(storage: Storage, view: MeterView, report: Report) -> Iterator[DifferenceError]:
    meter, state = view.meter, view.state
    stale = changes(view.files, state, meter.version)
    for date, change in stale.items():
        yield _difference("out of date", paths.events(meter.name, date), "aggregated files", change.why)
    partitions, rejected = admit(storage, meter, view.files, state)
    if reject_unreadable(partitions, rejected, set(partitions)):
        for date in partitions:
            known = state.partitions[date].rejected if date in state.partitions else {}
            for name in rejected[date].keys() - known.keys():
                where = paths.events(meter.name, date) + name
                yield _difference(
                    "damaged", where, "the file that was aggregated", rejected[date][name]["found"]
                )
    settled = settled_winners(storage, meter, state.sealed)
    index = KeyIndex(storage, meter.name, partitions, fresh=True)
    lost = find_losers(meter, partitions, settled, partitions.keys(), index)
    held = {
        place.date
        for file in storage.list(paths.aggregates("usage", meter.name))
        if (place := paths.split_partition(file.path))
    }
    for date in sorted(held - state.partitions.keys()):
        yield _difference(
            "unknown", paths.aggregate("usage", meter.name, date), "no file", "a file of no known partition"
        )
    for date in track(sorted(state.partitions.keys() - stale.keys()), f"verify {meter.name}"):
        record = state.partitions[date]
        published = _Published(storage, meter, date, record, {})
        yield from _published(published)
        if record.sealed_at:
            yield from _sealed(published)
        else:
            yield from _derived(partitions[date], lost.filter(pl.col(DATE) == date), published.tables)
        report.events_read += record.events


def _published(of: _Published) -> Iterator[DifferenceError]:
    """What is wrong with the partition's files, each by itself and together; puts what can be read into its tables."""
    files = published_files(of.storage, of.meter.name, of.date)
    for table in PUBLISH_ORDER:
        path = paths.aggregate(table, of.meter.name, of.date)
        if table in files:
            if not of.record.events and not of.record.sealed_at:
                yield _difference("unknown", path, "no file, since no event counts", "a file")
            yield from _one_file(of, files[table], table)
        elif of.record.events or of.record.sealed_at:
            yield _difference("missing", path, "a file", "none")
    yield from _totals(of)


def _one_file(of: _Published, file: StoredFile, table: str) -> Iterator[DifferenceError]:
    try:
        rows = of.storage.scan([file]).collect()
        record = read_record(of.storage, file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, msgspec.DecodeError) as error:
        # What is not as Parquet has it makes Polars panic at times.
        yield _difference("damaged", file.path, "Parquet that can be read", str(error).splitlines()[0])
        return
    if record != of.record:
        yield _difference(
            "other inputs", file.path, f"made of {of.record.fingerprint}", "another record, or none"
        )
    columns = aggregate_columns(of.meter, table)
    # A dimension that was declared after the sealing is not in a sealed file.
    allowed = rows.schema.items() <= columns.items() if of.record.sealed_at else dict(rows.schema) == columns
    if not allowed:
        yield _difference("other columns", file.path, str(columns), str(dict(rows.schema)))
        return
    of.tables[table] = rows
    keys = KEYS.get(table, [name for name in rows.columns if name in ("subject", *of.meter.dimension_names)])
    if not rows.select(keys).equals(rows.select(keys).sort(keys)):
        yield _difference("not sorted", file.path, f"rows by {', '.join(keys)}", "another order")


def _totals(of: _Published) -> Iterator[DifferenceError]:
    """The three tables tell of the same events."""
    if "usage" not in of.tables:
        return
    expected = of.tables["usage"].select(pl.col(MEASURED).sum()).row(0)
    for table in sorted(KEYS.keys() & of.tables.keys()):
        rows = of.tables[table]
        groups = [rows] if table == "usage_by_subject" else rows.partition_by("dimension")
        for group in groups:
            found = group.select(pl.col(MEASURED).sum()).row(0)
            if found != expected:
                where = paths.aggregate(table, of.meter.name, of.date)
                yield _difference("totals", where, _said(expected), _said(found))


def _sealed(of: _Published) -> Iterator[DifferenceError]:
    found = checksum(of.tables) if of.tables.keys() == set(PUBLISH_ORDER) else None
    if found and found != of.record.checksum:
        where = paths.aggregate("usage", of.meter.name, of.date)
        yield _difference("sealed rows changed", where, f"checksum {of.record.checksum}", found)


def _derived(
    partition: Partition, lost: pl.DataFrame, tables: dict[str, pl.DataFrame]
) -> Iterator[DifferenceError]:
    meter = partition.meter
    counting = partition.valid().filter(~pl.col(ROW).is_in(lost[ROW].implode()))
    expected = usage_tables(counting, meter)
    for table, rows in expected.items():
        published = tables.get(table)
        if published is None or published.schema != rows.schema or published.equals(rows):
            continue
        differing = rows.join(published, on=rows.columns, how="anti", nulls_equal=True)
        surplus = published.join(rows, on=rows.columns, how="anti", nulls_equal=True)
        where = paths.aggregate(table, meter.name, partition.date)
        yield _difference(
            "rows differ",
            where,
            f"{differing.height} other rows",
            f"{surplus.height} that events do not give",
        )


def _difference(what: str, where: str, expected: str, found: str) -> DifferenceError:
    hint = "see what happened to the file; then: meterlake aggregate --rebuild"
    return DifferenceError(what, where=where, expected=expected, found=found, hint=hint)


def _said(totals: tuple[object, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(MEASURED, totals, strict=True))
