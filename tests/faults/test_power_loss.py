"""After a loss of power at any moment the next runs end as if nothing had been, and nothing that was done is gone."""

from __future__ import annotations

import datetime as dt
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from depth import DEEP
from faults.power_loss import EndedError, LosingDisk
from faults.test_crash_anywhere import AS_OF, DAYS, JOBS, NAME, Job, ended, linked, prepare, run
from jobs.export.billing import month_of
from jobs.export.job import export
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.events import listing
from lake.meters import save_meter
from lake.state.state_file import load_state
from schemas.meter import parse_meter
from support import METER, a_lake, event, put

LOSSES = 100 if DEEP else 12
GONE = DAYS[-1] + dt.timedelta(days=1)


def add_meter(lake: Lake, _: RunReport) -> None:
    """Add a meter, and change the one that is there."""
    for change in ({"name": "another"}, {"description": "changed"}):
        save_meter(lake.storage, parse_meter(json.dumps(METER | change).encode(), "test"))


def export_month(lake: Lake, report: RunReport) -> None:
    export(lake, report, month_of(DAYS[1]))


def night(lake: Lake, report: RunReport) -> None:
    nightly(lake, report, as_of=AS_OF)


ALL_JOBS: dict[str, Job] = {**JOBS, "export": export_month, "meter add": add_meter}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged files are removed by the next run, not after an hour."""
    monkeypatch.setattr(listing, "GRACE", dt.timedelta(0))


@pytest.fixture(scope="session")
def scene(scratch_of_session: Path) -> Path:
    """A lake with everything in it that a job can meet, and a date whose events are gone; tests work on copies."""
    folder = scratch_of_session / "scene"
    lake, meter = a_lake(folder)
    gone = put(lake, meter, "a.parquet", event("gone", day=GONE), day=GONE)
    prepare(folder)
    gone.unlink()
    gone.parent.rmdir()
    return folder


def files(folder: Path) -> set[str]:
    """All files of a lake but temporary ones."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not path.startswith(paths.TEMPORARY)}


@pytest.mark.parametrize("name", ALL_JOBS)
def test_what_a_job_has_done_outlasts_a_loss_of_power(scratch: Path, scene: Path, name: str) -> None:
    folder = linked(scene, scratch / "lake")
    disk = LosingDisk(folder, scratch / "kept")
    with disk.recording(), reported(Lake(str(folder)), "job") as report:
        ALL_JOBS[name](Lake(str(folder)), report)
    before = files(folder)
    for seed in range(LOSSES):
        disk.lose(random.Random(seed))
        assert files(folder) == before


@pytest.mark.parametrize("ended_before", [False, True], ids=["one run", "a run after a killed one"])
@pytest.mark.parametrize("name", ALL_JOBS)
def test_after_a_loss_at_any_moment_the_next_runs_end_as_if_nothing_had_been(
    scratch: Path, scene: Path, name: str, *, ended_before: bool
) -> None:
    job = ALL_JOBS[name]
    undisturbed = linked(scene, scratch / "undisturbed")
    disk = LosingDisk(undisturbed, scratch / "kept")
    with disk.recording():
        run(Lake(str(undisturbed)), job)
    operations = disk.done
    expected = _after_following(undisturbed, job)
    for seed in range(LOSSES):
        chance = random.Random(f"{name} {seed}")
        folder = linked(scene, scratch / f"lake {seed}")
        disk = LosingDisk(folder, folder.with_name(f"kept {seed}"))
        for _ in range(2 if ended_before else 1):
            with suppress(EndedError), disk.recording(chance.randrange(1, operations + 2)):
                run(Lake(str(folder)), job)
        disk.lose(chance)
        _nothing_is_lost(folder)
        assert _after_following(folder, job) == expected, seed


def _after_following(folder: Path, job: Job) -> dict[str, Any]:
    lake = Lake(str(folder))
    for follow in (job, night, night):
        run(lake, follow)
    return ended(lake) | {"meters": [meter.to_json() for meter in lake.meters()]}


def _nothing_is_lost(folder: Path) -> None:
    """What is missing of the raw events is sealed, with its tables."""
    lake = Lake(str(folder))
    held = {place.date for f in lake.storage.list(paths.EVENTS) if (place := paths.split_partition(f.path))}
    for date in set(DAYS) - held:
        assert date in load_state(lake.storage, NAME).sealed
        for table in paths.TABLES:
            assert lake.storage.exists(paths.aggregate(table, NAME, date))


def test_a_new_lake_outlasts_a_loss_of_power_with_all_folders_above_it(scratch: Path) -> None:
    disk = LosingDisk(scratch / "srv", scratch / "kept")
    with disk.recording():
        Lake.init(str(scratch / "srv" / "lakes" / "usage"))
    disk.lose(random.Random(1))
    assert Lake(str(scratch / "srv" / "lakes" / "usage")).meters() == []


def test_a_file_in_a_folder_that_is_there_costs_two_syncs(scratch: Path) -> None:
    lake = Lake.init(str(scratch / "lake"))
    lake.storage.publish("a/b/c", b"1")
    disk = LosingDisk(scratch / "lake", scratch / "kept")
    costs = []
    with disk.recording():
        for path in ("a/b/c", "a/b/d", "a/new/d", "a/new/er/d"):
            before = disk.syncs
            lake.storage.publish(path, b"2")
            costs.append(disk.syncs - before)
        before = disk.syncs
        lake.storage.delete_all(["a/b/c", "a/b/d", "a/new/er/d"])
        costs.append(disk.syncs - before)
    assert costs == [2, 2, 3, 3, 2]
