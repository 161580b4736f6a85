"""Which partitions are out of date: every cause, alone and together."""

import datetime as dt
from typing import Any

import pytest

from lake.state.changes import Change, stale_partitions
from lake.state.records import READING_RULES, MeterState, PartitionState, RejectedFile
from lake.storage import StoredFile

DAY = dt.date(2026, 6, 19)
NEXT = dt.date(2026, 6, 20)
SEALED_AT = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
VERSION = "aaaaaaaaaaaa"


def stored(name: str, identity: str = "1", day: dt.date = DAY) -> StoredFile:
    return StoredFile(f"events/meter=m/date={day}/{name}", 1, identity)


def record(**more: Any) -> PartitionState:
    facts: dict[str, Any] = {
        "meter_version": VERSION,
        "files": {"a.parquet": "1"},
        "fingerprint": "0" * 16,
        "losers": "0" * 16,
        "events": 1,
        "rules": READING_RULES,
        "aggregated_at": SEALED_AT,
    }
    return PartitionState(**facts | more)


def change_of(listed: list[StoredFile], known: PartitionState | None) -> Change | None:
    state = MeterState(partitions={DAY: known} if known else {})
    found = stale_partitions({DAY: listed} if listed else {}, state, VERSION)
    assert set(found) <= {DAY}
    return found.get(DAY)


A, B, A2 = stored("a.parquet"), stored("b.parquet"), stored("a.parquet", "2")
UNREADABLE = RejectedFile(identity="1", what="unreadable file", where="events/…")
REJECTED = {"b.parquet": UNREADABLE}


@pytest.mark.parametrize(
    ("listed", "known", "expected"),
    [
        ([A, B], None, Change("new", (A, B))),
        ([A, B], record(), Change("files added", (B,))),
        (
            [A],
            record(files={"a.parquet": "1", "b.parquet": "1"}),
            Change("files removed", (), ("b.parquet",)),
        ),
        ([A2], record(), Change("files replaced", (A2,), ("a.parquet",))),
        ([B], record(), Change("files added, files removed", (B,), ("a.parquet",))),
        ([A2, B], record(), Change("files added, files replaced", (A2, B), ("a.parquet",))),
        ([A], record(meter_version="b"), Change("definition changed")),
        # What earlier rules refused may count by now; what they counted is found otherwise.
        ([A, B], record(rejected=REJECTED, rules=0), Change("reading rules changed")),
        ([A], record(invalid={"quantity_missing": 1}, rules=0), Change("reading rules changed")),
        (
            [A, stored("c.parquet")],
            record(invalid={"quantity_missing": 1}, rules=0),
            Change("reading rules changed, files added", (stored("c.parquet"),)),
        ),
        ([A, B], record(meter_version="b"), Change("definition changed, files added", (B,))),
        ([], record(), Change("vanished", (), ("a.parquet",))),
        ([], record(meter_version="b"), Change("vanished", (), ("a.parquet",))),
        ([], record(files={}, rejected=REJECTED), Change("vanished", (), ("b.parquet",))),
        ([A, B], record(sealed_at=SEALED_AT), Change("late files in sealed partition", (B,))),
        ([A2], record(sealed_at=SEALED_AT), Change("late files in sealed partition", (A2,))),
        (
            [A2],
            record(files={}, rejected={"a.parquet": UNREADABLE}),
            Change("files replaced", (A2,), ("a.parquet",)),
        ),
    ],
)
def test_a_partition_is_out_of_date(
    listed: list[StoredFile], known: PartitionState | None, expected: Change
) -> None:
    assert change_of(listed, known) == expected


@pytest.mark.parametrize(
    ("listed", "known"),
    [
        ([], None),
        ([A], record()),
        ([A, B], record(rejected=REJECTED)),
        ([], record(files={})),
        # Sealed: whether its files are dropped, left over, or of a meter that was changed since.
        ([A], record(rules=0)),
        ([A], record(invalid={"quantity_missing": 1})),
        ([], record(sealed_at=SEALED_AT)),
        ([A], record(sealed_at=SEALED_AT)),
        ([], record(sealed_at=SEALED_AT, meter_version="b")),
        ([A, B], record(sealed_at=SEALED_AT, rejected=REJECTED)),
        ([A, B], record(sealed_at=SEALED_AT, rejected=REJECTED, rules=0)),
    ],
)
def test_a_partition_is_up_to_date(listed: list[StoredFile], known: PartitionState | None) -> None:
    assert change_of(listed, known) is None


def test_partitions_are_sorted_and_kept_apart() -> None:
    state = MeterState(partitions={NEXT: record(), DAY: record()})
    found = stale_partitions({NEXT: [stored("b.parquet", day=NEXT)], DAY: [A]}, state, VERSION)
    assert found == {
        NEXT: Change("files added, files removed", (stored("b.parquet", day=NEXT),), ("a.parquet",))
    }
    assert list(stale_partitions({}, state, VERSION)) == [DAY, NEXT]
