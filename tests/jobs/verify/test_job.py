"""Verification finds what a disk, a person or another program did to a lake, and names it."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import polars as pl
import pytest

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from jobs.verify import job as verify_module
from jobs.verify.job import verify
from lake import Lake, paths
from lake.checksums import write_with_sha256
from lake.state.records import METADATA_KEY
from schemas.meter import Meter
from support import DAY, METER, a_lake, aggregated, content, define, event, put, retained

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


def verified(lake: Lake) -> RunReport:
    with reported(lake, "verify") as report:
        verify(lake, report)
    return report


def found(lake: Lake) -> set[tuple[str, str]]:
    report = verified(lake)
    assert report.exit_code == 1
    assert all(said["expected"] and said["found"] for said in report.errors)
    return {(said["what"], said["where"]) for said in report.errors}


def test_a_lake_that_is_right_has_no_difference_and_is_not_changed(whole: tuple[Lake, Meter, Path]) -> None:
    lake, _, folder = whole
    before = content(folder, "aggregates", "events", "state", "index", "quarantine", "settled")
    report = verified(lake)
    assert (report.errors, report.exit_code) == ([], 0)
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
    where = paths.aggregate(table, meter.name, date)
    for place in range(0, len(body), max(1, len(body) // 5)):
        file.write_bytes(body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :])
        assert ("damaged", where) in found(lake), place
    file.write_bytes(body)
    assert verified(lake).errors == []


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
        edited = rows.with_columns(edit.cast(rows.schema[edit.meta.output_name()]))
        write_with_sha256(edited, file, {METADATA_KEY: record})
        kinds = {what for what, _ in found(lake)}
        assert kinds == {"sealed rows changed" if date == DAY else "rows differ"}
        edited.write_parquet(file, metadata={METADATA_KEY: record})
        assert ("damaged", paths.aggregate(table, meter.name, date)) in found(lake)
        write_with_sha256(rows, file, {METADATA_KEY: record})
        assert verified(lake).errors == []


def test_an_added_row_breaks_the_totals(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    file = folder / paths.aggregate("usage_by_subject", meter.name, NEXT)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    write_with_sha256(pl.concat([rows, rows]), file, {METADATA_KEY: record})
    assert {"totals", "rows differ"} <= {what for what, _ in found(lake)}


def test_another_order_and_other_columns_are_found(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    file = folder / paths.aggregate("usage", meter.name, NEXT)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    write_with_sha256(rows.reverse(), file, {METADATA_KEY: record})
    assert ("not sorted", paths.aggregate("usage", meter.name, NEXT)) in found(lake)
    write_with_sha256(rows.drop("plan"), file, {METADATA_KEY: record})
    assert ("other columns", paths.aggregate("usage", meter.name, NEXT)) in found(lake)
    write_with_sha256(rows, file)
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
    assert verified(lake).errors == []
    file = folder / paths.aggregate("usage_by_dimension", meter.name, DAY)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    edited = rows.with_columns((pl.col("quantity_max") + 1).cast(rows.schema["quantity_max"]))
    write_with_sha256(edited, file, {METADATA_KEY: record})
    assert {what for what, _ in found(lake)} == {"sealed rows changed"}


@pytest.fixture
def busy(whole: tuple[Lake, Meter, Path]) -> tuple[Lake, Meter, Path]:
    """The same with files of every kind: landed ones, rejected rows, winners of a sealed partition with copies."""
    lake, meter, folder = whole
    earlier = event("a")["received_at"] + dt.timedelta(days=1)
    put(
        lake, meter, "copy.parquet", event("e", day=NEXT), event("a", day=NEXT, received_at=earlier), day=NEXT
    )
    lines = [{"subject": "s", "meter": meter.name, "quantity": quantity} for quantity in (1, -1)]
    times = {"timestamp": f"{NEXT + dt.timedelta(days=1)}T10:00:00Z"}
    (folder / "in.jsonl").write_text("".join(json.dumps(line | times) + "\n" for line in lines))
    with reported(lake, "land") as report:
        land(lake, [str(folder / "in.jsonl")], report)
    (folder / "in.jsonl").unlink()
    aggregated(lake)
    retained(lake, NEXT + dt.timedelta(days=31))
    assert verified(lake).errors == []
    return lake, meter, folder


@pytest.mark.parametrize(
    "pattern",
    [
        "aggregates/usage/**/*.parquet",
        "quarantine/**/*.parquet",
        "index/**/*.parquet",
        "state/*.json",
        "events/**/land-*.parquet",
    ],
)
def test_a_flipped_byte_is_found_in_a_file_of_any_kind(busy: tuple[Lake, Meter, Path], pattern: str) -> None:
    lake, _, folder = busy
    file = max(folder.glob(pattern))
    stat, body = file.stat(), file.read_bytes()
    for place in (0, len(body) // 3, len(body) - 1):
        with file.open("r+b") as handle:
            handle.write(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert str(file.relative_to(folder)) in {where for _, where in found(lake)}, place


def test_a_settled_file_that_is_removed_edited_or_left_over_is_found(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "b.parquet", event("a", day=NEXT), event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    assert verified(lake).errors == []
    path = paths.sealed_winners(meter.name, DAY)
    file = tmp_path / path
    body = file.read_bytes()
    write_with_sha256(pl.read_parquet(file, hive_partitioning=False).with_columns(subject=pl.lit("x")), file)
    assert ("sealed rows changed", path) in found(lake)
    file.write_bytes(body[:-9])
    assert ("damaged", path) in found(lake)
    file.unlink()
    assert ("missing", path) in found(lake)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    assert verified(lake).errors == []


def test_a_lost_state_and_aggregates_of_no_meter_are_found(whole: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = whole
    (folder / paths.state(meter.name)).unlink()
    source, stray = (folder / paths.aggregate("usage", name, NEXT) for name in (meter.name, "another"))
    stray.parent.mkdir(parents=True)
    stray.write_bytes(source.read_bytes())
    assert found(lake) >= {
        ("missing", paths.state(meter.name)),
        ("unknown", paths.aggregate("usage", "another", NEXT)),
    }


def test_a_stale_partition_makes_no_difference_of_another(whole: tuple[Lake, Meter, Path]) -> None:
    """Copies in files that no run has counted yet, or that are gone, are no fault of other partitions."""
    lake, meter, folder = whole
    last = NEXT + dt.timedelta(days=1)
    earlier = event("d")["received_at"] - dt.timedelta(days=1)
    put(
        lake,
        meter,
        "late.parquet",
        event("d", day=last, timestamp=event("d", day=last)["timestamp"], received_at=earlier),
        day=last,
    )
    assert found(lake) == {("out of date", paths.events(meter.name, last))}
    (folder / paths.events(meter.name, NEXT) / "b.parquet").unlink()
    assert {what for what, _ in found(lake)} == {"out of date"}
    aggregated(lake)
    assert verified(lake).errors == []


def test_dates_may_be_derived_in_shares(
    whole: tuple[Lake, Meter, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter, folder = whole
    monkeypatch.setattr(verify_module, "KEYS_AT_ONCE", 1)
    assert verified(lake).errors == []
    (folder / paths.aggregate("usage", meter.name, NEXT)).unlink()
    assert found(lake) == {("missing", paths.aggregate("usage", meter.name, NEXT))}


def test_one_broken_meter_does_not_hide_the_others(whole: tuple[Lake, Meter, Path]) -> None:
    lake, _, folder = whole
    other = define(lake, name="another")
    put(lake, other, "a.parquet", event("a"))
    aggregated(lake, meter="another")
    (folder / paths.state("another")).write_bytes(b"{")
    (folder / paths.aggregate("usage", METER["name"], NEXT)).unlink()
    assert found(lake) == {
        ("not a state file", paths.state("another")),
        ("missing", paths.aggregate("usage", METER["name"], NEXT)),
    }
