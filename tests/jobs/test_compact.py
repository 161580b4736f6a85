"""Compaction: fewer files, the same numbers, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import compact as compact_job
from jobs.compact import compact, small_files
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.land.landed_input import LandedInput
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from lake.events import listing
from lake.events.file_check import readable_partitions
from lake.state.changes import file_name
from lake.state.state_file import load_state
from lake.storage import StoredFile
from schemas.columns import event_columns
from schemas.errors import BrokenLakeError, StorageError
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, content, define, event, put, recomputed, retained

NEXT = DAY + dt.timedelta(days=1)
CLOSED = DAY + dt.timedelta(days=3)
EXPIRED = DAY + dt.timedelta(days=31)


def compacted_now(lake: Lake, **options: Any) -> RunReport:
    with reported(lake, "compact") as report:
        compact(lake, report, **{"as_of": CLOSED} | options)
    return report


def merged(report: RunReport) -> dict[dt.date, str]:
    return {each.date: each.reason for each in report.partitions if each.action == "compacted"}


def names(lake: Lake, day: dt.date = DAY) -> list[str]:
    return [file_name(file) for file in lake.storage.list(paths.events("active_users", day))]


def told(lake: Lake) -> dict[str, Any]:
    """All that readers are told."""
    tables = {table: getattr(lake, table)("active_users").collect().rows() for table in paths.TABLES}
    rows = {
        "events": lake.events("active_users"),
        "raw": lake.raw_events("active_users"),
        "duplicates": lake.duplicates("active_users"),
    }
    order = [*event_columns(lake.meters()[0])]
    return tables | {name: lf.sort("date", *order).collect().rows() for name, lf in rows.items()}


def small(tmp_path: Path) -> tuple[Lake, Meter, dict[str, Any]]:
    """A lake with small files on two dates: copies, events without a key, and a row that breaks a rule."""
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"), event("k", "org_2"), event(None))
    put(lake, meter, "b.parquet", event("k", "org_3"), event(None), event("bad", quantity="-1"))
    put(lake, meter, "c.parquet", event("c", plan=None), event(None, day=DAY))
    put(lake, meter, "d.parquet", event("k", day=NEXT), event("d", day=NEXT), day=NEXT)
    put(lake, meter, "e.parquet", event("e", day=NEXT), day=NEXT)
    aggregated(lake)
    return lake, meter, told(lake)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the time pass for which replaced files are kept."""
    return lambda: monkeypatch.setattr(listing, "GRACE", dt.timedelta(0))


def test_small_files_become_one_and_no_reader_is_told_otherwise(
    tmp_path: Path, later: Callable[[], None]
) -> None:
    lake, meter, before = small(tmp_path)
    records = load_state(lake.storage, meter.name).partitions
    report = compacted_now(lake)
    assert merged(report) == {DAY: "3 files into 1", NEXT: "2 files into 1"}
    again = {each.date: each.reason for each in report.partitions if each.action == "aggregated"}
    assert again == {DAY: "files compacted", NEXT: "files compacted"}
    assert told(lake) == before
    # What was merged is there still, for readers that have listed it.
    assert names(lake)[:3] == ["a.parquet", "b.parquet", "c.parquet"]
    assert aggregated(lake).partitions == []
    assert merged(compacted_now(lake)) == {}
    later()
    assert merged(compacted_now(lake)) == {}
    (name,) = names(lake)
    assert name.startswith("compacted-")
    assert told(lake) == before
    assert aggregated(lake).partitions == []
    assert aggregated(lake, rebuild=True).quarantined == {}
    assert told(lake) == before
    now = load_state(lake.storage, meter.name).partitions
    for date, record in records.items():
        assert now[date].checksums == record.checksums
        assert now[date].invalid == record.invalid
    with reported(lake, "verify") as verified:
        verify(lake, verified)
    assert verified.errors == []


def test_a_bill_is_not_revised_for_it(tmp_path: Path) -> None:
    lake, _, _ = small(tmp_path)

    def exported() -> tuple[str, int]:
        with reported(lake, "export") as report:
            export(lake, report, parse_period("2026-06"))
        return report.exports[0].action, report.exports[0].revision

    assert exported() == ("exported", 1)
    compacted_now(lake)
    assert exported() == ("unchanged", 1)


def test_a_frame_made_before_is_read_after(tmp_path: Path) -> None:
    lake, _, _ = small(tmp_path)
    frames = [lake.events("active_users"), lake.raw_events("active_users")]
    expected = [lf.collect() for lf in frames]
    compacted_now(lake)
    assert all(lf.collect().equals(df) for lf, df in zip(frames, expected, strict=True))


def test_what_was_interrupted_before_the_records_know_of_it_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: Callable[[], None]
) -> None:
    lake, _, before = small(tmp_path)

    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compact_job, "aggregate", end)
    with pytest.raises(KeyboardInterrupt):
        compacted_now(lake)
    monkeypatch.undo()
    assert told(lake) == before
    # Nothing is compacted of what is out of date, and what was merged goes even so.
    later()
    assert merged(compacted_now(lake)) == {}
    assert recomputed(aggregated(lake)) == {DAY: "files compacted", NEXT: "files compacted"}
    assert told(lake) == before


def test_dates_that_are_open_out_of_date_or_sealed_are_left_alone(tmp_path: Path) -> None:
    lake, meter, _ = small(tmp_path)
    assert merged(compacted_now(lake, as_of=NEXT)) == {}
    assert merged(compacted_now(lake, as_of=NEXT + dt.timedelta(days=1), dry_run=True)) == {
        DAY: "3 files into 1"
    }
    put(lake, meter, "late.parquet", event("late"))
    assert merged(compacted_now(lake)) == {NEXT: "2 files into 1"}
    aggregated(lake)
    retained(lake, EXPIRED)
    assert merged(compacted_now(lake)) == {}


def test_a_dry_run_tells_the_same_and_touches_nothing(tmp_path: Path) -> None:
    lake, _, _ = small(tmp_path)
    before = content(tmp_path, ".")
    with reported(lake, "compact", dry_run=True) as planned:
        compact(lake, planned, as_of=CLOSED, dry_run=True)
    assert content(tmp_path, ".") == before
    done = compacted_now(lake)
    assert merged(planned) == merged(done)
    assert {e.bytes_merged for e in planned.partitions} == {
        e.bytes_merged for e in done.partitions if e.bytes_merged
    }


def test_late_files_are_merged_once_they_are_worth_it(tmp_path: Path, later: Callable[[], None]) -> None:
    lake, meter, _ = small(tmp_path)
    compacted_now(lake)
    put(lake, meter, "late.parquet", event("late"))
    put(lake, meter, "later.parquet", event("later"), event(None))
    aggregated(lake)
    before = told(lake)
    assert merged(compacted_now(lake)) == {DAY: "3 files into 1"}
    assert told(lake) == before
    # Whichever of the files goes first, the last one stands for all of them.
    listed = [name for name in names(lake) if name.startswith("compacted-")]
    first = next(n for n in listed if len(_replaces(lake, n)) == 3)
    (Path(lake.url) / paths.events(meter.name, DAY) / first).unlink()
    assert told(lake) == before
    later()
    compacted_now(lake)
    assert len(names(lake)) == 1
    assert told(lake) == before


def _replaces(lake: Lake, name: str) -> dict[str, str]:
    (file,) = (f for f in lake.storage.list(paths.events("active_users", DAY)) if file_name(f) == name)
    return listing.read_compacted(lake.storage, file).replaces


def test_a_merged_file_that_comes_back_does_not_count_again(
    tmp_path: Path, later: Callable[[], None]
) -> None:
    lake, meter, before = small(tmp_path)
    file = tmp_path / "lake" / paths.events(meter.name, DAY) / "a.parquet"
    (tmp_path / "kept.parquet").hardlink_to(file)
    compacted_now(lake)
    later()
    compacted_now(lake)
    assert not file.exists()
    # The very same file, and then one with other content.
    file.hardlink_to(tmp_path / "kept.parquet")
    assert aggregated(lake).partitions == []
    assert told(lake) == before
    file.unlink()
    put(lake, meter, "a.parquet", event("new"))
    report = aggregated(lake)
    assert (report.exit_code, report.partitions) == (1, [])
    assert [said["what"] for said in report.errors] == [
        "a file whose rows were merged into another exists again with other content"
    ]
    assert told(lake) == before
    compacted_now(lake)
    assert file.exists()


def test_what_is_still_being_landed_is_left_alone(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    for number, known in enumerate((True, False, None)):
        sha256 = f"{number:064x}"[::-1]
        for part in range(2):
            put(lake, meter, f"land-{sha256[:16]}-{part:04}.parquet", event(f"{number} {part}"))
        record = LandedInput(source="x", landed_at=dt.datetime.now(dt.UTC), complete=bool(known))
        if known is not None:
            lake.storage.publish(paths.landed(sha256), msgspec.json.encode(record))
    lake.storage.publish(paths.landed("f" * 64), b"{")
    put(lake, meter, f"land-{'f' * 16}-0000.parquet", event("f"))
    aggregated(lake)
    assert merged(compacted_now(lake)) == {DAY: "2 files into 1"}
    (name,) = (name for name in names(lake) if name.startswith("compacted-"))
    assert {name[5:21] for name in _replaces(lake, name)} == {"0" * 16}


def test_columns_that_are_not_declared_are_kept_and_count_once_they_are(
    tmp_path: Path, later: Callable[[], None]
) -> None:
    lake, meter = a_lake(tmp_path)
    for name, more in {
        "a": {},
        "b": {"trial": True},
        "c": {"trial": False},
        "d": {"trial": "no"},
        "e": {},
    }.items():
        file = put(lake, meter, f"{name}.parquet", event(name))
        pl.read_parquet(file).with_columns(**{k: pl.lit(v) for k, v in more.items()}).write_parquet(file)
    aggregated(lake)
    assert merged(compacted_now(lake)) == {DAY: "4 files into 2"}
    later()
    compacted_now(lake)
    assert len(names(lake)) == 3
    plan = {"name": "plan", "type": "string", "required": False}
    define(lake, dimensions=[plan, {"name": "trial", "type": "boolean", "required": False}])
    report = aggregated(lake)
    assert [said["where"].rsplit("/")[-1] for said in report.errors] == ["d.parquet"]
    counted = lake.usage("active_users").collect()
    assert dict(counted.select("trial", "events").rows()) == {None: 2, True: 1, False: 1}


def test_a_damaged_file_is_named_and_nothing_is_merged_with_it(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    for day in (DAY, NEXT):
        for name in ("a", "b"):
            put(lake, meter, f"{name}.parquet", event(f"{name} {day}", day=day), day=day)
    aggregated(lake)
    damage(tmp_path / paths.events(meter.name, DAY) / "a.parquet")
    before = names(lake)
    report = compacted_now(lake)
    assert report.exit_code == 1
    assert [said["what"] for said in report.errors] == ["files can't be merged"]
    assert merged(report) == {NEXT: "2 files into 1"}
    assert names(lake) == before


def test_a_damaged_file_that_holds_a_copy_is_named(tmp_path: Path) -> None:
    lake, meter, _ = small(tmp_path)
    damage(tmp_path / "lake" / paths.events(meter.name, DAY) / "a.parquet")
    put(lake, meter, "late.parquet", event("k", day=NEXT), day=NEXT)
    with pytest.raises(BrokenLakeError) as raised:
        aggregated(lake)
    assert raised.value.where == paths.events(meter.name, DAY) + "a.parquet"
    assert raised.value.hint.startswith("restore the file")


def damage(file: Path) -> None:
    """Break the first page of a file, so that neither its size nor its time tells of it."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    body = bytearray(file.read_bytes())
    body[4:40] = bytes(36)
    file.write_bytes(body)
    os.utime(file, ns=times)


@pytest.mark.parametrize("part", ["name", "identity", "footer"])
def test_a_damaged_compacted_file_does_not_count_beside_those_it_was_made_of(
    tmp_path: Path, part: str
) -> None:
    lake, meter, before = small(tmp_path)
    compacted_now(lake)
    (tmp_path / "lake" / paths.state(meter.name)).unlink()
    folder = tmp_path / "lake" / paths.events(meter.name, DAY)
    (file,) = folder.glob("compacted-*")
    body = file.read_bytes()
    damaged = {
        "name": body.replace(b"a.parquet", b"A.parquet"),
        "identity": body.replace(b'"b.parquet":"', b'"b.parquet":" '),
        "footer": body[:-20] + bytes(12) + body[-8:],
    }[part]
    assert damaged != body
    file.write_bytes(damaged)
    report = aggregated(lake)
    assert [said["what"] for said in report.errors] == ["a compacted file is damaged"]
    assert report.exit_code == 1
    for name, rows in told(lake).items():
        assert rows == before[name], name


def test_retention_drops_merged_files_with_the_one_that_stands_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter, before = small(tmp_path)
    compacted_now(lake)
    size_bytes = sum(file.size_bytes for file in lake.storage.list(paths.events(meter.name, DAY)))
    broken = Lake(lake.url)
    deleted: list[str] = []

    def delete_all(given: Any) -> None:
        for path in given:
            deleted.append(path)
            if len(deleted) == 3:
                raise StorageError("interrupted", where=path)
            lake.storage.delete(path)

    monkeypatch.setattr(broken.storage, "delete_all", delete_all)
    with pytest.raises(StorageError):
        retained(broken, EXPIRED)
    assert any(name.startswith("compacted-") for name in names(lake))
    report = retained(lake, EXPIRED)
    assert [(done.date, done.reason) for done in report.partitions] == [(DAY, "interrupted before")]
    assert names(lake) == []
    assert aggregated(lake).quarantined == {}
    for table in paths.TABLES:
        assert getattr(lake, table)(meter.name).collect().rows() == before[table]
    fresh, _, _ = small(tmp_path / "fresh")
    compacted_now(fresh)
    (dropped,) = retained(fresh, EXPIRED).partitions
    assert abs(dropped.bytes_dropped - size_bytes) < 64


def test_a_file_of_a_producer_with_such_a_name_is_like_any_other(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "compacted-by-spark.parquet", event("a"))
    put(lake, meter, "more.parquet", event("b"))
    aggregated(lake)
    assert merged(compacted_now(lake)) == {DAY: "2 files into 1"}
    assert lake.usage_by_subject(meter.name).collect()["events"].to_list() == [2]


def test_what_is_rejected_is_not_merged(tmp_path: Path) -> None:
    lake, meter, before = small(tmp_path)
    (tmp_path / "lake" / paths.events(meter.name, DAY) / "bad.parquet").write_bytes(b"PAR1 no more")
    aggregated(lake)
    report = compacted_now(lake)
    assert merged(report)[DAY] == "3 files into 1"
    assert told(lake) == before
    assert "bad.parquet" in names(lake)


def test_nothing_is_published_that_is_not_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _, before = small(tmp_path)
    sink = pl.LazyFrame.sink_parquet
    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", lambda lf, *a, **o: sink(lf.slice(1), *a, **o))
    report = compacted_now(lake)
    assert {said["what"] for said in report.errors} == {"the written rows differ from those that were read"}
    assert report.exit_code == 3
    assert told(lake) == before
    assert not [name for name in names(lake) if name.startswith("compacted-")]


def test_a_thousand_files_are_merged_into_files_of_the_target_size(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    body = put(lake, meter, "0.parquet", *(event(None) for _ in range(5))).read_bytes()
    for number in range(1, 1_000):
        (tmp_path / paths.events(meter.name, DAY) / f"{number}.parquet").write_bytes(body)
    aggregated(lake)
    before = lake.usage(meter.name).collect()
    report = compacted_now(lake, target_bytes=300 * len(body))
    assert merged(report) == {DAY: "1000 files into 4"}
    assert lake.usage(meter.name).collect().equals(before)
    assert before["events"].to_list() == [5_000]


sizes = st.lists(st.integers(0, 300), max_size=30)


@given(sizes, st.integers(1, 400))
def test_groups_are_of_small_files_each_once_and_as_large_as_the_target(
    found: list[int], target: int
) -> None:
    files = [StoredFile(f"events/{number:02}.parquet", size, "x") for number, size in enumerate(found)]
    groups = small_files(files, target)
    chosen = [file for group in groups for file in group]
    assert chosen == sorted(set(chosen))
    assert all(2 * file.size_bytes < target for file in chosen)
    assert all(len(group) > 1 for group in groups)
    for group in groups[:-1]:
        assert target <= sum(file.size_bytes for file in group) < 1.5 * target
    # Merging again and again comes to an end: in each round there are fewer files.
    left = [
        StoredFile(f"events/m{n:02}.parquet", sum(f.size_bytes for f in g), "y") for n, g in enumerate(groups)
    ]
    assert len(left) + len(files) - len(chosen) < len(files) or not groups


@given(sizes)
def test_no_file_is_written_again_for_much_smaller_ones(found: list[int]) -> None:
    files = [StoredFile(f"events/{number:02}.parquet", size, "x") for number, size in enumerate(found)]
    for group in small_files(files, 10**6):
        largest = max(file.size_bytes for file in group)
        assert largest <= 4 * (sum(file.size_bytes for file in group) - largest)


def test_every_reader_of_files_passes_over_what_was_merged(tmp_path: Path) -> None:
    lake, meter, _ = small(tmp_path)
    compacted_now(lake)
    state = load_state(lake.storage, meter.name)
    there = listing.list_events(lake.storage, meter.name, state)
    partitions, _ = readable_partitions(lake.storage, meter, there.files, state)
    assert [len(partition.files) for partition in partitions.values()] == [1, 1]
    assert len(there.replaced) == 5
    assert there.unexpected == []


def test_a_date_of_nothing_but_a_damaged_compacted_file_stops_no_other_date(tmp_path: Path) -> None:
    """It has no record and no events; without an index every date is looked at for keys that come to count."""
    lake, meter, _ = small(tmp_path)
    root = Path(lake.url)
    compacted_now(lake)
    for file in (root / paths.events(meter.name, DAY)).glob("?.parquet"):
        file.unlink()
    (damaged,) = (root / paths.events(meter.name, DAY)).glob("compacted-*")
    damaged.write_bytes(damaged.read_bytes()[:-20] + b"PAR1")
    aggregated(lake)
    later = [DAY + dt.timedelta(days=number) for number in (60, 61)]
    gone = put(lake, meter, "x.parquet", event("x", day=later[0]), day=later[0])
    aggregated(lake)
    gone.unlink()
    put(lake, meter, "y.parquet", event("y", day=later[1]), day=later[1])
    for file in (root / paths.indexes(meter.name)).iterdir():
        file.unlink()
    report = aggregated(lake)
    where = str(damaged.relative_to(root))
    assert (report.exit_code, [said["where"] for said in report.errors]) == (1, [where])
    assert lake.usage(meter.name, later[0]).collect()["date"].to_list() == [later[1]]
    assert aggregated(lake, rebuild=True).exit_code == 1
