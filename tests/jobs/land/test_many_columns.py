"""Events of very many columns wait in scratch files, and land as those do that wait in memory."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pytest

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from support import a_lake, define, set_flush_bounds

DIMENSIONS = [{"name": f"d{number}", "type": "string", "required": False} for number in range(20)]
METERS = ("active_users", "calls")
DAYS = ("2026-06-18", "2026-06-19", "2026-06-20")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds at which some dozen rows are too many for memory, and for one batch."""
    monkeypatch.setattr("jobs.land.waiting_rows.MAX_CELLS", 1_000)
    monkeypatch.setattr("jobs.land.waiting_rows.COLUMN_CELLS", 1)
    monkeypatch.setattr("jobs.land.wide.MAX_CELLS", 20 * 7)
    monkeypatch.setattr("lake.checksums.ROW_GROUP_CELLS", 20 * 50)


def lines(count: int = 200) -> str:
    drawn = random.Random(5)
    rows = [
        {
            "idempotency_key": f"key {number}",
            "subject": f"org_{drawn.randrange(9)}",
            "meter": drawn.choice(METERS),
            "quantity": drawn.randrange(5),
            "timestamp": f"{drawn.choice(DAYS)}T10:00:00Z",
            "received_at": "2026-06-20T12:00:00Z",
            "metadata": {f"d{drawn.randrange(20)}": "x", "trace": number},
        }
        for number in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def landed(folder: Path, file: Path, *, new: bool = True) -> tuple[Lake, RunReport]:
    lake = a_lake(folder, dimensions=DIMENSIONS)[0] if new else Lake(str(folder))
    if new:
        define(lake, name="calls", dimensions=DIMENSIONS)
    with reported(lake, "land") as report:
        land(lake, [str(file)], report)
    return lake, report


def files(folder: Path, kind: str) -> dict[str, pl.DataFrame]:
    places = sorted((folder / kind).rglob("*.parquet"))
    return {
        str(place.relative_to(folder)): pl.read_parquet(place, hive_partitioning=False).drop(
            "landed_at", strict=False
        )
        for place in places
    }


def test_rows_that_waited_in_scratch_files_land_in_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text(lines())
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_LINES", 50)
    set_flush_bounds(monkeypatch, lines=100)
    landed(tmp_path / "memory", file)
    request.getfixturevalue("small")
    _, report = landed(tmp_path / "scratch", file)
    for kind in (paths.EVENTS, paths.QUARANTINE):
        found, expected = files(tmp_path / "scratch", kind), files(tmp_path / "memory", kind)
        assert found.keys() == expected.keys()
        assert all(found[place].equals(expected[place]) for place in expected)
    assert report.rows_written == report.events_landed == 200 - sum(report.quarantined.values())
    # Nothing is left of them.
    assert list((tmp_path / "scratch" / paths.TEMPORARY).iterdir()) == []


@pytest.mark.usefixtures("small")
def test_an_interrupted_landing_in_scratch_files_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a meter has got more dimensions, so that other rows are in one batch."""
    file = tmp_path / "usage.jsonl"
    file.write_text(lines())
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_LINES", 50)
    set_flush_bounds(monkeypatch, lines=100)
    folder = tmp_path / "lake"
    lake, report = landed(folder, file)
    before = files(folder, paths.EVENTS)
    (place,) = (folder / paths.LANDED).iterdir()
    record = json.loads(place.read_text())
    place.write_text(json.dumps({name: record[name] for name in ("source", "landed_at", "bounds")}))
    for removed in list(before)[1::2]:
        (folder / removed).unlink()
    more = [{"name": f"more{number}", "type": "string", "required": False} for number in range(40)]
    define(lake, name="calls", dimensions=[*DIMENSIONS, *more])
    _, again = landed(folder, file, new=False)
    assert again.events_landed == report.events_landed
    after = files(folder, paths.EVENTS)
    assert after.keys() == before.keys()
    assert all(after[place]["idempotency_key"].equals(before[place]["idempotency_key"]) for place in before)


@pytest.mark.usefixtures("small")
def test_a_landing_that_fails_leaves_no_scratch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text(lines())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the test says no")

    monkeypatch.setattr("jobs.land.write.write_with_sha256", fail)
    lake, _ = a_lake(tmp_path / "lake", dimensions=DIMENSIONS)
    with pytest.raises(RuntimeError, match="the test says no"), reported(lake, "land") as report:
        land(lake, [str(file)], report)
    assert list((tmp_path / "lake" / paths.TEMPORARY).iterdir()) == []
