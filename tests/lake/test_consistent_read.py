"""An answer is of one moment, whatever another job does between two operations of the reader."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from depth import evenly
from jobs.compact import compact
from jobs.run_report import reported
from lake import Lake, paths
from lake.storage import LocalStorage, StoredFile
from lake.storage.changed_files import ATTEMPTS
from schemas.errors import RefusedError, StorageError
from support import DAY, METER, a_lake, aggregated, event, put, retained

NAME = METER["name"]
EARLY, NEW = DAY - dt.timedelta(days=2), DAY - dt.timedelta(days=3)
EXPIRED = EARLY + dt.timedelta(days=31)
READING = ("list", "read", "read_all", "exists", "scan", "schema", "footer", "metadata", "local", "prefetch")
Job = Callable[[Lake], object]
Reader = Callable[[Lake], pl.DataFrame]


class Interrupted(LocalStorage):
    """A storage on which something is done before one of its reading operations, or before each from that one on."""

    def __init__(self, root: str, work: Callable[[], object], before: int, *, always: bool = False) -> None:
        super().__init__(root)
        self._work, self._before, self._always = work, before, always
        self.operations = 0
        self._busy = False

    def __getattribute__(self, name: str) -> Any:
        if name in READING:
            self._count()
        return super().__getattribute__(name)

    def _count(self) -> None:
        if self._busy:
            return
        self.operations += 1
        if self.operations == self._before or (self._always and self.operations > self._before):
            self._busy = True
            self._work()
            self._busy = False


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An early date whose event was retried on the next one, of several files; a date that is not aggregated yet."""
    folder = tmp_path_factory.mktemp("prepared") / "lake"
    lake, meter = a_lake(folder)
    put(lake, meter, "a.parquet", event("retried", day=EARLY), event("a", day=EARLY), day=EARLY)
    put(lake, meter, "b.parquet", event("b", day=EARLY, subject="org_2"), day=EARLY)
    put(lake, meter, "a.parquet", event("retried", quantity="5"), event("c"))
    put(lake, meter, "b.parquet", event("d", subject="org_2"))
    aggregated(lake)
    put(lake, meter, "new.parquet", event("new", day=NEW), day=NEW)
    return folder


def night(lake: Lake) -> None:
    """Aggregate, and seal and drop the early dates."""
    aggregated(lake)
    retained(lake, EXPIRED)


def compacted(lake: Lake) -> None:
    with reported(lake, "compact") as report:
        compact(lake, report, as_of=DAY + dt.timedelta(days=5))


def landed(lake: Lake) -> None:
    put(lake, lake.meter(NAME), "more.parquet", event("more"), event("a"))
    aggregated(lake)


def removed(lake: Lake) -> None:
    """Withdraw a date: a producer has removed its files."""
    shutil.rmtree(Path(lake.url) / paths.events(NAME, EARLY))
    aggregated(lake)


JOBS: dict[str, Job] = {
    "aggregate and retain": night,
    "compact": compacted,
    "land and aggregate": landed,
    "remove and aggregate": removed,
}
READERS: dict[str, Reader] = {
    "events": lambda lake: lake.events(NAME).collect(),
    "duplicates": lambda lake: lake.duplicates(NAME).collect(),
    "raw_events": lambda lake: lake.raw_events(NAME).collect(),
    "query of events": lambda lake: lake.query(
        NAME, EARLY, DAY + dt.timedelta(days=1), bucket="hour"
    ).collect(),
    "query of aggregates": lambda lake: lake.query(NAME, NEW, DAY + dt.timedelta(days=1)).collect(),
    "query with others": lambda lake: lake.query(
        NAME, EARLY, DAY, by=["plan"], share=True, compare="previous"
    ).collect(),
    "totals": lambda lake: lake.totals(NAME, ["subject"]).collect(),
    "values": lambda lake: lake.values(NAME, "plan").collect(),
    "usage": lambda lake: lake.usage(NAME).collect(),
}


def answer(reader: Reader, lake: Lake) -> str:
    """What a reader says, in an order that the names of files have no part in."""
    try:
        rows = reader(lake)
    except RefusedError as error:
        return error.what
    return str(rows.sort(pl.all()).rows())


# A lazy frame reads when it is collected: of each date what is there then, and it fails where a file is gone.
LAZY = {
    "events": {"remove and aggregate"},
    "raw_events": {"remove and aggregate"},
    "usage": {"remove and aggregate", "land and aggregate"},
}
# Takes long, and what these jobs do to it the others do too.
REPEATED = {"query with others": {"remove and aggregate", "compact"}}
CASES = [(reader, job) for reader in READERS for job in JOBS if job not in (LAZY | REPEATED).get(reader, ())]


@pytest.mark.parametrize(("reader_name", "job_name"), CASES)
def test_a_job_between_any_two_operations_is_before_or_after_the_answer(
    prepared: Path, tmp_path: Path, reader_name: str, job_name: str
) -> None:
    reader, job = READERS[reader_name], JOBS[job_name]
    after = Path(shutil.copytree(prepared, tmp_path / "after"))
    job(Lake(str(after)))
    right = {answer(reader, Lake(str(prepared))), answer(reader, Lake(str(after)))}
    counting = Interrupted(str(prepared), lambda: None, 0)
    answer(reader, Lake(str(prepared)).over(counting))
    assert counting.operations > 2
    for operation in evenly(counting.operations, 6, offset=CASES.index((reader_name, job_name))):
        folder = shutil.copytree(prepared, tmp_path / str(operation))
        lake = Lake(str(folder))
        storage = Interrupted(str(folder), lambda lake=lake: job(lake), operation)  # type: ignore[misc]
        assert answer(reader, lake.over(storage)) in right, operation
        assert storage.operations >= operation


def test_an_answer_that_could_not_be_taken_is_told(prepared: Path, tmp_path: Path) -> None:
    lake = Lake(str(shutil.copytree(prepared, tmp_path / "lake")))
    looks: list[int] = []

    class Vanishing(LocalStorage):
        """A storage whose tables are other files at each look, and gone when they are read."""

        def list(self, prefix: str) -> list[StoredFile]:
            looks.append(len(looks))
            return [file._replace(identity=f"{len(looks)}") for file in super().list(prefix)]

        def scan(self, files: Sequence[StoredFile], **_: Any) -> pl.LazyFrame:
            raise FileNotFoundError(files[0].path)

    with pytest.raises(StorageError, match="each time they were read") as raised:
        lake.over(Vanishing(lake.url)).totals(NAME)
    assert len(looks) == ATTEMPTS + 1
    assert "ask again" in raised.value.hint


def test_what_fails_while_nothing_changes_is_told_at_once(prepared: Path, tmp_path: Path) -> None:
    lake = Lake(str(shutil.copytree(prepared, tmp_path / "lake")))
    scans: list[int] = []

    class Failing(LocalStorage):
        def scan(self, files: Sequence[StoredFile], **_: Any) -> pl.LazyFrame:
            scans.append(len(files))
            raise StorageError("could not read this file", where=files[0].path)

    with pytest.raises(StorageError, match="could not read this file"):
        lake.over(Failing(lake.url)).totals(NAME)
    assert len(scans) == 1
