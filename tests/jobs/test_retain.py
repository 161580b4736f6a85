"""Retention: what is dropped, what is refused, and that no number changes for it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from lake import paths
from lake.state.records import METADATA_KEY
from lake.state.state_file import load_state
from support import DAY, a_lake, aggregated, content, define, event, put, recomputed, retained, usage

NEXT = DAY + dt.timedelta(days=1)
# The first day on which DAY has expired: the meter keeps 30 days.
EXPIRED = DAY + dt.timedelta(days=31)
MINUTE = dt.timedelta(minutes=1)


def test_a_partition_expires_the_day_after_its_retention(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    assert retained(lake, EXPIRED - dt.timedelta(days=1)).partitions == []
    assert file.exists()
    report = retained(lake, EXPIRED)
    assert [(done.date, done.action) for done in report.partitions] == [(DAY, "dropped")]
    assert not file.exists()
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert load_state(lake.storage, meter.name).sealed == {DAY}
    assert retained(lake, EXPIRED).partitions == []


def test_a_dry_run_prints_the_same_plan_and_touches_nothing(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "b.parquet", event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    put(lake, meter, "c.parquet", event("c", day=NEXT), day=NEXT)
    before = content(tmp_path, ".")
    planned = retained(lake, EXPIRED + dt.timedelta(days=9), dry_run=True)
    assert content(tmp_path, ".") == before
    done = retained(lake, EXPIRED + dt.timedelta(days=9))
    assert planned.partitions == done.partitions
    assert planned.errors == done.errors
    assert planned.exit_code == done.exit_code == 1


def test_what_is_not_aggregated_is_not_dropped(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    report = retained(lake, EXPIRED)
    assert report.exit_code == 1
    assert [problem["found"] for problem in report.errors] == ["new"]
    aggregated(lake)
    late = put(lake, meter, "b.parquet", event("b"))
    assert [problem["found"] for problem in retained(lake, EXPIRED).errors] == ["files added"]
    assert file.exists()
    assert late.exists()


def test_a_partition_with_an_unreadable_file_is_not_dropped(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    bad = put(lake, meter, "bad.parquet", event("b"))
    bad.write_bytes(b"")
    aggregated(lake)
    assert [problem["found"] for problem in retained(lake, EXPIRED).errors] == [
        "files that can't be read: bad.parquet"
    ]
    assert bad.exists()


@pytest.mark.parametrize("table", paths.TABLES)
def test_a_partition_whose_aggregates_were_removed_is_not_dropped(tmp_path: Path, table: str) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    (tmp_path / paths.aggregate(table, meter.name, DAY)).unlink()
    report = retained(lake, EXPIRED)
    assert report.exit_code == 1
    assert file.exists()
    aggregated(lake, rebuild=True)
    assert retained(lake, EXPIRED).exit_code == 0


def test_a_late_file_in_a_sealed_partition_goes_to_quarantine_and_changes_no_number(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, EXPIRED)
    before = content(tmp_path, "aggregates")
    late = put(lake, meter, "late.parquet", event("b", quantity="5"), event("c", quantity="6"))
    report = aggregated(lake)
    assert report.quarantined == {"sealed_partition": 2}
    assert report.exit_code == 1
    assert not late.exists()
    assert content(tmp_path, "aggregates") == before
    kept = pl.read_parquet(tmp_path / paths.quarantine(meter.name))
    assert kept["reason"].to_list() == ["sealed_partition"] * 2
    assert aggregated(lake, rebuild=True).partitions == []
    assert content(tmp_path, "aggregates") == before


def test_a_copy_of_a_dropped_winner_is_never_counted(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k", quantity="5"))
    put(lake, meter, "b.parquet", event("k", quantity="7", day=NEXT), event("x", day=NEXT), day=NEXT)
    aggregated(lake)
    expected = [(DAY, "org_1", Decimal(5)), (NEXT, "org_1", Decimal(1))]
    assert usage(lake, meter) == expected
    retained(lake, EXPIRED)
    put(lake, meter, "c.parquet", event("k", quantity="9", day=NEXT), day=NEXT)
    report = aggregated(lake)
    assert (recomputed(report), report.duplicates, report.conflicts) == ({NEXT: "files added"}, 2, 2)
    assert usage(lake, meter) == expected
    aggregated(lake, rebuild=True)
    assert usage(lake, meter) == expected


def test_dropping_a_loser_leaves_its_winner(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k", quantity="5"), event("x"))
    midnight = dt.datetime.combine(NEXT, dt.time(), dt.UTC)
    early = event("k", quantity="7", timestamp=midnight, received_at=event("k")["received_at"] - MINUTE)
    put(lake, meter, "b.parquet", early, day=NEXT)
    aggregated(lake)
    retained(lake, EXPIRED)
    aggregated(lake, rebuild=True)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1)), (NEXT, "org_1", Decimal(7))]


def test_dropping_at_once_or_day_by_day_ends_the_same(tmp_path: Path) -> None:
    ends = []
    for name, moments in {"once": [32], "daily": [31, 32]}.items():
        lake, meter = a_lake(tmp_path / name)
        for number in range(3):
            day = DAY + dt.timedelta(days=number)
            put(lake, meter, "a.parquet", event("k", day=day), event(f"x{number}", day=day), day=day)
        aggregated(lake)
        for days in moments:
            retained(lake, DAY + dt.timedelta(days=days))
        put(
            lake,
            meter,
            "b.parquet",
            event("k", day=DAY + dt.timedelta(days=2)),
            day=DAY + dt.timedelta(days=2),
        )
        aggregated(lake)
        ends.append(usage(lake, meter))
    assert ends[0] == ends[1]


def test_a_partition_without_counted_events_is_sealed_too(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k", day=NEXT, received_at=event("k")["received_at"]), day=NEXT)
    put(lake, meter, "a.parquet", event("k", received_at=event("k")["received_at"] + MINUTE))
    aggregated(lake)
    assert retained(lake, EXPIRED).exit_code == 0
    assert load_state(lake.storage, meter.name).sealed == {DAY}
    assert pl.read_parquet(tmp_path / paths.aggregate("usage", meter.name, DAY)).height == 0
    assert aggregated(lake).partitions == []


def test_the_seal_survives_the_loss_of_the_state(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, EXPIRED)
    (tmp_path / paths.state(meter.name)).unlink()
    put(lake, meter, "late.parquet", event("b"))
    assert aggregated(lake).quarantined == {"sealed_partition": 1}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


def test_raising_retention_does_not_open_what_is_sealed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, EXPIRED)
    define(lake, event_retention_days=3650)
    put(lake, meter, "late.parquet", event("b"))
    assert aggregated(lake).quarantined == {"sealed_partition": 1}


def test_lowering_retention_drops_what_it_had_kept_and_nothing_else(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "b.parquet", event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    as_of = DAY + dt.timedelta(days=11)
    assert retained(lake, as_of).partitions == []
    define(lake, event_retention_days=10)
    assert aggregated(lake).partitions == []
    assert [done.date for done in retained(lake, as_of).partitions] == [DAY]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1)), (NEXT, "org_1", Decimal(1))]


def test_a_partition_whose_rows_were_edited_is_not_sealed_with_them(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    file = tmp_path / paths.aggregate("usage", meter.name, DAY)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    edited = rows.with_columns((pl.col("quantity_sum") + 1).cast(rows.schema["quantity_sum"]))
    edited.write_parquet(file, metadata={METADATA_KEY: record})
    report = retained(lake, DAY + dt.timedelta(days=31))
    assert report.exit_code == 1
    assert report.errors[0]["found"] == "aggregate files with other rows"
    aggregated(lake, rebuild=True)
    assert retained(lake, DAY + dt.timedelta(days=31)).exit_code == 0


@pytest.mark.parametrize("table", paths.TABLES)
@pytest.mark.parametrize("lose_state", [True, False])
def test_a_seal_survives_the_loss_of_a_table_and_a_rebuild(
    tmp_path: Path, table: str, lose_state: bool
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    (tmp_path / paths.aggregate(table, meter.name, DAY)).write_bytes(b"PAR1 no more")
    if lose_state:
        (tmp_path / paths.state(meter.name)).unlink()
    put(lake, meter, "late.parquet", event("z"))
    report = aggregated(lake, rebuild=True)
    assert report.quarantined == {"sealed_partition": 1}
    assert load_state(lake.storage, meter.name).sealed == {DAY}


def test_a_partition_that_nobody_can_tell_to_be_sealed_stops_the_run(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    for table in paths.TABLES:
        (tmp_path / paths.aggregate(table, meter.name, DAY)).write_bytes(b"PAR1 no more")
    (tmp_path / paths.state(meter.name)).unlink()
    report = aggregated(lake)
    assert report.exit_code == 3
    assert ["its raw events are gone" in said["what"] for said in report.errors] == [True]
    assert report.partitions == []


def test_winners_that_an_interrupted_sealing_left_do_not_count(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"), event("a"))
    copy = put(lake, meter, "b.parquet", event("k", day=NEXT), day=NEXT)
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    left = (tmp_path / paths.sealed_winners(meter.name, DAY)).read_bytes()
    # The same lake as if that sealing had been interrupted, and then all that made these winners had gone.
    again, _ = a_lake(tmp_path / "again")
    put(again, meter, "a.parquet", event("a"))
    aggregated(again)
    target = tmp_path / "again" / paths.sealed_winners(meter.name, DAY)
    target.parent.mkdir(parents=True)
    target.write_bytes(left)
    retained(again, DAY + dt.timedelta(days=31))
    put(again, meter, copy.name, event("k", day=NEXT), day=NEXT)
    aggregated(again)
    assert [date for date, *_ in usage(again, meter)] == [DAY, NEXT]
