"""After an upgrade, what earlier reading rules refused or counted otherwise is computed once more, and only that."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import jobs.aggregate.compute
import jobs.aggregate.job
import lake.aggregates.valid_tables
import lake.events.file_check
import schemas.event_rules
from jobs.compact import compact
from jobs.export.billing import month_of, parse_period
from jobs.export.job import export
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from jobs.status import MeterStatus, status
from jobs.verify.job import verify
from lake import Lake, paths
from lake.events.partition import check_file
from lake.events.producer_files import FileCheck
from lake.state.records import READING_RULES
from lake.state.state_file import load_state
from lake.storage import LocalStorage, StoredFile
from schemas.errors import BadInputError
from schemas.meter import Meter
from schemas.validation import check_earlier_aggregate
from support import DAY, a_lake, aggregated, event, put, recomputed, retained, usage

BEFORE, NEXT = DAY - dt.timedelta(days=1), DAY + dt.timedelta(days=1)
CHANGED = "reading rules changed"


@contextmanager
def earlier_rules() -> Iterator[None]:
    """Rules without a version: other types than the lake's are refused, as is an absent quantity, but none for its size."""

    def strict(storage: Any, meter: Meter, file: StoredFile) -> FileCheck:
        check = check_file(storage, meter, file)
        error = BadInputError("column 'quantity' is wrong", where=file.path)
        return FileCheck(error) if check.converted else check

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.aggregate.compute, "READING_RULES", 0)
        patch.setattr(jobs.aggregate.job, "READING_RULES", 0)
        patch.setattr(lake.events.file_check, "check_file", strict)
        patch.setattr(Meter, "needs_quantity", property(lambda _: True))
        patch.setattr(schemas.event_rules, "QUANTITY_LIMIT", 10**28)
        patch.setattr(lake.aggregates.valid_tables, "check_aggregate", check_earlier_aggregate)
        yield


def aggregated_earlier(opened: Lake) -> None:
    with earlier_rules():
        aggregated(opened)
    state = load_state(opened.storage, opened.meters()[0].name)
    assert {record.rules for record in state.partitions.values()} | {state.rules} == {0}


def put_halves(opened: Lake, meter: Meter) -> None:
    file = put(opened, meter, "half.parquet", event("half", quantity="0.1"))
    pl.read_parquet(file).with_columns(pl.col("quantity").cast(pl.Float64).cast(pl.Float16)).write_parquet(
        file
    )


def moved(opened: Lake, folder: Path) -> Lake:
    """The lake copied to another folder, which gives every file another identity."""
    shutil.copytree(opened.url, folder)
    return Lake(str(folder))


def quarantined(opened: Lake) -> list[tuple[str, str]]:
    files = (opened.storage.uri(file.path) for file in opened.storage.list(paths.QUARANTINE))
    rows = [pl.read_parquet(file, hive_partitioning=False) for file in files]
    return pl.concat(rows).select("reason", "source").sort(pl.all()).rows() if rows else []


def status_of(opened: Lake) -> MeterStatus:
    (found,) = status(opened, 0).meters
    return found


def verified(opened: Lake) -> list[dict[str, str]]:
    with reported(opened, "verify") as report:
        verify(opened, report)
    return report.errors


def rebuilt(opened: Lake, meter: Meter, folder: Path) -> list[tuple[dt.date, str, Decimal]]:
    """What a lake made from scratch of the same events has."""
    other, _ = a_lake(folder, aggregation=meter.aggregation)
    shutil.copytree(Path(opened.url) / "events", folder / "events")
    aggregated(other)
    return usage(other, meter)


def test_a_file_that_was_refused_counts_and_leaves_the_to_do_list(tmp_path: Path) -> None:
    opened, meter = a_lake(tmp_path / "lake")
    put(opened, meter, "a.parquet", event("a"))
    put(opened, meter, "a.parquet", event("b", day=NEXT), day=NEXT)
    put_halves(opened, meter)
    aggregated_earlier(opened)
    assert len(status_of(opened).rejected_files) == 1
    assert status_of(opened).out_of_date == {DAY: CHANGED}
    assert verified(opened) == []
    assert recomputed(aggregated(opened)) == {DAY: CHANGED}
    assert usage(opened, meter) == [(DAY, "org_1", Decimal("1.1")), (NEXT, "org_1", Decimal(1))]
    assert (status_of(opened).rejected_files, status_of(opened).out_of_date) == ([], {})
    assert (verified(opened), recomputed(aggregated(opened))) == ([], {})


def test_a_file_that_is_refused_still_is_looked_at_once(tmp_path: Path) -> None:
    opened, meter = a_lake(tmp_path / "lake")
    put(opened, meter, "a.parquet", event("a"))
    put(opened, meter, "bad.parquet", event("b")).write_bytes(b"no Parquet")
    aggregated_earlier(opened)
    assert recomputed(aggregated(opened)) == {DAY: CHANGED}
    report = aggregated(opened)
    assert (recomputed(report), report.exit_code) == ({}, 1)
    assert len(status_of(opened).rejected_files) == 1


def count_lake(folder: Path) -> tuple[Lake, Meter]:
    """A lake of a count, of whose events one without a quantity and one without a subject were refused."""
    opened, meter = a_lake(folder, aggregation="count")
    none, bad = event("none") | {"quantity": None}, event("bad", subject="?")
    put(opened, meter, "a.parquet", event("a"), none, bad)
    put(opened, meter, "b.parquet", event("b"))
    aggregated_earlier(opened)
    return opened, meter


@pytest.mark.parametrize("copied", [False, True])
def test_rows_that_were_refused_count_and_leave_the_quarantine(tmp_path: Path, copied: bool) -> None:
    opened, meter = count_lake(tmp_path / "lake")
    assert [reason for reason, _ in quarantined(opened)] == ["quantity_missing", "subject_invalid"]
    if copied:
        opened = moved(opened, tmp_path / "copy")
    report = aggregated(opened)
    assert usage(opened, meter) == [(DAY, "org_1", Decimal(3))]
    assert [reason for reason, _ in quarantined(opened)] == ["subject_invalid"]
    assert status_of(opened).quarantined == {"subject_invalid": 1}
    # What was in quarantine before is no news.
    assert (report.quarantined, report.exit_code) == ({}, 0)
    assert verified(opened) == []
    assert recomputed(aggregated(opened)) == {}


def test_rows_of_a_file_that_was_replaced_meanwhile_stay_in_quarantine(tmp_path: Path) -> None:
    opened, meter = count_lake(tmp_path / "lake")
    put(opened, meter, "a.parquet", *(event(f"other {n}") for n in range(99)))
    aggregated(opened)
    assert [reason for reason, _ in quarantined(opened)] == ["quantity_missing", "subject_invalid"]


def test_refused_rows_that_were_compacted_count(tmp_path: Path) -> None:
    opened, meter = count_lake(tmp_path / "lake")
    with earlier_rules(), reported(opened, "compact") as report:
        compact(opened, report, as_of=DAY + dt.timedelta(days=5))
    (state,) = load_state(opened.storage, meter.name).partitions.values()
    assert (state.rules, state.invalid) == (0, {"quantity_missing": 1, "subject_invalid": 1})
    aggregated(opened)
    assert usage(opened, meter) == [(DAY, "org_1", Decimal(3))]
    assert [reason for reason, _ in quarantined(opened)] == ["subject_invalid"]
    assert status_of(opened).quarantined == {"subject_invalid": 1}


def test_what_counts_now_is_told_by_the_next_export(tmp_path: Path) -> None:
    opened, _ = count_lake(tmp_path / "lake")

    def exported() -> int:
        with reported(opened, "export") as report:
            export(opened, report, month_of(DAY))
        return report.exports[0].revision

    assert exported() == 1
    aggregated(opened)
    assert exported() == 2
    assert exported() == 2


def test_a_row_that_counts_now_takes_the_key_from_another_date(tmp_path: Path) -> None:
    opened, meter = a_lake(tmp_path / "lake", aggregation="count")
    put(opened, meter, "a.parquet", event("k") | {"quantity": None}, event("a"))
    put(opened, meter, "a.parquet", event("k", day=NEXT), day=NEXT)
    put(opened, meter, "a.parquet", event("c", day=BEFORE), day=BEFORE)
    aggregated_earlier(opened)
    assert usage(opened, meter)[-1] == (NEXT, "org_1", Decimal(1))
    assert verified(opened) == []
    assert set(recomputed(aggregated(opened))) == {DAY, NEXT}
    assert usage(opened, meter) == rebuilt(opened, meter, tmp_path / "other")
    assert [date for date, *_ in usage(opened, meter)] == [BEFORE, DAY]


def large(*, compacted: bool, folder: Path) -> tuple[Lake, Meter]:
    """A lake with a quantity that counted once; its later copy on the next date, of an ordinary one, lost to it."""
    opened, meter = a_lake(folder)
    put(opened, meter, "a.parquet", event("k", quantity="1" + "0" * 20), event("a"))
    put(opened, meter, "b.parquet", event("b"))
    put(opened, meter, "a.parquet", event("k", day=NEXT), event("c", day=NEXT), day=NEXT)
    put(opened, meter, "a.parquet", event("d", day=BEFORE), day=BEFORE)
    aggregated_earlier(opened)
    if compacted:
        with earlier_rules(), reported(opened, "compact") as report:
            compact(opened, report, as_of=DAY + dt.timedelta(days=5))
    return opened, meter


# Not both: a copy gives merged files other identities, and they are reported instead.
@pytest.mark.parametrize("done", ["nothing else", "copied", "compacted"])
@pytest.mark.parametrize("state", ["there", "lost"])
def test_quantities_that_are_refused_today_are_found_and_computed_anew(
    tmp_path: Path, done: str, state: str
) -> None:
    opened, meter = large(compacted=done == "compacted", folder=tmp_path / "lake")
    assert verified(opened) == []
    if state == "lost":
        opened.storage.delete(paths.state(meter.name))
    if done == "copied":
        opened = moved(opened, tmp_path / "copy")
    aggregated(opened)
    assert usage(opened, meter) == [
        (BEFORE, "org_1", Decimal(1)),
        (DAY, "org_1", Decimal(2)),
        (NEXT, "org_1", Decimal(2)),
    ]
    assert [reason for reason, _ in quarantined(opened)] == ["quantity_invalid"]
    assert verified(opened) == []
    if done != "compacted":
        assert usage(opened, meter) == rebuilt(opened, meter, tmp_path / "other")


def test_tables_are_looked_at_once(tmp_path: Path) -> None:
    class Counting(LocalStorage):
        scanned = 0

        def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
            self.scanned += len(files)
            return super().scan(files, **options)

    def scans() -> int:
        storage = Counting(opened.url)
        assert recomputed(aggregated(opened.over(storage))) == {}
        return storage.scanned

    opened, meter = a_lake(tmp_path / "lake")
    for day in (BEFORE, DAY, NEXT):
        put(opened, meter, "a.parquet", event(f"{day}", day=day), day=day)
    aggregated_earlier(opened)
    assert scans() == 3
    assert load_state(opened.storage, meter.name).rules == READING_RULES
    assert scans() == 0


def test_what_is_sealed_stays_as_it_is(tmp_path: Path) -> None:
    opened, meter = a_lake(tmp_path / "lake", aggregation="count")
    put(opened, meter, "a.parquet", event("a"), event("none") | {"quantity": None})
    aggregated_earlier(opened)
    report = retained(opened, DAY + dt.timedelta(days=60))
    # Its numbers are not those of today's rules yet.
    assert [problem["found"] for problem in report.errors] == [CHANGED]
    with earlier_rules(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.state.changes.READING_RULES", 0)
        retained(opened, DAY + dt.timedelta(days=60))
    report = aggregated(opened)
    assert (recomputed(report), usage(opened, meter)) == ({}, [(DAY, "org_1", Decimal(1))])
    assert status_of(opened).sealed == 1


def test_a_run_that_is_interrupted_is_done_again(tmp_path: Path) -> None:
    class Failing(LocalStorage):
        def publish(self, path: str, content: bytes) -> None:
            if path.startswith(paths.STATE):
                raise KeyboardInterrupt
            super().publish(path, content)

    opened, meter = count_lake(tmp_path / "lake")
    with pytest.raises(KeyboardInterrupt):
        aggregated(opened.over(Failing(opened.url)))
    report: RunReport = aggregated(opened)
    assert recomputed(report) == {DAY: CHANGED}
    assert usage(opened, meter) == [(DAY, "org_1", Decimal(3))]
    assert [reason for reason, _ in quarantined(opened)] == ["subject_invalid"]


@pytest.mark.parametrize("state", ["of no night", "of a night", "lost"])
def test_a_closed_month_is_not_adjusted_for_other_rules_before_somebody_asks(
    scratch: Path, state: str
) -> None:
    opened, meter = a_lake(scratch / "lake")
    put(opened, meter, "a.parquet", event("a"))
    put_halves(opened, meter)
    aggregated_earlier(opened)
    june, as_of = parse_period("2026-06"), DAY + dt.timedelta(days=40)

    def exported(*, close: bool = False, by_night: bool = False) -> list[tuple[str, int, int]]:
        with reported(opened, "export") as report:
            if by_night:
                nightly(opened, report, as_of=as_of)
            else:
                export(opened, report, june, close=close)
        done = [each for each in report.exports if each.form == "2026-06"]
        return [(each.action, each.adjustments, each.pending_adjustments) for each in done]

    with earlier_rules():
        aggregated(opened)
        exported(by_night=state == "of a night")
        with pytest.MonkeyPatch.context() as patch:
            # What is out of date by today's rules was not by those.
            patch.setattr(lake.state.changes, "READING_RULES", 0)
            exported(close=True)
    if state == "lost":
        (scratch / "lake" / paths.state(meter.name)).unlink()
    assert exported(by_night=True) == [("unchanged", 0, 1)]
    assert usage(opened, meter) == [(DAY, "org_1", Decimal("1.1"))]
    assert exported(by_night=True) == [("unchanged", 0, 1)]
    assert [month.why for month in status_of(opened).exports_due] == ["definition or program changed"]
    assert exported() == [("exported", 1, 0)]
    assert exported(by_night=True) == [("unchanged", 0, 0)]
