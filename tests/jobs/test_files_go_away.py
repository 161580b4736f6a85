"""Files that go away or are replaced between being listed and being read: nothing fails, and every number is right."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.nightly import nightly
from jobs.query import run_query
from jobs.retain import retain
from jobs.run_report import RunReport, reported
from jobs.status import status
from jobs.verify.job import verify
from lake import Lake, paths
from lake.query.question import Question
from lake.storage import LocalStorage, StoredFile
from lake.storage.changed_files import FilesChangedError
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, event, put, recomputed, usage

NEXT = DAY + dt.timedelta(days=1)
LATER = DAY + dt.timedelta(days=90)


class ChangingStorage(LocalStorage):
    """Calls `change` once, before the operation `before` is done for the time `number`."""

    def __init__(self, root: str, before: str, number: int, change: Callable[[], object]) -> None:
        super().__init__(root)
        self._before, self._left, self._change = before, number, change

    def _count(self, operation: str) -> None:
        if operation == self._before:
            self._left -= 1
            if self._left == 0:
                self._change()

    def footer(self, file: StoredFile) -> Any:
        self._count("footer")
        return super().footer(file)

    def schema(self, file: StoredFile) -> pl.Schema:
        self._count("footer")
        return super().schema(file)

    def metadata(self, file: StoredFile) -> dict[str, str]:
        self._count("metadata")
        return super().metadata(file)

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        self._count("scan")
        return super().scan(files, **options)


def filled(folder: Path) -> tuple[Lake, Meter, Path]:
    """Two aggregated dates that share a key, and a new file with another copy and a new event; gives the new file."""
    lake, meter = a_lake(folder, event_retention_days=30)
    put(lake, meter, "a.parquet", event("k"), event("a"))
    put(lake, meter, "a.parquet", event("k", day=NEXT), event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    return lake, meter, put(lake, meter, "new.parquet", event("k", quantity="0.5"), event("c"))


def ran(lake: Lake, job: Callable[[Lake, RunReport], object]) -> RunReport:
    with reported(lake, "test") as report:
        job(lake, report)
    return report


def rows_from_scratch(lake: Lake, meter: Meter, folder: Path) -> list[Any]:
    """The usage of a new lake with the event files that are there now."""
    other, _ = a_lake(folder, event_retention_days=30)
    for file in lake.storage.list(paths.EVENTS):
        other.storage.publish(file.path, (Path(lake.url) / file.path).read_bytes())
    aggregated(other)
    return usage(other, meter)


def removed(file: Path) -> Callable[[], object]:
    return lambda: file.unlink(missing_ok=True)


def replaced(file: Path) -> Callable[[], object]:
    """Replaced by rename, as producers do, by a file of other events."""

    def replace() -> None:
        if file.exists():
            other = pl.read_parquet(file).with_columns(quantity=pl.lit(Decimal(7), pl.Decimal(38, 9)))
            other.write_parquet(file.with_name(".x"), row_group_size=1)
            file.with_name(".x").replace(file)

    return replace


@pytest.mark.parametrize("change", [removed, replaced])
@pytest.mark.parametrize("which", ["new.parquet", "a.parquet"])
@pytest.mark.parametrize(
    ("before", "number"), [("footer", 1), *(("scan", number) for number in (1, 2, 3, 5, 7))]
)
def test_an_aggregation_ends_right_whatever_goes_away(
    tmp_path: Path, before: str, number: int, which: str, change: Callable[[Path], Callable[[], object]]
) -> None:
    lake, meter, new = filled(tmp_path / "lake")
    storage = ChangingStorage(lake.url, before, number, change(new.with_name(which)))
    report = ran(lake.over(storage), aggregate)
    assert (report.exit_code, report.errors) == (0, [])
    assert len({(each.date, each.action) for each in report.partitions}) == len(report.partitions)
    aggregated(lake)
    assert usage(lake, meter) == rows_from_scratch(lake, meter, tmp_path / "other")
    assert recomputed(aggregated(lake)) == {}


def test_the_file_of_another_date_that_goes_away_moves_the_winner(tmp_path: Path) -> None:
    lake, meter, _ = filled(tmp_path / "lake")
    winners = Path(lake.url) / paths.events(meter.name, NEXT) / "a.parquet"
    for number in range(1, 9):
        ran(lake.over(ChangingStorage(lake.url, "scan", number, removed(winners))), aggregate)
        aggregated(lake)
        assert usage(lake, meter) == rows_from_scratch(lake, meter, tmp_path / str(number))


@pytest.mark.parametrize("job", ["verify", "compact", "retain", "nightly", "status", "query", "events"])
@pytest.mark.parametrize("before", ["footer", "metadata", "scan"])
def test_no_job_fails_unexpectedly(tmp_path: Path, job: str, before: str) -> None:
    for number in (1, 2, 4, 6):
        lake, meter, new = filled(tmp_path / str(number))
        put(lake, meter, "small.parquet", event("s"))
        if job != "nightly":
            aggregated(lake)
        changing = lake.over(ChangingStorage(lake.url, before, number, removed(new)))
        question = Question(
            since=dt.datetime.combine(DAY, dt.time(), dt.UTC),
            until=dt.datetime.combine(NEXT, dt.time(), dt.UTC),
            bucket="hour",
        )
        jobs: dict[str, Callable[[Lake, RunReport], object]] = {
            "verify": verify,
            "compact": compact,
            "retain": lambda lake, report: retain(lake, report, as_of=LATER),
            "nightly": lambda lake, report: nightly(lake, report, as_of=LATER),
            "status": lambda lake, _: status(lake, runs=1),
            "query": lambda lake, _, meter=meter, question=question: run_query(lake, meter.name, question),
            "events": lambda lake, _, meter=meter: lake.events(meter.name),
        }
        try:
            report = ran(changing, jobs[job])
        except FilesChangedError:
            assert job == "retain"
            continue
        assert report.exit_code <= 1
        assert {said["kind"] for said in report.errors} <= {"refused", "difference"}


def test_a_merged_file_that_goes_away_while_it_is_looked_at_is_listed_again(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    for name in ("a", "b"):
        put(lake, meter, f"{name}.parquet", event(name))
    aggregated(lake)
    ran(lake, lambda lake, report: compact(lake, report, as_of=LATER))
    put(lake, meter, "c.parquet", event("c"))
    (merged,) = (Path(lake.url) / paths.events(meter.name, DAY)).glob("compacted-*")
    for job in (aggregate, lambda lake, _: status(lake, runs=1)):
        body = merged.read_bytes()
        ran(lake.over(ChangingStorage(lake.url, "metadata", 1, removed(merged))), job)
        merged.write_bytes(body)
    aggregated(lake)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(3))]


PRODUCER = """
import itertools, sys, time
from pathlib import Path
folder, body = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
for n in itertools.count():
    hidden = folder / f".t{n}.parquet"
    hidden.write_bytes(body)
    hidden.rename(folder / f"new{n % 3}.parquet")
    if n % 60 == 0:
        (folder / f"new{n % 3}.parquet").unlink(missing_ok=True)
    time.sleep(0.001)
"""


def test_jobs_beside_a_producer_that_renames_and_removes(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    first = put(lake, meter, "m0.parquet", event("m0"))
    for number in range(1, 100):
        put(lake, meter, f"m{number}.parquet", event(f"m{number}"))
    with subprocess.Popen([sys.executable, "-c", PRODUCER, str(first.parent), str(first)]) as producer:
        try:
            while not first.with_name("new2.parquet").exists():
                assert producer.poll() is None
            for _ in range(8):
                for job in (aggregate, lambda lake, _: status(lake, runs=1)):
                    assert ran(lake, job).exit_code == 0
                assert lake.usage_by_subject(meter.name).collect()["events"].to_list() == [100]
        finally:
            producer.kill()
    aggregated(lake)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(100))]
