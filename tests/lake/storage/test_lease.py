"""The lease: one job at a time, exactly one successor of a dead holder, and no publishing without it."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from jobs.cli.app import run
from jobs.nightly import nightly
from jobs.run_report import reported
from lake import Lake, paths
from lake.storage import LocalStorage, Storage
from lake.storage import lease as lease_module
from lake.storage.lease import Holder, Lease, current_holder
from lake.storage.leased_storage import LeasedStorage, leased
from schemas.errors import LeaseLostError, MeterlakeError, RefusedError, StorageError
from support import ROOT, a_lake, aggregated, content, define, event, put, usage

SHORT = dt.timedelta(seconds=1)
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

# As many contenders as there are names.
CONTENDER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from lake.storage.leased_storage import leased
from lake.storage import LocalStorage
from schemas.errors import RefusedError
folder, *names = sys.argv[1:]
def contend(name):
    try:
        with leased(LocalStorage(folder), name) as storage:
            storage.publish(f"got/{name}", b"")
            while not (Path(folder) / "end").exists():
                time.sleep(0.01)
    except RefusedError:
        pass
(Path(folder) / f"{names[0]} is ready").touch()
while not (Path(folder) / "go").exists():
    time.sleep(0.001)
with ThreadPoolExecutor(len(names)) as threads:
    list(threads.map(contend, names))
"""
HOLDER = """
import datetime as dt, os, signal, sys, time
from lake.storage.leased_storage import leased
from lake.storage import LocalStorage
from schemas.errors import LeaseLostError
with leased(LocalStorage(sys.argv[1]), "slow", lease_time=dt.timedelta(seconds=float(sys.argv[2]))) as storage:
    if "suspended" in sys.argv:
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        try:
            storage.publish("beat", b"")
        except LeaseLostError as error:
            print(error, flush=True)
            break
        time.sleep(0.05)
"""

BEHIND = """
import datetime as dt
from lake.storage import lease
lease._now = lambda: dt.datetime.now(dt.UTC) - dt.timedelta(days=365)
"""


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    root = str(ROOT)
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


class Clock:
    """The clocks of leases in this process: they go on only while somebody waits, so that no machine is too slow."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.is_set_back = False

    def now(self) -> dt.datetime:
        start = dt.datetime(2026, 6, 19, tzinfo=dt.UTC)
        return LONG_AGO if self.is_set_back else start + dt.timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def pass_by(self, span: dt.timedelta) -> None:
        """Wait until other threads have waited for so long."""
        end = self.seconds + span.total_seconds()
        until = time.monotonic() + 60
        while self.seconds < end:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.sleep(timeout or 0)
            return super().wait(0.001)

    monkeypatch.setattr(lease_module, "threading", SimpleNamespace(Event=Event, Thread=threading.Thread))
    monkeypatch.setattr(lease_module, "time", clock)
    monkeypatch.setattr(lease_module, "_now", clock.now)
    return clock


def renewing(storage: Storage) -> threading.Thread:
    """The thread that renews the lease of a storage."""
    assert isinstance(storage, LeasedStorage)
    return storage._lease._renewing


def a_dead_holders_lease(folder: Path, number: int = 1) -> None:
    holder = Holder(
        owner="x", job="nightly", host="h", process=1, taken_at=LONG_AGO, expires_at=LONG_AGO + SHORT
    )
    LocalStorage(folder).publish(paths.lease(number), msgspec.json.encode(holder))


def test_a_second_job_is_told_who_works_and_until_when(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with leased(storage, "nightly"):
        holder = current_holder(storage)
        assert holder is not None
        assert (holder.job, holder.process) == ("nightly", os.getpid())
        with (
            pytest.raises(RefusedError, match=f"nightly of process {os.getpid()} on") as caught,
            leased(storage, "x"),
        ):
            pass
        assert f"{holder.expires_at:%Y-%m-%d %H:%M:%S}" in caught.value.hint
    assert current_holder(storage) is None


def test_a_lease_that_was_given_back_is_free_at_once_and_leaves_one_file(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for number in range(1, 4):
        with leased(storage, "nightly"):
            assert [file.path for file in storage.list(paths.LEASE)] == [paths.lease(number)]


def test_ten_contenders_for_a_dead_holders_lease_and_exactly_one_gets_it(tmp_path: Path) -> None:
    a_dead_holders_lease(tmp_path, number=7)
    contenders = [started(CONTENDER, str(tmp_path), f"{number}a", f"{number}b") for number in range(5)]
    for number in range(5):
        wait_for(tmp_path / f"{number}a is ready")
    (tmp_path / "go").touch()
    until = time.monotonic() + 100
    while sum(contender.poll() is None for contender in contenders) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "end").touch()
    for contender in contenders:
        _, errors = contender.communicate(timeout=60)
        assert (contender.returncode, errors) == (0, "")
    assert len(list((tmp_path / "got").iterdir())) == 1


def test_a_holder_keeps_its_lease_for_longer_than_one_lease_time(tmp_path: Path, clock: Clock) -> None:
    storage = LocalStorage(tmp_path)
    with leased(storage, "nightly", lease_time=SHORT) as held:
        clock.pass_by(10 * SHORT)
        held.publish("x", b"")
        assert current_holder(storage) is not None


def test_a_suspended_holder_publishes_nothing_once_another_has_taken_over(tmp_path: Path) -> None:
    holder = started(HOLDER, str(tmp_path), "1", "suspended")
    try:
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        time.sleep(1.1)
        holder.send_signal(signal.SIGCONT)
        said, errors = holder.communicate(timeout=60)
    finally:
        holder.kill()
    assert said.startswith(f"{tmp_path}: this job lost its lease")
    assert (holder.returncode, errors) == (0, "")
    assert not (tmp_path / "beat").exists()


class _LostLease:
    """A lease that another job has taken over."""

    def check(self) -> None:
        raise LeaseLostError("lost")


@pytest.mark.parametrize(
    "name", [name for name in vars(Storage) if callable(getattr(Storage, name)) and name[0] != "_"]
)
def test_what_changes_something_looks_at_the_lease_first(name: str, tmp_path: Path) -> None:
    storage: Any = LeasedStorage(LocalStorage(tmp_path), cast("Lease", _LostLease()))
    changes = {"publish", "publish_file", "create", "delete", "delete_all"}
    if name in changes:
        with pytest.raises(LeaseLostError):
            getattr(storage, name)("x")
    else:
        assert getattr(storage, name).__self__ is storage._storage


def test_waiting_ends_when_the_other_job_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = started(CONTENDER, str(tmp_path), "a")
    storage = LocalStorage(tmp_path)
    (tmp_path / "go").touch()
    wait_for(tmp_path / "got" / "a")

    def end_the_other(_: float) -> None:
        (tmp_path / "end").touch()
        time.sleep(0.01)

    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=end_the_other))
    with leased(storage, "b", wait=True):
        assert (tmp_path / "end").exists()
    other.communicate(timeout=60)


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff"])
def test_a_file_that_is_no_lease_is_named(tmp_path: Path, body: bytes) -> None:
    storage = LocalStorage(tmp_path)
    storage.publish(paths.lease(1), body)
    with pytest.raises(MeterlakeError, match="not a lease") as caught, leased(storage, "nightly"):
        pass
    assert caught.value.where == paths.lease(1)


def a_lease_until(
    folder: Path, end: dt.datetime, number: int = 1, start: dt.datetime | None = None
) -> Holder:
    """The lease of a job on another machine."""
    holder = Holder(
        owner="x", job="retain", host="other", process=1, taken_at=start or end - SHORT, expires_at=end
    )
    LocalStorage(folder).publish(paths.lease(number), msgspec.json.encode(holder))
    return holder


FAR = dt.datetime(2130, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


def test_a_lease_that_ends_later_than_any_can_is_told_with_its_date_and_taken_over_on_request(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Lake.init(str(tmp_path))
    a_lease_until(tmp_path, FAR)
    command = ["--lake", str(tmp_path), "aggregate"]
    assert run(command) == 1
    printed = capfd.readouterr().err
    assert "the lease of this lake ends later than any lease can" in printed
    assert "until 2130-02-03 04:05:06 UTC" in printed
    assert "--take-lease" in printed
    assert run([*command, "--take-lease"]) == 0
    assert run(command) == 0


def test_a_lease_that_is_held_as_usual_is_not_taken_over(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    refused = pytest.raises(RefusedError, match="another job is working")
    with leased(storage, "nightly") as held:
        with refused, leased(storage, "x", take=True):
            pass
        held.publish("x", b"")


def test_waiting_for_a_lease_that_never_ends_goes_on_only_while_it_is_renewed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = 5
    for_so_long = renewals * lease_module.LEASE_TIME

    def sleep_beside_its_holder(seconds: float) -> None:
        clock.seconds += seconds
        if clock.seconds <= for_so_long.total_seconds() and clock.seconds % 60 == 0:
            a_lease_until(tmp_path, FAR + clock.seconds * SHORT)

    a_lease_until(tmp_path, FAR)
    monkeypatch.setattr(clock, "sleep", sleep_beside_its_holder)
    with (
        pytest.raises(RefusedError, match="later than any lease can"),
        leased(LocalStorage(tmp_path), "x", wait=True),
    ):
        pass
    after = lease_module.LEASE_TIME + lease_module.MAX_CLOCK_SKEW
    assert clock.seconds == (for_so_long + after).total_seconds()


def test_a_holder_with_a_clock_that_is_behind_stops_once_another_has_taken_over(tmp_path: Path) -> None:
    holder = started(BEHIND + HOLDER, str(tmp_path), "2")
    try:
        wait_for(tmp_path / "beat")
        with leased(LocalStorage(tmp_path), "next") as successor:
            printed, errors = holder.communicate(timeout=60)
            successor.publish("x", b"")
    finally:
        holder.kill()
    assert printed.startswith(f"{tmp_path}: this job lost its lease")
    assert (holder.returncode, errors) == (0, "")


def test_a_clock_that_is_set_back_while_it_is_held_does_not_end_a_lease_for_others(
    tmp_path: Path, clock: Clock
) -> None:
    storage = LocalStorage(tmp_path)
    with leased(storage, "nightly", lease_time=SHORT) as held:
        clock.is_set_back = True
        clock.pass_by(1.5 * SHORT)
        held.publish("x", b"")
        clock.is_set_back = False
        assert current_holder(storage) is not None
        with pytest.raises(RefusedError), leased(storage, "x"):
            pass


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"owner": 1}'])
def test_a_lease_that_can_not_be_read_is_taken_over_on_request(tmp_path: Path, body: bytes) -> None:
    storage = LocalStorage(tmp_path)
    storage.publish(paths.lease(7), body)
    with pytest.raises(MeterlakeError, match="not a lease") as caught, leased(storage, "nightly"):
        pass
    assert "--take-lease" in caught.value.hint
    with leased(storage, "nightly", take=True):
        assert [file.path for file in storage.list(paths.LEASE)] == [paths.lease(8)]


@pytest.mark.parametrize("end", ["2030-01-01T00:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_a_lease_with_a_time_that_can_not_be_compared_is_named(tmp_path: Path, end: str) -> None:
    whole = msgspec.json.decode(msgspec.json.encode(a_lease_until(tmp_path, FAR)))
    LocalStorage(tmp_path).publish(paths.lease(1), json.dumps(whole | {"expires_at": end}).encode())
    with pytest.raises(MeterlakeError, match="not a lease"), leased(LocalStorage(tmp_path), "nightly"):
        pass


def test_what_lands_during_a_run_waits_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    listed = LocalStorage.list

    def list_then_land(self: LocalStorage, prefix: str) -> list[object]:
        found = listed(self, prefix)
        if prefix == paths.EVENTS:
            put(lake, meter, "during.parquet", event("b"))
            put(lake, meter, "a.parquet", event("a", quantity="5"))
            monkeypatch.undo()
        return list(found)

    monkeypatch.setattr(LocalStorage, "list", list_then_land)
    aggregated(lake)
    report = aggregated(Lake(lake.url))
    assert [partition.reason for partition in report.partitions] == ["files added, files replaced"]
    assert [str(quantity) for *_, quantity in usage(lake, meter)] == ["6.000000000"]


@pytest.mark.usefixtures("clock")
def test_a_job_whose_successor_works_already_finds_out_by_its_next_renewal(tmp_path: Path) -> None:
    """Where clocks differ by more than is allowed for: the successor thought that the lease was over."""
    storage = LocalStorage(tmp_path)
    with leased(storage, "nightly", lease_time=SHORT) as held:
        a_dead_holders_lease(tmp_path, number=2)
        renewing(held).join(60)
        with pytest.raises(LeaseLostError, match="lost its lease"):
            held.publish("x", b"")
    assert not storage.exists("x")


def test_a_clock_that_is_set_back_does_not_lengthen_a_lease(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module.Lease, "_renew", lambda _: None)
    with leased(LocalStorage(tmp_path), "nightly", lease_time=SHORT) as held:
        clock.is_set_back = True
        held.publish("x", b"")
        clock.sleep(1.1)
        with pytest.raises(LeaseLostError):
            held.publish("x", b"")


def test_a_renewal_that_took_until_after_the_end_came_too_late(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = LocalStorage.publish

    def slow(self: LocalStorage, path: str, content: bytes) -> None:
        if path.startswith(paths.LEASE):
            clock.sleep(1.5)
        publish(self, path, content)

    with leased(LocalStorage(tmp_path), "nightly", lease_time=SHORT) as held:
        monkeypatch.setattr(LocalStorage, "publish", slow)
        renewing(held).join(60)
        with pytest.raises(LeaseLostError):
            held.publish("x", b"")


def test_a_lease_that_was_created_by_an_attempt_without_an_answer_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = LocalStorage.create
    # The first attempt did it, and the second one was answered.
    monkeypatch.setattr(LocalStorage, "create", lambda *said: create(*said) and False)
    with leased(LocalStorage(tmp_path), "nightly") as held:
        held.publish("x", b"")


def test_a_job_is_not_failed_by_a_lease_that_cannot_be_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no(_: LocalStorage, path: str, __: bytes) -> None:
        raise StorageError("no", where=path)

    with leased(LocalStorage(tmp_path), "nightly"):
        monkeypatch.setattr(LocalStorage, "publish", no)
    assert "could not be returned" in caplog.text


def test_a_night_that_lost_its_lease_ends_at_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter = a_lake(tmp_path)
    define(lake, name="another")
    put(lake, meter, "a.parquet", event("a"))
    monkeypatch.setattr(lease_module.Lease, "_renew", lambda _: None)
    with (  # noqa: PT012 - the lease is lost before the night, and the night tells
        pytest.raises(LeaseLostError),
        reported(lake, "nightly") as report,
        leased(lake.storage, "nightly", lease_time=SHORT) as held,
    ):
        clock.sleep(2)
        nightly(lake.over(held), report)
    assert [problem["kind"] for problem in report.errors] == ["lease lost"]
    assert report.exit_code == 3
    assert content(tmp_path, "aggregates") == {}


def test_a_refused_job_says_who_works_and_leaves_a_report(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Lake.init(str(tmp_path))
    with leased(LocalStorage(tmp_path), "retain"):
        assert run(["--lake", str(tmp_path), "nightly"]) == 1
        told = capfd.readouterr().err
        assert "another job is working on this lake" in told
        assert f"found retain of process {os.getpid()} on {socket.gethostname()} since" in told
        assert "Traceback" not in told
        assert run(["--lake", str(tmp_path), "--json", "status"]) == 0
        found = json.loads(capfd.readouterr().out)
    assert [(one["job"], one["outcome"]) for one in found["runs"]] == [("nightly", "incomplete")]
    assert found["working"].startswith(f"retain of process {os.getpid()}")


def test_a_status_is_shown_though_the_lease_is_broken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lake, _ = a_lake(tmp_path)
    lake.storage.publish(paths.lease(3), b"{")
    assert run(["--lake", str(tmp_path), "status"]) == 3
    told = capfd.readouterr()
    assert "active_users" in told.out
    assert "not a lease" in told.err
