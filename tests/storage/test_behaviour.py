"""The same lake on every storage: landing, aggregating, retention, the lease, and a crash at every operation."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from depth import DEEP
from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.land.job import land
from jobs.run_report import RunReport
from jobs.verify.job import verify
from lake import Lake, paths
from lake.events import listing
from lake.state.state_file import load_state
from lake.storage import Storage, open_storage
from lake.storage.lease import current_holder
from lake.storage.leased_storage import leased
from schemas.errors import RefusedError
from storage.lakes import defined, ending, fill, night, parquet, put, ran
from storage.server import Server
from support import DAY, event, recomputed, usage

NEXT = DAY + dt.timedelta(days=1)
LATER = DAY + dt.timedelta(days=2)
MINUTE = dt.timedelta(minutes=1)
# The meter keeps events for 30 days: DAY has expired, NEXT has not.
EXPIRED = DAY + dt.timedelta(days=31)
OPEN = DAY + dt.timedelta(days=3)
# Unless all crashes are asked for, only every so many operations are tried, from the first of the night to its last: by
# turns before the operation and after it, and other ones on each kind of storage.
EVERY = {"s3": 7, "local": 3, "memory": 2} if not DEEP else {}
MANY = 10_000


@pytest.fixture
def lake(url: str) -> Lake:
    return Lake.init(url)


def aggregated(lake: Lake) -> RunReport:
    return ran(lake, lambda report: aggregate(lake, report))


def test_what_is_landed_counts_once(lake: Lake, tmp_path: Path) -> None:
    meter = defined(lake)
    lines = [
        {"idempotency_key": f"k{n % 3}", "subject": "org_1", "meter": meter.name, "quantity": 1.5}
        | {"timestamp": "2026-06-19T12:00:00Z", "received_at": f"2026-06-19T12:00:0{n}Z"}
        for n in range(5)
    ]
    source = tmp_path / "events.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"meter": meter.name}]))
    first = ran(lake, lambda report: land(lake, [str(source)], report))
    again = ran(lake, lambda report: land(lake, [str(source)], report))
    assert (first.events_landed, again.events_landed) == (5, 0)
    assert sum(first.quarantined.values()) == 1
    report = aggregated(lake)
    assert (report.duplicates, report.events_read) == (2, 5)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("4.5"))]


def test_only_what_changed_is_recomputed_and_a_copy_moves_a_winner(lake: Lake) -> None:
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("k", quantity="5"), event("other"))
    put(lake, meter, "a.parquet", LATER, event("x", day=LATER))
    assert recomputed(aggregated(lake)) == {DAY: "new", LATER: "new"}
    assert aggregated(lake).partitions == []
    midnight = dt.datetime.combine(NEXT, dt.time(), dt.UTC)
    early = event("k", quantity="9", timestamp=midnight, received_at=event("k")["received_at"] - MINUTE)
    put(lake, meter, "late.parquet", NEXT, early)
    assert recomputed(aggregated(lake)) == {DAY: "a duplicate in another partition", NEXT: "new"}
    assert usage(lake, meter) == [
        (DAY, "org_1", Decimal(1)),
        (NEXT, "org_1", Decimal(9)),
        (LATER, "org_1", Decimal(1)),
    ]


def test_replaced_and_removed_files_are_seen(lake: Lake) -> None:
    meter = defined(lake)
    first = put(lake, meter, "a.parquet", DAY, event("k", quantity="5"))
    put(lake, meter, "b.parquet", NEXT, event("k", quantity="7", day=NEXT))
    aggregated(lake)
    put(lake, meter, "a.parquet", DAY, event("other"))
    assert recomputed(aggregated(lake)) == {DAY: "files replaced", NEXT: "a duplicate in another partition"}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1)), (NEXT, "org_1", Decimal(7))]
    lake.storage.delete(first)
    assert recomputed(aggregated(lake)) == {DAY: "vanished"}
    assert usage(lake, meter) == [(NEXT, "org_1", Decimal(7))]


def test_a_file_that_is_no_parquet_is_named_and_the_others_count(lake: Lake) -> None:
    meter = defined(lake)
    lake.storage.publish(paths.events(meter.name, DAY) + "bad.parquet", b"PAR1 nothing more")
    put(lake, meter, "good.parquet", DAY, event("a"))
    for _ in range(2):
        report = aggregated(lake)
        assert [problem["what"] for problem in report.errors] == ["unreadable file"]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


def test_retention_drops_what_is_sealed_and_late_files_go_to_quarantine(lake: Lake) -> None:
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("a"), event("shared"))
    put(lake, meter, "a.parquet", NEXT, event("b", day=NEXT), event("shared", day=NEXT))
    assert night(lake, EXPIRED).exit_code == 0
    assert [file.path for file in lake.storage.list(paths.EVENTS)] == [
        paths.events(meter.name, NEXT) + "a.parquet"
    ]
    put(lake, meter, "late.parquet", DAY, event("c"))
    put(lake, meter, "again.parquet", NEXT, event("shared", day=NEXT))
    assert night(lake, EXPIRED).quarantined == {"sealed_partition": 1}
    assert load_state(lake.storage, meter.name).sealed == {DAY}
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2)), (NEXT, "org_1", Decimal(1))]


def test_a_lost_state_is_rebuilt_from_tables_that_agree(lake: Lake) -> None:
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("a"), event("shared"))
    put(lake, meter, "a.parquet", NEXT, event("b", day=NEXT), event("shared", day=NEXT))
    put(lake, meter, "a.parquet", LATER, event("c", day=LATER))
    night(lake, EXPIRED)
    expected = usage(lake, meter)
    lake.storage.delete(paths.state(meter.name))
    lake.storage.delete(paths.aggregate("usage", meter.name, NEXT))
    put(lake, meter, "late.parquet", DAY, event("late"))
    report = night(lake, EXPIRED)
    assert report.quarantined == {"sealed_partition": 1}
    assert recomputed(report) == {DAY: "late files in sealed partition", NEXT: "interrupted before"}
    assert usage(lake, meter) == expected
    assert lake.usage(meter.name).collect()["events"].sum() == 4


def test_small_files_are_merged_and_nothing_else_changes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = defined(lake)
    for number in range(5):
        put(lake, meter, f"{number}.parquet", DAY, event("k"), event(f"own {number}"), event(None))
    aggregated(lake)
    before = ending(lake, meter.name)
    files = f"{meter.name} files"

    def compacted_now() -> dict[dt.date, str]:
        report = ran(lake, lambda report: compact(lake, report, as_of=OPEN))
        return {done.date: done.reason for done in report.partitions if done.action == "compacted"}

    assert compacted_now() == {DAY: "5 files into 1"}
    assert len(ending(lake, meter.name)[files]) == 6
    monkeypatch.setattr(listing, "GRACE", dt.timedelta(0))
    assert compacted_now() == {}
    after = ending(lake, meter.name)
    assert len(after.pop(files)) == 1
    assert after == {name: rows for name, rows in before.items() if name != files}
    assert ran(lake, lambda report: verify(lake, report)).errors == []
    assert night(lake, OPEN).partitions == []


def test_verification_finds_what_was_removed_and_what_was_edited(lake: Lake) -> None:
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("a"), event("k"))
    put(lake, meter, "b.parquet", NEXT, event("k", day=NEXT), event("b", day=NEXT))
    aggregated(lake)
    assert ran(lake, lambda report: verify(lake, report)).errors == []
    path = paths.aggregate("usage", meter.name, DAY)
    whole = lake.storage.read(path)
    assert whole
    lake.storage.publish(path, lake.storage.read(paths.aggregate("usage", meter.name, NEXT)) or b"")
    said = ran(lake, lambda report: verify(lake, report)).errors
    assert {"other inputs", "rows differ"} <= {problem["what"] for problem in said}
    lake.storage.delete(path)
    (problem,) = ran(lake, lambda report: verify(lake, report)).errors
    assert (problem["what"], problem["where"]) == ("missing", path)
    lake.storage.publish(path, whole)
    assert ran(lake, lambda report: verify(lake, report)).errors == []


def test_lost_state_and_index_are_made_again(lake: Lake) -> None:
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("a"), event("a"))
    aggregated(lake)
    before = ending(lake, meter.name)
    for folder in (paths.STATE, paths.INDEX):
        lake.storage.delete_all([file.path for file in lake.storage.list(folder)])
    assert aggregated(lake).partitions == []
    assert ending(lake, meter.name) == before


def test_one_of_ten_contenders_gets_the_lease(url: str, lake: Lake) -> None:
    def contend(_: int) -> bool:
        try:
            with leased(open_storage(url), "nightly"):
                assert current_holder(open_storage(url)) is not None
                done.append(1)
                held.wait(20)
        except RefusedError as error:
            refused.append(error.found)
            if len(refused) == 9:
                held.set()
            return False
        return True

    held, done, refused = threading.Event(), [], []  # type: ignore[var-annotated]
    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(contend, range(10))) == 1
    assert all("nightly of process" in said for said in refused)
    assert current_holder(lake.storage) is None


class Crash(BaseException):
    """The process ends here."""


class CrashingStorage:
    """A storage under which the process ends before or after the n-th operation that changes something."""

    CHANGES = ("publish", "publish_file", "create", "delete", "delete_all")

    def __init__(self, storage: Storage, at: int, *, after: bool) -> None:
        self._storage, self._left, self._after = storage, at, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        return self._crashing(method) if name in self.CHANGES else method

    def _crashing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0 or (self._left == 0 and not self._after):
                raise Crash
            done = method(*given, **options)
            if self._left == 0:
                raise Crash
            return done

        return called


def scene(url: str, server: Server | None) -> tuple[Lake, str]:
    """A lake whose next night does everything: a moved winner, a seal, a drop, a withdrawn partition."""
    lake = Lake.init(url)
    meter = defined(lake)
    files = {
        (DAY, "a.parquet"): [event("a"), event("shared", quantity="3"), event("shared")],
        (NEXT, "a.parquet"): [event("shared", day=NEXT), event("gone", day=NEXT)],
    }
    contents = {
        paths.events(meter.name, day) + name: parquet(meter, *rows) for (day, name), rows in files.items()
    }
    fill(lake, contents) if server else [lake.storage.publish(*each) for each in contents.items()]
    night(lake, OPEN)
    lake.storage.delete(paths.events(meter.name, NEXT) + "a.parquet")
    put(
        lake,
        meter,
        "b.parquet",
        DAY,
        event("shared", quantity="8", received_at=event("k")["received_at"] - MINUTE),
    )
    put(lake, meter, "b.parquet", LATER, event("shared", day=LATER), event("new", day=LATER))
    return lake, meter.name


def operations(url: str) -> int:
    """How many operations the night of the scene has."""
    lake, _ = scene(url, None)
    counting = crashing(lake, MANY, after=False)
    night(counting, EXPIRED)
    return MANY - counting.storage._left  # type: ignore[attr-defined]


def crashing(lake: Lake, at: int, *, after: bool) -> Lake:
    opened = Lake(lake.url) if not lake.url.startswith("memory") else lake
    opened.storage = CrashingStorage(opened.storage, at, after=after)  # type: ignore[assignment]
    return opened


def test_after_a_crash_at_any_operation_the_next_night_ends_as_one_that_was_not_disturbed(
    url: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("server") if url.startswith("s3") else None
    undisturbed, meter = scene(f"{url}/undisturbed", server)
    night(undisturbed, EXPIRED)
    expected = ending(undisturbed, meter)
    count = operations(f"memory://{uuid.uuid4().hex}")
    assert count > 15
    every = EVERY.get("s3" if server else "memory" if url.startswith("memory") else "local", 1)
    for at in range(1, count + 1, every):
        for after in (False, True) if every == 1 else (at // every % 2 == 0,):
            lake, _ = scene(f"{url}/{at}{after}", server)
            with pytest.raises(Crash):
                night(crashing(lake, at, after=after), EXPIRED)
            again = Lake(lake.url)
            # Readers see whole files: whatever is there can be read.
            for table in paths.TABLES:
                getattr(again, table)(meter).collect()
            assert night(again, EXPIRED).exit_code == 0
            assert ending(again, meter) == expected, (at, after)
            assert night(again, EXPIRED).partitions == []
