"""Links, named pipes and odd names in a lake: named and not counted, never waited for, never written through."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import FrameType

import pytest

from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.retain import retain
from jobs.run_report import RunReport, reported
from jobs.status import status
from jobs.verify.job import verify
from lake import Lake, paths
from schemas.errors import BrokenLakeError, MeterlakeError, StorageError
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, define, event, put, recomputed, retained, usage

OLD = DAY - dt.timedelta(days=60)
LATER = DAY + dt.timedelta(days=5)
ONE = (DAY, "org_1", Decimal(1))


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Whoever waits for a named pipe fails."""

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_looping_link(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("_pipe"))
    path.symlink_to("_pipe")


IRREGULAR = [a_pipe, a_dangling_link, a_looping_link, a_link_to_a_pipe]


def ran(lake: Lake, job: str, work: Callable[[Lake, RunReport], None]) -> RunReport:
    with reported(lake, job) as report:
        work(lake, report)
    return report


def named(report: RunReport) -> list[str]:
    return [said["where"] for said in report.errors]


@pytest.mark.parametrize("make", IRREGULAR)
def test_an_event_file_that_is_none_is_named_and_keeps_nothing_from_its_work(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    lake, meter = a_lake(tmp_path)
    other = define(lake, name="other")
    for each in (meter, other):
        put(lake, each, "a.parquet", event("a"))
        put(lake, each, "a.parquet", event("b", day=OLD), day=OLD)
    odd = paths.events(meter.name, DAY) + "x.parquet"
    make(tmp_path / odd)
    report = ran(lake, "nightly", lambda lake, report: nightly(lake, report, as_of=LATER))
    assert (report.exit_code, named(report)) == (1, [odd])
    assert usage(lake, meter)[-1] == usage(lake, other)[-1] == ONE
    assert lake.events(meter.name).collect().height == 1
    assert named(ran(lake, "verify", verify)) == [odd]
    assert [said["where"] for said in status(lake, runs=1).all_problems] == [odd]
    assert recomputed(aggregated(lake)) == {}
    assert ran(lake, "compact", compact).exit_code == 0
    assert ran(lake, "retain", lambda lake, report: retain(lake, report, as_of=LATER)).exit_code == 0


def test_a_name_that_is_not_utf_8_is_named_escaped_and_not_counted(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "b.parquet", event("b")).rename(
        os.fsdecode(os.fsencode(file.parent) + b"/b\xff.parquet")
    )
    report = aggregated(lake)
    assert named(report) == [paths.events(meter.name, DAY) + "b\\xff.parquet"]
    assert json.loads(report.to_json())
    assert usage(lake, meter) == [ONE]
    assert named(ran(lake, "verify", verify)) == named(report)


@pytest.mark.parametrize("make", [a_pipe, a_dangling_link])
@pytest.mark.parametrize("job", ["aggregate", "nightly", "compact", "retain", "verify", "status"])
def test_a_record_that_is_no_file_is_of_its_meter_alone(
    tmp_path: Path, job: str, make: Callable[[Path], None]
) -> None:
    lake, meter = a_lake(tmp_path)
    other = define(lake, name="other")
    for each in (meter, other):
        put(lake, each, "a.parquet", event("a"))
    aggregated(lake)
    put(lake, other, "b.parquet", event("b"))
    path = paths.state(meter.name)
    (tmp_path / path).unlink()
    make(tmp_path / path)
    if job == "status":
        found = status(lake, runs=1)
        assert [said["where"] for said in found.problems] == [path]
        return
    jobs = {"aggregate": aggregate, "nightly": nightly}
    jobs |= {"compact": compact, "retain": retain, "verify": verify}
    assert path in named(ran(lake, job, jobs[job]))
    if job in ("aggregate", "nightly"):
        assert usage(lake, other) == [(DAY, "org_1", Decimal(2))]


@pytest.mark.parametrize(
    "folder", ["meters", "runs", "landed", "exports", "aggregates/usage/meter=active_users"]
)
def test_a_pipe_anywhere_in_the_lake_is_not_waited_for(tmp_path: Path, folder: str) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    for place in (
        folder,
        "quarantine/meter=active_users/date=2026-06-19",
        "index/meter=active_users",
        "recent",
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in ("x.json", "20260101T000000.000000Z-x.json", "x.parquet"):
            os.mkfifo(tmp_path / place / name)
    (tmp_path / "events.jsonl").write_text(
        '{"meter": "active_users", "idempotency_key": "n", "subject": "a", "quantity": 1}\n'
    )
    ran(lake, "nightly", nightly)
    ran(lake, "compact", compact)
    ran(lake, "verify", verify)
    status(lake, runs=50)
    assert usage(lake, meter) == [ONE]
    if folder != "meters":
        report = ran(lake, "land", lambda lake, report: land(lake, [str(tmp_path / "events.jsonl")], report))
        assert report.events_landed == 1


@pytest.mark.parametrize("table", paths.TABLES)
def test_a_pipe_for_a_table_is_an_error_and_no_missing_rows(tmp_path: Path, table: str) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    file = tmp_path / paths.aggregate(table, meter.name, DAY)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BrokenLakeError, match=f"{table}/.*a named pipe"):
        {"usage": lake.usage, "usage_by_subject": lake.usage_by_subject}.get(table, lake.usage_by_dimension)(
            meter.name
        ).collect()
    assert paths.aggregate(table, meter.name, DAY) in named(ran(lake, "verify", verify))
    aggregated(lake, rebuild=True)
    assert usage(lake, meter) == [ONE]


def test_a_table_whose_folder_leads_nowhere_is_an_error_and_no_missing_rows(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    folder = tmp_path / paths.aggregates("usage_by_subject", meter.name, DAY)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to("nowhere")
    with pytest.raises(BrokenLakeError, match="a link that leads nowhere"):
        lake.usage_by_subject(meter.name)


def moved_behind_a_link(lake: Lake, path: str, folder: Path) -> Path:
    """Move a part of the lake out of it, and put a link there; gives where it is now."""
    there = Path(lake.url) / path.rstrip("/")
    target = folder / path.strip("/").replace("/", "-")
    target.parent.mkdir(parents=True, exist_ok=True)
    there.rename(target)
    there.symlink_to(target)
    return target


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.parent.rglob("*")) if file.is_file()}


def linked_lake(tmp_path: Path, what: str) -> tuple[Lake, Meter, Path]:
    """Two dates of two files each, the older with something behind a link."""
    lake, meter = a_lake(tmp_path / "lake")
    for day in (OLD, DAY):
        put(lake, meter, "a.parquet", event("a" + str(day), day=day), day=day)
        put(lake, meter, "b.parquet", event("b" + str(day), day=day), day=day)
    path = {
        "file": paths.events(meter.name, OLD) + "a.parquet",
        "date": paths.events(meter.name, OLD),
        "meter": paths.events(meter.name),
        "events": paths.EVENTS,
    }[what]
    return lake, meter, moved_behind_a_link(lake, path, tmp_path / "outside")


@pytest.mark.parametrize("what", ["file", "date", "meter", "events"])
def test_events_behind_a_link_count_and_are_neither_dropped_nor_merged(tmp_path: Path, what: str) -> None:
    lake, meter, outside = linked_lake(tmp_path, what)
    before = files_of(outside)
    assert aggregated(lake).exit_code == 0
    assert [quantity for _, _, quantity in usage(lake, meter)] == [2, 2]
    assert lake.events(meter.name).collect().height == 4
    dates = {OLD} if what in ("file", "date") else {OLD, DAY}
    expected = [paths.events(meter.name, date) for date in sorted(dates)]
    compacted = ran(lake, "compact", compact)
    assert (compacted.exit_code, named(compacted)) == (1, expected)
    assert len(compacted.partitions) == (0 if len(dates) == 2 else 2)
    report = retained(lake, DAY + dt.timedelta(days=90))
    assert (report.exit_code, named(report)) == (1, expected)
    assert {each.date for each in report.partitions} == {OLD, DAY} - dates
    assert files_of(outside) == before
    assert named(retained(lake, DAY + dt.timedelta(days=90), dry_run=True)) == expected
    assert named(ran(lake, "verify", verify)) == []


def test_a_late_file_behind_a_link_is_left_where_it_is(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a", day=OLD), day=OLD)
    aggregated(lake)
    retained(lake, LATER)
    put(lake, meter, "late.parquet", event("b", day=OLD), day=OLD)
    outside = moved_behind_a_link(lake, paths.events(meter.name, OLD), tmp_path / "outside")
    report = aggregated(lake)
    assert named(report) == [paths.events(meter.name, OLD) + "late.parquet"]
    assert report.exit_code == 1
    assert (outside / "late.parquet").exists()
    assert usage(lake, meter) == [(OLD, "org_1", Decimal(1))]


@pytest.mark.parametrize(
    "path",
    [
        "aggregates/",
        "aggregates/usage/meter=active_users/",
        "state/",
        "index/meter=active_users/",
        "quarantine/",
        "landed/",
        "events/meter=active_users/",
        "meters/",
    ],
)
def test_nothing_is_written_behind_a_link_anywhere(tmp_path: Path, path: str) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    (Path(lake.url) / path).mkdir(parents=True, exist_ok=True)
    outside = moved_behind_a_link(lake, path, tmp_path / "outside")
    before = files_of(outside)
    lines = [{"meter": "active_users", "idempotency_key": key, "subject": "a", "quantity": 1} for key in "xy"]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines, {"meter": "none"}])
    )
    for work in (
        lambda: ran(lake, "land", lambda lake, report: land(lake, [str(tmp_path / "in.jsonl")], report)),
        lambda: put(lake, meter, "b.parquet", event("b")) if "events" not in path else None,
        lambda: ran(lake, "aggregate", aggregate),
        lambda: define(lake, description="another"),
    ):
        try:
            work()
        except StorageError as error:
            assert "link" in str(error)  # noqa: PT017 - only some of these write there
        except MeterlakeError as error:
            pytest.fail(str(error))
    assert files_of(outside) == before


def test_a_date_whose_folder_leads_nowhere_keeps_its_numbers(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a", day=OLD), day=OLD)
    put(lake, meter, "a.parquet", event("b"))
    outside = moved_behind_a_link(lake, paths.events(meter.name, OLD), tmp_path / "outside")
    aggregated(lake)
    outside.rename(outside.with_name("unmounted"))
    put(lake, meter, "b.parquet", event("c"))
    report = aggregated(lake)
    assert (report.exit_code, named(report)) == (1, [paths.events(meter.name, OLD).rstrip("/")])
    assert usage(lake, meter) == [(OLD, "org_1", Decimal(1)), (DAY, "org_1", Decimal(2))]
    assert retained(lake, LATER).exit_code == 1
    assert usage(lake, meter)[0][0] == OLD
    assert aggregated(lake, meter=meter.name).exit_code == 1
    outside.with_name("unmounted").rename(outside)
    assert (aggregated(lake).exit_code, recomputed(aggregated(lake))) == (0, {})


def test_a_meter_whose_folder_leads_nowhere_keeps_no_other_from_its_work(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    other = define(lake, name="other")
    for each in (meter, other):
        put(lake, each, "a.parquet", event("a"))
    aggregated(lake)
    moved_behind_a_link(lake, paths.events(meter.name), tmp_path / "outside").rename(tmp_path / "unmounted")
    put(lake, other, "b.parquet", event("b"))
    report = ran(lake, "nightly", nightly)
    assert paths.events(meter.name).rstrip("/") in named(report)
    assert usage(lake, meter) == [ONE]
    assert usage(lake, other) == [(DAY, "org_1", Decimal(2))]
    with pytest.raises(StorageError, match="a link that leads nowhere"):
        aggregated(lake, meter=meter.name)
