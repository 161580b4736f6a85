"""Verification finds what a disk, a person or another program did to a lake, and names it."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import polars as pl
import pytest

from jobs.report import Report, reported
from jobs.verify import verify
from lake import Lake, paths
from lake.state import METADATA_KEY
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, content, event, put, retained

NEXT = DAY + dt.timedelta(days=1)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Lake, Meter, Path]:
    """A lake with a sealed partition, an open one, and one of which every event lost."""
    lake, meter = a_lake(tmp_path)
    put(
        lake, meter, "a.parquet", event("a"), event("k", quantity="2"), event("b", subject="org_2", plan=None)
    )
    put(
        lake,
        meter,
        "b.parquet",
        event("k", day=NEXT),
        event("c", day=NEXT),
        event("d", day=NEXT, plan="x"),
        day=NEXT,
    )
    last = NEXT + dt.timedelta(days=1)
    put(lake, meter, "c.parquet", event("c", day=last), day=last)
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    return lake, meter, tmp_path


def verified(lake: Lake) -> Report:
    with reported(lake, "verify") as report:
        verify(lake, report)
    return report


def found(lake: Lake) -> set[tuple[str, str]]:
    report = verified(lake)
    assert report.exit_code == 1
    assert all(said["expected"] and said["found"] for said in report.problems)
    return {(said["what"], said["where"]) for said in report.problems}


def test_a_lake_that_is_right_has_no_difference_and_is_not_changed(whole: tuple[Lake, Meter, Path]) -> None:
    lake, _, folder = whole
    before = content(folder, "aggregates", "events", "state", "index", "quarantine", "settled")
    report = verified(lake)
    assert (report.problems, report.exit_code) == ([], 0)
    assert content(folder, "aggregates", "events", "state", "index", "quarantine", "settled") == before


@pytest.mark.parametrize("table", paths.TABLES)
@pytest.mark.parametrize("date", [DAY, NEXT], ids=["sealed", "open"])
def test_a_removed_file_is_found(whole: tuple[Lake, Meter, Path], date: dt.date, table: str) -> None:
    lake, meter, folder = whole
    (folder / paths.aggregate(table, meter.name, date)).unlink()
    assert ("missing", paths.aggregate(table, meter.name, date)) in found(lake)


@pytest.mark.parametrize("table", paths.TABLES)
@pytest.mark.parametrize("date", [DAY, NEXT], ids=["sealed", "open"])
def test_a_flipped_byte_is_found_wherever_it_is(
    whole: tuple[Lake, Meter, Path], date: dt.date, table: str
) -> None:
    lake, meter, folder = whole
    file = folder / paths.aggregate(table, meter.name, date)
    body = file.read_bytes()
    for place in range(4, len(body), max(1, len(body) // 15)):
        file.write_bytes(body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :])
        report = verified(lake)
        # A few bytes of a Parquet file say nothing: padding, names of the writer.
        same = pl.read_parquet(file).equals(pl.read_parquet(body)) if not report.problems else True
        assert report.exit_code == 1 or same, place
    file.write_bytes(body)
    assert verified(lake).problems == []


@pytest.mark.parametrize("table", paths.TABLES)
@pytest.mark.parametrize("date", [DAY, NEXT], ids=["sealed", "open"])
def test_an_edited_row_is_found_though_the_file_looks_right(
    whole: tuple[Lake, Meter, Path], date: dt.date, table: str
) -> None:
    lake, meter, folder = whole
    file = folder / paths.aggregate(table, meter.name, date)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    for edit in (
        pl.col("quantity") + 1,
        pl.col("quantity_last") + 1,
        pl.col("last_at") + dt.timedelta(seconds=1),
    ):
        rows = pl.read_parquet(file, hive_partitioning=False)
        rows.with_columns(edit.cast(rows.schema[edit.meta.output_name()])).write_parquet(
            file, metadata={METADATA_KEY: record}
        )
        kinds = {what for what, _ in found(lake)}
        assert kinds == {"sealed rows changed" if date == DAY else "rows differ"}
        rows.write_parquet(file, metadata={METADATA_KEY: record})
        assert verified(lake).problems == []


def test_an_added_row_breaks_the_totals(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    file = folder / paths.aggregate("usage_by_subject", meter.name, NEXT)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    pl.concat([rows, rows]).write_parquet(file, metadata={METADATA_KEY: record})
    assert {"totals", "rows differ"} <= {what for what, _ in found(lake)}


def test_another_order_and_other_columns_are_found(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    file = folder / paths.aggregate("usage", meter.name, NEXT)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    rows.reverse().write_parquet(file, metadata={METADATA_KEY: record})
    assert ("not sorted", paths.aggregate("usage", meter.name, NEXT)) in found(lake)
    rows.drop("plan").write_parquet(file, metadata={METADATA_KEY: record})
    assert ("other columns", paths.aggregate("usage", meter.name, NEXT)) in found(lake)
    rows.write_parquet(file)
    assert ("other inputs", paths.aggregate("usage", meter.name, NEXT)) in found(lake)


def test_a_stale_partition_is_found(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, _ = whole
    put(lake, meter, "late.parquet", event("z", day=NEXT), day=NEXT)
    assert found(lake) == {("out of date", paths.events(meter.name, NEXT))}


def test_a_file_of_no_known_partition_is_found(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    source = folder / paths.aggregate("usage", meter.name, NEXT)
    stray = folder / paths.aggregate("usage", meter.name, DAY - dt.timedelta(days=9))
    stray.parent.mkdir(parents=True)
    stray.write_bytes(source.read_bytes())
    assert ("unknown", paths.aggregate("usage", meter.name, DAY - dt.timedelta(days=9))) in found(lake)


def test_a_raw_file_that_rots_in_its_place_is_found(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    file = folder / paths.events(meter.name, NEXT) / "b.parquet"
    stat, body = file.stat(), bytearray(file.read_bytes())
    body[8:200] = bytes(192)
    with file.open("r+b") as handle:
        handle.write(body)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ("damaged", paths.events(meter.name, NEXT) + "b.parquet") in found(lake)


def test_the_seal_is_held_to_its_checksum_after_the_state_was_lost(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    (folder / paths.state(meter.name)).unlink()
    aggregated(lake)
    assert verified(lake).problems == []
    file = folder / paths.aggregate("usage_by_dimension", meter.name, DAY)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    rows.with_columns(pl.col("quantity_max") + 1).cast(rows.schema).write_parquet(  # type: ignore[arg-type] # a schema
        file, metadata={METADATA_KEY: record}
    )
    assert {what for what, _ in found(lake)} == {"sealed rows changed"}
