"""Nothing is dropped by a date that can't be: one after today, or of a clock far ahead of all that is known."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import run_report
from jobs.cli import app
from jobs.compact import compact
from jobs.nightly import nightly
from jobs.retain import retain
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.storage import LocalStorage
from schemas.errors import RefusedError
from support import a_lake, event, put, usage

TODAY = dt.datetime.now(dt.UTC).date()
# Kept still, and expired in a month from now.
DAYS = [TODAY - dt.timedelta(days=20 + n) for n in range(3)]
YEARS = dt.timedelta(days=36 * 365)
REST = dt.timedelta(days=60)
FAKETIME = shutil.which("faketime")


class Clock:
    """This machine's clock, as far as jobs see it; a disk of its own keeps the right time, or the same."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_report, "now", clock.now)
    return clock


@pytest.fixture
def same_disk(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Files that are written get the time of that clock, as on a disk of this machine."""
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        said = real(descriptor)
        return os.stat_result((*said[:8], clock.now().timestamp(), said[9]))

    monkeypatch.setattr("jobs.clock.os.fstat", fstat)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three dates that expire within a month, aggregated and exported by a night of the right clock."""
    lake, meter = a_lake(tmp_path / "lake", event_retention_days=30)
    for day in DAYS:
        put(lake, meter, "a.parquet", event(f"k{day}", day=day), day=day)
    assert night(lake).exit_code == 0
    return lake


def night(lake: Lake, *, trust_clock: bool = False, as_of: dt.date | None = None) -> RunReport:
    with reported(lake, "nightly") as done:
        nightly(lake, done, as_of=as_of, trust_clock=trust_clock)
    return done


def events(lake: Lake) -> int:
    return len(lake.storage.list(paths.EVENTS))


def aged(lake: Lake, by: dt.timedelta) -> None:
    """As if all that has been done had been done so long before."""
    for file in Path(lake.url).rglob("*"):
        if file.is_file():
            at = file.stat().st_mtime - by.total_seconds()
            os.utime(file, (at, at))
    for file in lake.storage.list(paths.RUNS):
        start, job = paths.split_run(file.path) or pytest.fail(file.path)
        moved = Path(lake.url) / paths.run(start - by, job)
        (Path(lake.url) / file.path).rename(moved)


@pytest.mark.parametrize("job", ["retain", "nightly", "compact"])
def test_a_date_after_today_is_refused_and_nothing_is_done(
    lake: Lake, job: str, capfd: pytest.CaptureFixture[str]
) -> None:
    put(lake, lake.meter("active_users"), "b.parquet", event("new", day=DAYS[0]), day=DAYS[0])
    before = usage(lake, lake.meter("active_users"))
    for date in (TODAY + dt.timedelta(days=1), dt.date(2062, 11, 25), dt.date.max):
        assert app.run(["--lake", lake.url, job, "--as-of", str(date)]) == 1
        assert capfd.readouterr().err.startswith("error: --as-of: a date after today is refused")
    assert events(lake) == 4
    assert usage(lake, lake.meter("active_users")) == before


@pytest.mark.parametrize("job", ["retain", "compact"])
def test_a_dry_run_shows_what_a_later_date_would_do(
    lake: Lake, job: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["--lake", lake.url, "--json", job, "--dry-run", "--as-of", "2062-11-25"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert len(document["partitions"]) == (3 if job == "retain" else 0)
    assert events(lake) == 3


def test_today_is_no_date_after_today(lake: Lake) -> None:
    assert night(lake, as_of=TODAY).exit_code == 0


@pytest.mark.usefixtures("same_disk")
@pytest.mark.parametrize("ahead", [YEARS, dt.timedelta(days=32)])
def test_a_clock_far_ahead_drops_nothing_night_after_night_and_the_rest_is_done(
    lake: Lake, clock: Clock, ahead: dt.timedelta
) -> None:
    clock.ahead = ahead
    meter = lake.meter("active_users")
    for number in range(3):
        put(lake, meter, f"b{number}.parquet", event(f"new {number}", day=DAYS[0]), day=DAYS[0])
        if number:
            # It is dated by that clock, and so is all that the nights before have written.
            at = clock.now().timestamp() - 3600
            os.utime(Path(lake.url) / paths.events(meter.name, DAYS[0]) / f"b{number}.parquet", (at, at))
        done = night(lake)
        assert done.exit_code == 1
        (problem,) = done.errors
        assert problem["kind"] == "refused"
        assert "the time of " in problem["expected"]
        assert "--trust-clock" in problem["hint"]
        assert usage(lake, meter)[-1][2] == number + 2
        assert events(lake) == number + 4
        clock.ahead += dt.timedelta(days=1)


@pytest.mark.usefixtures("same_disk")
def test_a_clock_that_somebody_trusts_is_trusted_from_then_on(lake: Lake, clock: Clock) -> None:
    aged(lake, YEARS)
    assert night(lake).exit_code == 1
    assert events(lake) == 3
    assert night(lake, trust_clock=True).exit_code == 0
    for _ in range(70):
        clock.ahead += dt.timedelta(days=1)
        with reported(lake, "retain") as done:
            retain(lake, done)
        assert done.exit_code == 0
    assert events(lake) == 0


@pytest.mark.usefixtures("same_disk")
def test_what_is_dated_after_a_refused_run_is_no_evidence_but_once_the_clock_is_set_all_goes_on(
    lake: Lake, clock: Clock
) -> None:
    clock.ahead = YEARS
    assert night(lake).exit_code == 1
    clock.ahead = dt.timedelta()
    assert night(lake).exit_code == 0
    clock.ahead = YEARS + dt.timedelta(days=2)
    assert night(lake).exit_code == 1
    assert events(lake) == 3


def test_a_lake_that_has_rested_goes_on_where_something_was_landed_since(lake: Lake) -> None:
    aged(lake, REST)
    assert night(lake).exit_code == 1
    lake.storage.delete(paths.CLOCK)
    lake.storage.delete_all(file.path for file in lake.storage.list(paths.RUNS))
    put(lake, lake.meter("active_users"), "b.parquet", event("new", day=TODAY), day=TODAY)
    assert night(lake).exit_code == 0


@pytest.mark.usefixtures("clock")
def test_a_new_lake_whose_events_were_landed_this_minute_is_retained(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, event_retention_days=1)
    put(lake, meter, "a.parquet", event("k"))
    assert night(lake).exit_code == 0
    assert events(lake) == 0


def test_a_disk_with_a_clock_of_its_own_tells_though_something_landed_by_the_wrong_one(
    lake: Lake, clock: Clock
) -> None:
    clock.ahead = YEARS
    with reported(lake, "land"):
        pass
    (problem,) = night(lake).errors
    assert "a file written just now" in problem["expected"]
    assert events(lake) == 3


class Served(LocalStorage):
    """A lake on a server that has the right time."""

    def server_time(self) -> dt.datetime | None:
        return dt.datetime.now(dt.UTC)


def test_a_servers_date_decides_whatever_the_lake_tells(lake: Lake, clock: Clock) -> None:
    served = lake.over(Served(lake.url))
    aged(lake, REST)
    assert night(served).exit_code == 0
    clock.ahead = YEARS
    with reported(lake, "land"):
        pass
    (problem,) = night(served).errors
    assert "the storage's server" in problem["expected"]


def test_the_retain_job_is_refused_and_its_dry_run_says_so_and_leaves_no_trace(lake: Lake) -> None:
    aged(lake, REST)
    before = sorted(Path(lake.url).rglob("*"))
    for dry_run in (True, False):
        with (
            pytest.raises(RefusedError, match="too far ahead"),
            reported(lake, "retain", dry_run=dry_run) as done,
        ):
            retain(lake, done, dry_run=dry_run)
        if dry_run:
            assert sorted(Path(lake.url).rglob("*")) == before
    with reported(lake, "retain", dry_run=True) as done:
        retain(lake, done, dry_run=True, trust_clock=True)
    assert not lake.storage.read(paths.CLOCK) or done.exit_code == 0


def test_a_broken_note_about_clocks_is_named(lake: Lake) -> None:
    lake.storage.publish(paths.CLOCK, b"\xff")
    (problem,) = night(lake).errors
    assert problem["where"] == paths.CLOCK


def test_compaction_needs_no_clock_that_is_trusted(lake: Lake) -> None:
    aged(lake, REST)
    with reported(lake, "compact") as done:
        compact(lake, done)
    assert done.exit_code == 0


@pytest.mark.skipif(FAKETIME is None, reason="Debian's faketime is not installed")
def test_a_process_with_a_clock_years_ahead_drops_nothing(lake: Lake) -> None:
    command = [
        str(FAKETIME),
        "2062-11-25 03:00:00",
        sys.executable,
        "-m",
        "jobs",
        "--lake",
        lake.url,
        "nightly",
    ]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert done.returncode == 1, done.stderr
    assert "--trust-clock" in done.stderr
    assert events(lake) == 3
