"""A disk that takes no more: a failure of the storage, with the path, after which the same run ends well."""

from __future__ import annotations

import datetime as dt
import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from lake import Lake
from lake.storage.errors import writing
from schemas.errors import MeterlakeError, StorageError
from support import DAY, a_lake, content

LATER = dt.date(2026, 7, 5)
LIMIT_BYTES = 20_000


@contextmanager
def small_files_only() -> Iterator[None]:
    """No file of this process may be longer, as with `ulimit -f`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def events(file: Path, start: int) -> str:
    chosen = random.Random(start)
    with file.open("w") as lines:
        for number in range(2_000):
            key, subject = f"{start + number}-{chosen.random()}", f"s{chosen.random()}"
            line = {"meter": "active_users", "idempotency_key": key, "subject": subject, "quantity": 1}
            lines.write(json.dumps(line | {"timestamp": f"{DAY}T00:00:00Z"}) + "\n")
    return str(file)


def ran(lake: Lake, work: Callable[[RunReport], None]) -> RunReport:
    with reported(lake, "test") as report:
        work(report)
    return report


def failures(lake: Lake, work: Callable[[RunReport], None]) -> list[dict[str, str]]:
    """What a run tells that meets the limit."""
    with small_files_only():
        try:
            return ran(lake, work).errors
        except MeterlakeError as error:
            return [error.to_dict()]


def test_every_job_names_the_file_and_ends_well_once_there_is_room(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake", event_retention_days=3650)
    first, second = events(tmp_path / "a.jsonl", 0), events(tmp_path / "b.jsonl", 10_000)
    ran(lake, lambda report: land(lake, [second], report))
    jobs: list[Callable[[RunReport], None]] = [
        lambda report: land(lake, [first], report),
        lambda report: aggregate(lake, report),
        lambda report: export(lake, report, parse_period("2026-06")),
        lambda report: compact(lake, report, as_of=LATER),
        lambda report: nightly(lake, report, as_of=LATER),
    ]
    for job in jobs:
        found = failures(lake, job)
        assert {said["kind"] for said in found} <= {"storage failure"}
        assert all("File too large" in said["found"] and said["where"] for said in found)
        assert found or job is jobs[-1]
        assert [name for name in content(tmp_path / "lake", ".tmp") if not name.endswith("sweep")] == []
        assert ran(lake, job).exit_code == 0
    assert lake.totals("active_users").collect()["events"].to_list() == [4_000]


def test_only_a_disk_that_takes_no_more_is_a_failure_to_write(tmp_path: Path) -> None:
    local = tmp_path / "x"
    local.write_bytes(b"half")
    with pytest.raises(FileNotFoundError), writing(local):
        raise FileNotFoundError(2, "No such file or directory")
    with pytest.raises(pl.exceptions.ComputeError), writing(local):
        raise pl.exceptions.ComputeError("parquet: File out of specification")
    assert local.exists()
    for error in (
        OSError(28, "No space left on device"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        pl.exceptions.ComputeError("parquet: underlying IO error: Disk quota exceeded (os error 122)"),
    ):
        with pytest.raises(StorageError, match=str(local)), writing(local):
            raise error
        assert not local.exists()
