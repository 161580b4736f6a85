"""When there is a new revision, what a closed month takes, and that nothing disturbs a revision that exists."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from exporting import ABOUT, NEXT, cells, exported, manifest, quantities, revision, run
from jobs.export.billing import subject_ranges
from jobs.export.files import ROW_GROUP_ROWS, Drafts
from jobs.export.verify import verify_exports
from lake import Lake, paths
from schemas.errors import StorageError
from support import DAY, a_lake, aggregated, content, define, event, put, retained


def test_nothing_changed_makes_no_revision(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put(lake, meter, "a.parquet", event("x"), event("y", subject="b"))
    aggregated(lake)
    assert exported(lake).action == "exported"
    before = content(tmp_path, "exports")
    assert exported(lake).action == "unchanged"
    # Other inputs with the same rows: written anew, a copy landed, a definition that changes no number.
    file.write_bytes(file.read_bytes())
    os.utime(file, (1, 1))
    put(lake, meter, "b.parquet", event("x", received_at=dt.datetime(2027, 1, 1, tzinfo=dt.UTC)))
    define(
        lake,
        description="other",
        dimensions=[
            *json.loads(meter.to_json())["dimensions"],
            {"name": "new", "type": "string", "required": False},
        ],
    )
    assert aggregated(lake).partitions
    assert exported(lake).action == "unchanged"
    assert content(tmp_path, "exports") == before


def test_a_month_without_usage_makes_no_revision(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    assert exported(lake, period="2026-05").action == "nothing used"
    assert not (tmp_path / "exports").exists()


def test_late_data_makes_a_revision_whose_adjustments_tell_what_changed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"), event("y", subject="b"), event("z", subject="same"))
    gone = put(lake, meter, "gone.parquet", event("v", subject="vanishes", quantity="2.5"))
    aggregated(lake)
    first = revision(lake, exported(lake))
    frozen = content(tmp_path, f"exports/{meter.name}/period=2026-06/revision=0001")
    put(lake, meter, "late.parquet", event("n", subject="appears", quantity="7", day=NEXT), day=NEXT)
    put(lake, meter, "more.parquet", event("m", quantity="0.000000001"))
    gone.unlink()
    aggregated(lake)
    done = exported(lake)
    assert (done.action, done.revision, done.rows, done.adjustments) == ("exported", 2, 4, 3)
    second = revision(lake, done)
    assert content(tmp_path, "exports").items() >= frozen.items()
    rows = cells(second / "adjustments.csv")
    told = [
        (row["subject"], row["quantity_before"], row["quantity_after"], row["quantity_change"])
        for row in rows
    ]
    assert list(rows[0]) == [*ABOUT, "subject", "quantity_before", "quantity_after", "quantity_change"]
    assert told == [
        ("appears", "", "7.000000000", "7.000000000"),
        ("org_1", "1.000000000", "1.000000001", "0.000000001"),
        ("vanishes", "2.500000000", "", "-2.500000000"),
    ]
    said = manifest(second)["files"]["adjustments.csv"]
    assert said["totals"] == {
        "quantity_before": "3.5",
        "quantity_after": "8.000000001",
        "quantity_change": "4.500000001",
    }
    assert quantities(first)["vanishes"] == Decimal("2.5")


def test_everything_vanishing_is_a_revision_of_no_rows(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    gone = put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    exported(lake)
    gone.unlink()
    aggregated(lake)
    done = exported(lake)
    assert (done.revision, done.rows, done.adjustments) == (2, 0, 1)
    assert (revision(lake, done) / "usage.csv").read_text().count("\n") == 1
    assert not verify_exports(revision(lake, done))[0].problems


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("aggregation", ["sum", "count", "max"])
def test_a_revision_and_the_adjustments_after_it_make_the_next(
    tmp_path: Path, aggregation: str, seed: int
) -> None:
    random = Random(seed)
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    files: list[Path] = []
    state: dict[Any, Decimal] = {}
    for landing in range(4):
        day = dt.date(2026, 6, random.randint(1, 30))
        events = [
            event(
                random.choice([None, f"k{random.randrange(20)}"]),
                subject=f"s{random.randrange(8)}",
                quantity=str(Decimal(random.randrange(1, 10**12)) / 10**9),
                plan=random.choice([None, "", "pro"]),
                day=day,
            )
            for _ in range(10)
        ]
        files.append(put(lake, meter, f"{landing}.parquet", *events, day=day))
        if landing and random.random() < 0.5:
            files.pop(random.randrange(len(files))).unlink()
        aggregated(lake)
        done = exported(lake, by=("plan",))
        folder = revision(lake, done)
        if done.action == "exported" and done.revision > 1:
            for row in pl.read_parquet(folder / "adjustments.parquet").iter_rows(named=True):
                key = (row["subject"], row["plan"])
                assert state.get(key) == row["quantity_before"] != row["quantity_after"]
                state[key] = state.get(key, Decimal(0)) + row["quantity_change"]
                if row["quantity_after"] is None:
                    assert state.pop(key) == 0
        usage = pl.read_parquet(folder / "usage.parquet").select("subject", "plan", "quantity")
        found = {(subject, plan): quantity for subject, plan, quantity in usage.iter_rows()}
        assert done.revision == 1 or found == state
        state = found
    assert not [each for each in verify_exports(tmp_path) if each.problems]


class GoneError(StorageError):
    """The storage goes away at this very moment."""


def interrupted_at(lake: Lake, step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the storage fail at the given change of an export; gives how many changes there were."""
    count = 0

    def failing(change: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(path: str, *arguments: Any) -> Any:
            nonlocal count
            if path.startswith(paths.EXPORTS):
                count += 1
                if count == step:
                    raise GoneError("gone", where=path)
            return change(path, *arguments)

        return attempt

    for name in ("publish", "publish_file", "create", "delete"):
        monkeypatch.setattr(lake.storage, name, failing(getattr(lake.storage, name)))
    return lambda: count


@pytest.mark.parametrize("step", range(1, 8))
def test_an_interrupted_export_run_again_gives_the_same_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", *(event(str(n), subject=f"s{n}") for n in range(50)))
    aggregated(lake)
    exported(lake, by=("plan",))
    put(lake, meter, "late.parquet", *(event(f"late {n}", subject=f"s{n * 2}") for n in range(50)))
    aggregated(lake)
    undisturbed = exported(lake, by=("plan",))
    wanted = content(tmp_path, "exports")
    # Four files, the manifest, and what names it as the last, each of which the interruption may hit.
    assert len(wanted) == 3 + 5 + 1
    # What names it as the last is repaired first.
    shutil.rmtree(revision(lake, undisturbed))
    with monkeypatch.context() as patch:
        changes = interrupted_at(lake, step, patch)
        assert run(lake, by=("plan",)).exit_code == 3
        assert changes() == step
    # It does not exist yet, whatever lies there, before its manifest does.
    assert [each.folder[-4:] for each in verify_exports(tmp_path / "exports")] == ["0001", "0002"][
        : 1 + step // 7
    ]
    if step < 7:
        leftover = revision(lake, undisturbed) / "half.csv"
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_text("half")
    assert exported(lake, by=("plan",)).revision == 2
    assert content(tmp_path, "exports") == wanted
    assert not list((tmp_path / paths.TEMPORARY).glob("*"))


def test_the_same_rows_are_the_same_bytes_however_many_there_are(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path)
    rows = 2 * ROW_GROUP_ROWS + 7
    subjects = pl.int_range(rows, eager=True).shuffle(seed=1).cast(pl.String)
    frame = pl.LazyFrame({"subject": subjects}).with_columns(
        quantity=pl.col("subject").cast(pl.Decimal(38, 9)), plan=pl.lit("pro"), empty=pl.lit(None, pl.String)
    )
    described = []
    counted = frame.group_by(pl.all()).agg(pl.len().cast(pl.Int64)).sort("subject")
    for part_rows in (rows, rows, 30_000):
        drafts = Drafts(lake.storage, additive=True)
        written = drafts.parquet(
            "usage.parquet", [counted.filter(share) for share in subject_ranges(frame, part_rows)]
        )
        drafts.csv("usage.csv", written, full=True, safe=True)
        described.append(drafts.described())
        drafts.clear()
    assert described[0] == described[1] == described[2]
    assert {file.rows for file in described[0].values()} == {rows}
    assert described[0]["usage.csv"].totals == {"quantity": str(rows * (rows - 1) // 2)}


def test_shares_are_parts_of_whole_subjects_in_their_order() -> None:
    subjects = pl.LazyFrame({"subject": [*"zebra", *"aaaaaaaaaaaaaaa", "é", "Z"]})
    for part_rows in (1, 2, 5, 100):
        parts = [subjects.filter(share).collect()["subject"] for share in subject_ranges(subjects, part_rows)]
        assert (len(parts) > 1) == (part_rows < 100)
        assert sum(map(len, parts)) == 22
        ordered = [subject for part in parts for subject in part.sort()]
        assert ordered == subjects.collect()["subject"].sort().to_list()
    assert len(subject_ranges(subjects.clear())) == 1


def test_aggregates_of_an_interrupted_aggregation_are_not_exported(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    state = tmp_path / paths.state(meter.name)
    before = state.read_bytes()
    put(lake, meter, "b.parquet", event("y"))
    aggregated(lake)
    state.write_bytes(before)
    report = run(lake)
    assert (report.exit_code, report.exports) == (3, [])
    assert report.errors[0]["hint"] == "run: meterlake aggregate"
    aggregated(lake)
    assert exported(lake).rows == 1


@pytest.mark.parametrize("sealed", [True, False])
def test_a_table_that_is_missing_though_its_date_is_up_to_date_is_not_exported(
    tmp_path: Path, *, sealed: bool
) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    if sealed:
        retained(lake, DAY + dt.timedelta(days=31))
    file = tmp_path / paths.aggregate("usage_by_subject", meter.name, DAY)
    body = file.read_bytes()
    file.unlink()
    report = run(lake)
    assert (report.exit_code, report.exports) == (3, [])
    assert ("backup" in report.errors[0]["hint"]) == sealed
    assert "--rebuild" in report.errors[0]["hint"]
    if sealed:
        file.write_bytes(body)
    aggregated(lake, rebuild=True)
    assert exported(lake).rows == 1


def test_after_the_close_only_adjustments_are_told(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"), event("y", subject="b"))
    aggregated(lake)
    done = exported(lake, close=True)
    assert (done.action, done.revision, done.closed) == ("exported", 1, True)
    assert exported(lake, close=True).action == "unchanged"
    for number, quantity in ((2, "3"), (3, "0.5")):
        put(lake, meter, f"{number}.parquet", event(f"late {number}", quantity=quantity))
        aggregated(lake)
        done = exported(lake)
        assert (done.action, done.revision, done.closed, done.adjustments) == ("exported", number, True, 1)
        folder = revision(lake, done)
        names = sorted(file.name for file in folder.iterdir())
        assert names == ["adjustments.csv", "adjustments.parquet", "manifest.json"]
        assert manifest(folder)["kind"] == "adjustments"
    row = cells(folder / "adjustments.csv")[0]
    told = (row["subject"], row["quantity_before"], row["quantity_after"], row["quantity_change"])
    assert told == ("org_1", "4.000000000", "4.500000000", "0.500000000")
    assert exported(lake).action == "unchanged"
    # Back to what was told before the close: an adjustment again, from the revisions' chain.
    for number in (2, 3):
        next(Path(lake.url).glob(f"events/**/{number}.parquet")).unlink()
    aggregated(lake)
    done = exported(lake)
    row = cells(revision(lake, done) / "adjustments.csv")[0]
    assert (row["quantity_before"], row["quantity_change"]) == ("4.500000000", "-3.500000000")
    assert not [each for each in verify_exports(tmp_path) if each.problems]


def test_a_change_of_no_quantity_makes_no_revision_after_the_close(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, aggregation="max")
    put(lake, meter, "a.parquet", event("x", quantity="5"))
    aggregated(lake)
    exported(lake, close=True)
    put(lake, meter, "b.parquet", event("y", quantity="4"))
    aggregated(lake)
    assert exported(lake).action == "unchanged"


def test_a_month_without_usage_can_be_closed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    done = exported(lake, close=True)
    assert (done.action, done.revision, done.rows, done.closed) == ("exported", 1, 0, True)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    done = exported(lake)
    assert (done.revision, done.adjustments, done.rows) == (2, 1, 0)


def test_a_month_that_is_not_over_or_not_aggregated_is_not_closed(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    put(lake, meter, "b.parquet", event("y"))
    report = run(lake, close=True)
    assert report.exit_code == 1
    assert report.errors[0]["found"] == "1 out of date: 2026-06-19 (files added)"
    # Without a close it is exported as aggregated, and told.
    assert exported(lake).out_of_date == {"2026-06-19": "files added"}
    report = run(lake, f"{dt.datetime.now(dt.UTC):%Y-%m}", close=True)
    assert report.errors[0]["expected"] == "a month that is over"
