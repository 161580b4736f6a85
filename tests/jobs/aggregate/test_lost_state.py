"""What footers tell of a meter whose state file is lost, or was never saved since the first run was interrupted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from faults.storage import BrokenOffError, DyingStorage
from jobs.compact import compact
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.state.records import PUBLISH_ORDER
from lake.state.state_file import load_state
from schemas.meter import Meter
from support import (
    DAY,
    METER,
    a_lake,
    aggregated,
    content,
    define,
    event,
    put,
    recomputed,
    retained,
    usage,
)

NEXT = DAY + dt.timedelta(days=1)
EXPIRED = DAY + dt.timedelta(days=31)
EARLIER = event("k")["received_at"] - dt.timedelta(hours=1)
NAME = METER["name"]


def lose_state(lake: Lake) -> None:
    """Remove the state file of the tests' meter."""
    (Path(lake.url) / paths.state(NAME)).unlink(missing_ok=True)


def table_files(lake: Lake, day: dt.date = DAY) -> list[Path]:
    """The partition's files in the order in which they are published."""
    return [Path(lake.url) / paths.aggregate(table, NAME, day) for table in PUBLISH_ORDER]


def rows(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    return {table: getattr(lake, table)(NAME).collect().to_dicts() for table in paths.TABLES}


def two_dates(folder: Path) -> tuple[Lake, Meter]:
    """A lake with an event on each of two dates, and a duplicate on the second, aggregated."""
    lake, meter = a_lake(folder)
    put(lake, meter, "a.parquet", event("k", received_at=EARLIER))
    put(lake, meter, "b.parquet", event("k", day=NEXT), event("x", day=NEXT), day=NEXT)
    aggregated(lake)
    return lake, meter


@pytest.mark.parametrize("published", [1, 2])
def test_an_interrupted_first_aggregation_is_done_again(tmp_path: Path, published: int) -> None:
    lake, _ = two_dates(tmp_path)
    expected = rows(lake)
    lose_state(lake)
    for file in table_files(lake, NEXT)[published:]:
        file.unlink()
    assert load_state(lake.storage, NAME).partitions[NEXT].events == 0
    assert recomputed(aggregated(lake)) == {NEXT: "interrupted before"}
    assert rows(lake) == expected
    assert recomputed(aggregated(lake)) == {}


@pytest.mark.parametrize("published", [1, 2])
def test_a_partition_with_tables_of_different_inputs_is_out_of_date(tmp_path: Path, published: int) -> None:
    lake, meter = two_dates(tmp_path)
    before = content(tmp_path, "aggregates")
    put(lake, meter, "c.parquet", event("c"))
    aggregated(lake)
    expected = rows(lake)
    for file in table_files(lake)[published:]:
        file.write_bytes(before[str(file.relative_to(tmp_path))])
    lose_state(lake)
    assert recomputed(aggregated(lake)) == {DAY: "interrupted before"}
    assert rows(lake) == expected


@pytest.mark.parametrize("table", paths.TABLES)
@pytest.mark.parametrize("damage", ["missing", "unreadable", "of another date", "of another table"])
def test_a_table_that_is_not_the_partitions_own_is_made_again(
    tmp_path: Path, table: str, damage: str
) -> None:
    lake, _ = two_dates(tmp_path)
    expected = rows(lake)
    lose_state(lake)
    file, other = tmp_path / paths.aggregate(table, NAME, DAY), paths.TABLES[paths.TABLES.index(table) - 1]
    if damage == "missing":
        file.unlink()
    elif damage == "unreadable":
        file.write_bytes(b"PAR1 no more")
    else:
        place = (table, NEXT) if damage == "of another date" else (other, DAY)
        file.write_bytes((tmp_path / paths.aggregate(place[0], NAME, place[1])).read_bytes())
    assert recomputed(aggregated(lake)) == {DAY: "interrupted before"}
    assert rows(lake) == expected


def test_tables_that_were_copied_from_another_date_or_meter_are_not_believed(tmp_path: Path) -> None:
    """A file of the same name, size and time is the same file, as after copying folders."""
    lake, meter = a_lake(tmp_path)
    other = define(lake, name="other")
    files = [put(lake, meter, "a.parquet", event("a"))]
    files += [
        put(lake, meter, "a.parquet", event("b", day=NEXT), day=NEXT),
        put(lake, other, "a.parquet", event("c")),
    ]
    aggregated(lake)
    for day, source in ((NEXT, table_files(lake)), (DAY, table_files(lake, NEXT))):
        contents = [file.read_bytes() for file in source]
        for file, body in zip(table_files(lake, day), contents, strict=True):
            file.write_bytes(body)
    lose_state(lake)
    assert set(recomputed(aggregated(lake)).values()) == {"interrupted before"}
    assert all(file.exists() for file in files)


def test_what_an_interrupted_run_had_not_come_to_is_found_by_comparing_all_dates(tmp_path: Path) -> None:
    """The winner went; its own date was published, the date of the duplicate that counts now was not."""
    lake, meter = two_dates(tmp_path)
    before = content(tmp_path, "aggregates")
    put(lake, meter, "a.parquet", event("other"))
    aggregated(lake)
    expected = rows(lake)
    for file in table_files(lake, NEXT):
        file.write_bytes(before[str(file.relative_to(tmp_path))])
    lose_state(lake)
    assert retained(lake, EXPIRED + dt.timedelta(days=1)).exit_code == 1
    assert load_state(lake.storage, NAME).sealed == set()
    assert recomputed(aggregated(lake)) == {NEXT: "a duplicate in another partition"}
    assert rows(lake) == expected
    assert usage(lake, meter)[1] == (NEXT, "org_1", Decimal(2))


def test_retention_waits_until_a_lost_state_was_rebuilt(tmp_path: Path) -> None:
    lake, _ = two_dates(tmp_path)
    lose_state(lake)
    report = retained(lake, EXPIRED)
    assert [(said["found"], said["hint"]) for said in report.errors] == [
        ("no state file of the meter", "run: meterlake aggregate")
    ]
    assert aggregated(lake).partitions == []
    assert retained(lake, EXPIRED).exit_code == 0


@pytest.mark.parametrize("left", [1, 2])
def test_a_half_withdrawn_partition_is_withdrawn(tmp_path: Path, left: int) -> None:
    lake, meter = two_dates(tmp_path)
    (tmp_path / paths.events(NAME, NEXT) / "b.parquet").unlink()
    for file in table_files(lake, NEXT)[left:]:
        file.unlink()
    lose_state(lake)
    assert recomputed(aggregated(lake)) == {NEXT: "vanished"}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert not any(file.exists() for file in table_files(lake, NEXT))


def test_a_partition_that_lost_a_table_and_its_events_stops_its_meter_alone(tmp_path: Path) -> None:
    lake, meter = two_dates(tmp_path)
    other = define(lake, name="other")
    (tmp_path / paths.events(NAME, NEXT) / "b.parquet").unlink()
    table_files(lake, NEXT)[0].unlink()
    lose_state(lake)
    put(lake, other, "a.parquet", event("a"))
    report = aggregated(lake)
    assert report.exit_code == 3
    assert [(said["where"], "events are gone" in said["what"]) for said in report.errors] == [
        (paths.events(NAME, NEXT), True)
    ]
    assert usage(lake, other) == [(DAY, "org_1", Decimal(1))]
    assert usage(lake, meter)[1] == (NEXT, "org_1", Decimal(1))


def test_a_partition_of_rejected_files_only_is_looked_at_again(tmp_path: Path) -> None:
    lake, _ = two_dates(tmp_path)
    (tmp_path / paths.events(NAME, NEXT) / "b.parquet").write_bytes(b"PAR1 no more")
    assert aggregated(lake).exit_code == 1
    before = load_state(lake.storage, NAME).partitions[NEXT].rejected
    lose_state(lake)
    report = aggregated(lake)
    assert (report.exit_code, recomputed(report)) == (1, {NEXT: "new"})
    assert load_state(lake.storage, NAME).partitions[NEXT].rejected == before


def test_half_published_tables_go_where_no_file_can_be_counted(tmp_path: Path) -> None:
    lake, meter = two_dates(tmp_path)
    put(lake, meter, "c.parquet", event("c", day=NEXT), day=NEXT)
    aggregated(lake)
    with reported(lake, "compact") as report:
        compact(lake, report, as_of=EXPIRED)
    folder = tmp_path / paths.events(NAME, NEXT)
    for file in folder.glob("?.parquet"):
        file.unlink()
    (damaged,) = folder.glob("compacted-*")
    damaged.write_bytes(b"PAR1 no more")
    table_files(lake, NEXT)[-1].unlink()
    lose_state(lake)
    report = aggregated(lake)
    assert (report.exit_code, recomputed(report)) == (1, {NEXT: "vanished"})
    assert [said["where"] for said in report.errors] == [str(damaged.relative_to(tmp_path))]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    # The index is lost and a key goes: every other date is looked at, and this one has nothing to look at.
    (folder.parent / f"date={DAY}" / "a.parquet").unlink()
    put(lake, meter, "d.parquet", event("d"))
    for file in (tmp_path / paths.indexes(NAME)).iterdir():
        file.unlink()
    report = aggregated(lake)
    assert (report.exit_code, len(report.errors)) == (1, 1)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


# Sealing


def dies(lake: Lake, job: Callable[[Lake], RunReport], before: str, survives: int = 0) -> None:
    """Run a job that is killed before it changes something below a folder, or after so many changes there."""
    with pytest.raises(BrokenOffError):
        job(lake.over(DyingStorage(lake.url, before, survives)))


def retained_then(lake: Lake) -> RunReport:
    """Retention on the day on which the first date expires."""
    return retained(lake, EXPIRED)


def interrupted_sealing(folder: Path, tables: int = 3) -> tuple[Lake, Meter]:
    """A lake whose sealing of the first date died after so many tables, and before the state was saved."""
    lake, meter = two_dates(folder)
    dies(lake, retained_then, paths.STATE if tables == 3 else paths.AGGREGATES, 0 if tables == 3 else tables)
    return lake, meter


@pytest.mark.parametrize("tables", [1, 2, 3])
@pytest.mark.parametrize("rebuild", [True, False])
@pytest.mark.parametrize("lost", [True, False])
def test_a_sealing_that_was_interrupted_is_not_final(
    tmp_path: Path, tables: int, *, rebuild: bool, lost: bool
) -> None:
    lake, meter = interrupted_sealing(tmp_path, tables)
    put(lake, meter, "late.parquet", event("late"))
    if lost:
        lose_state(lake)
    assert load_state(lake.storage, NAME).sealed == set()
    assert aggregated(lake, rebuild=rebuild).quarantined == {}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2)), (NEXT, "org_1", Decimal(1))]
    assert retained(lake, EXPIRED).exit_code == 0
    assert load_state(lake.storage, NAME).sealed == {DAY}
    # The event that won against one of the next day is kept beside what is sealed.
    assert aggregated(lake, rebuild=True).exit_code == 0
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2)), (NEXT, "org_1", Decimal(1))]


def test_a_rebuild_does_not_ask_footers_what_the_state_knows(tmp_path: Path) -> None:
    """Since the sealing was interrupted a file was replaced: not all is there unchanged, but the date is open."""
    lake, meter = interrupted_sealing(tmp_path)
    put(lake, meter, "a.parquet", event("k", received_at=EARLIER), event("more"))
    assert aggregated(lake, rebuild=True).quarantined == {}
    assert usage(lake, meter)[0] == (DAY, "org_1", Decimal(2))


@pytest.mark.parametrize("rebuild", [True, False])
@pytest.mark.parametrize("dropped", ["a.parquet", "z.parquet"])
def test_a_half_dropped_date_stays_sealed_without_its_state(
    tmp_path: Path, dropped: str, *, rebuild: bool
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"))
    put(lake, meter, "z.parquet", event("z"))
    aggregated(lake)
    dies(lake, retained_then, paths.EVENTS)
    (tmp_path / paths.events(NAME, DAY) / dropped).unlink()
    lose_state(lake)
    put(lake, meter, "late.parquet", event("late"))
    assert aggregated(lake, rebuild=rebuild).quarantined == {"sealed_partition": 1}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2))]
    assert [done.reason for done in retained(lake, EXPIRED).partitions] == ["interrupted before"]
    assert content(tmp_path, "events") == {}


def test_a_date_without_events_whose_sealing_was_interrupted_keeps_no_tables(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    at = event("k")["received_at"]
    put(lake, meter, "b.parquet", event("k", day=NEXT, received_at=at), day=NEXT)
    put(lake, meter, "a.parquet", event("k", received_at=at + dt.timedelta(minutes=1)))
    aggregated(lake)
    dies(lake, retained_then, paths.EVENTS)
    lose_state(lake)
    assert recomputed(aggregated(lake)) == {DAY: "interrupted before"}
    assert not any(file.exists() for file in table_files(lake))


def test_sealed_tables_that_disagree_are_never_computed_from_late_events(tmp_path: Path) -> None:
    lake, meter = two_dates(tmp_path)
    before = content(tmp_path, "aggregates")
    put(lake, meter, "c.parquet", event("c"))
    aggregated(lake)
    retained(lake, EXPIRED)
    restored = table_files(lake)[1]
    restored.write_bytes(before[str(restored.relative_to(tmp_path))])
    lose_state(lake)
    put(lake, meter, "late.parquet", event("late"))
    published = content(tmp_path, "aggregates")
    assert aggregated(lake).exit_code == 3
    assert content(tmp_path, "aggregates") == published


def test_the_state_is_rebuilt_as_it_was(tmp_path: Path) -> None:
    lake, meter = two_dates(tmp_path)
    put(lake, meter, "bad.parquet", event("bad", quantity="-1"))
    aggregated(lake)
    retained(lake, EXPIRED)
    before = load_state(lake.storage, NAME)
    lose_state(lake)
    assert load_state(lake.storage, NAME).partitions == before.partitions
