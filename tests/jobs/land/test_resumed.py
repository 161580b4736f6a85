"""Landing that is interrupted, and resumed after something has changed: each row ends in exactly one place."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from depth import evenly
from faults.storage import BrokenOffError, FaultyStorage
from jobs.compact import compact
from jobs.land.job import land
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.state.state_file import load_state
from lake.storage import LocalStorage
from support import DAY, METER, a_lake, aggregated, define, retained, set_flush_bounds

NAME = METER["name"]
NEXT = DAY + dt.timedelta(days=1)
SIZE = {"name": "size", "type": "number", "required": False}


def line(number: int, meter: str = NAME, day: dt.date = DAY, **changes: Any) -> str:
    found = {"idempotency_key": f"k{number}", "subject": "s", "meter": meter, "quantity": 1}
    return (
        json.dumps(found | {"timestamp": f"{day}T10:00:00Z", "received_at": f"{NEXT}T10:00:00Z"} | changes)
        + "\n"
    )


LINES = [
    *(line(n, day=day) for n, day in enumerate([DAY, NEXT] * 3)),
    # Of a meter that is not defined yet, and a row that no definition makes valid.
    *(line(n, "coming", day=day) for n, day in enumerate([DAY, NEXT] * 3, 10)),
    line(20, quantity=-1),
    # Valid only while `size` is not declared, and only while it is.
    line(21, metadata={"size": "large"}),
    *(line(n, quantity=-1) for n in range(30, 33)),
    *(line(n) for n in range(40, 44)),
]


def run(lake: Lake, job: Callable[[Lake, RunReport], None]) -> RunReport:
    with reported(lake, "job") as report:
        job(lake, report)
    return report


def places(lake: Lake) -> Counter[str]:
    """How often each key counts or lies in quarantine."""
    found = Counter[str]()
    for meter in lake.meters():
        found.update(lake.raw_events(meter.name).collect()["idempotency_key"])
    for file in (Path(lake.url) / paths.QUARANTINE).rglob("*.parquet"):
        found.update(json.loads(raw)["idempotency_key"] for raw in pl.read_parquet(file)["raw"])
    return found


def rejected(lake: Lake) -> set[str]:
    files = (Path(lake.url) / paths.QUARANTINE).rglob("*.parquet")
    return {json.loads(raw)["idempotency_key"] for file in files for raw in pl.read_parquet(file)["raw"]}


def nothing(lake: Lake) -> None:
    """Change nothing."""


def define_the_missing(lake: Lake) -> None:
    define(lake, name="coming")


def declare(lake: Lake) -> None:
    define(lake, dimensions=[*METER["dimensions"], SIZE])


CHANGES: dict[str, Callable[[Lake], Any]] = {
    "nothing": nothing,
    "the missing meter is defined": define_the_missing,
    "a dimension is declared": declare,
    "both": lambda lake: (define_the_missing(lake), declare(lake)),
}


@pytest.mark.parametrize("flush_lines", [5, 1_000])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_broken_off_anywhere_each_row_ends_in_one_place(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Lake], None], flush_lines: int
) -> None:
    set_flush_bounds(monkeypatch, lines=flush_lines)
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_LINES", 5)
    file = scratch / "usage.jsonl"
    file.write_text("".join(LINES))
    a_lake(scratch / "prepared")
    last = _operations(scratch, file)
    for turn, fails_at in enumerate([*evenly(last, 8, offset=int(flush_lines == 5)), last + 1]):
        lake = _landed_until(fails_at, scratch, file, after=turn % 2 == 0)
        change(lake)
        run(lake, lambda lake, report: land(lake, [str(file)], report))
        assert places(lake) == Counter(json.loads(each)["idempotency_key"] for each in LINES), fails_at
        shutil.rmtree(lake.url)


def _operations(scratch: Path, file: Path) -> int:
    """Land a file into a copy of the prepared lake; gives the number of the storage's operations."""
    folder = shutil.copytree(scratch / "prepared", scratch / "undisturbed")
    counting = FaultyStorage(folder, 0, after=False, error=BrokenOffError)
    run(Lake(str(folder)).over(counting), lambda lake, report: land(lake, [str(file)], report))
    assert counting.done > 5
    return counting.done


def _landed_until(fails_at: int, scratch: Path, file: Path, *, after: bool) -> Lake:
    """Land a file into a copy of the prepared lake, and break off before or after an operation if it has that many."""
    folder = shutil.copytree(scratch / "prepared", scratch / "lake")
    faulty = FaultyStorage(folder, fails_at, after=after, error=BrokenOffError)
    with suppress(BrokenOffError):
        run(Lake(str(folder)).over(faulty), lambda lake, report: land(lake, [str(file)], report))
    return Lake(str(folder))


def test_rows_of_a_meter_that_is_defined_meanwhile_count(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    (tmp_path / "usage.jsonl").write_text("".join(LINES))
    _broken_off_at_the_end(lake, tmp_path / "usage.jsonl")
    assert f"k{10}" in rejected(lake)
    define_the_missing(lake)
    report = run(lake, lambda lake, report: land(lake, [str(tmp_path / "usage.jsonl")], report))
    assert report.quarantined == {"quantity_not_positive": 4}
    assert lake.events("coming").collect().height == 6
    assert rejected(lake) == {"k20", "k30", "k31", "k32"}


@pytest.mark.parametrize("when", ["aggregated", "landed"])
def test_what_a_sealed_date_has_counted_is_not_quarantined_too(tmp_path: Path, when: str) -> None:
    lake, _ = a_lake(tmp_path / "lake", event_retention_days=30)
    (tmp_path / "usage.jsonl").write_text("".join(LINES))
    if when == "aggregated":
        _broken_off_at_the_end(lake, tmp_path / "usage.jsonl")
        aggregated(lake)
    else:
        (tmp_path / "first.jsonl").write_text(line(99))
        run(lake, lambda lake, report: land(lake, [str(tmp_path / "first.jsonl")], report))
        aggregated(lake)
        _broken_off_at_the_end(lake, tmp_path / "usage.jsonl", before_any=True)
    retained(lake, DAY + dt.timedelta(days=31))
    assert DAY not in {file.parent.name for file in (tmp_path / "lake/events").rglob("*.parquet")}
    run(lake, lambda lake, report: land(lake, [str(tmp_path / "usage.jsonl")], report))
    aggregated(lake)
    of_date = lake.usage(NAME, DAY, NEXT).collect()["events"].sum()
    late = {key for key in rejected(lake) if key not in {"k20", "k30", "k31", "k32"} and int(key[1:]) < 10}
    assert (of_date, late) == ((8, set()) if when == "aggregated" else (1, {"k0", "k2", "k4"}))
    assert lake.usage(NAME, NEXT).collect()["events"].sum() == 3


def test_what_landed_while_its_date_was_sealed_is_quarantined_once(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake", event_retention_days=30)
    (tmp_path / "usage.jsonl").write_text("".join(LINES))
    (tmp_path / "first.jsonl").write_text(line(99))
    _broken_off_at_the_end(lake, tmp_path / "usage.jsonl")
    (late,) = (tmp_path / "lake" / paths.events(NAME, DAY)).iterdir()
    late.rename(tmp_path / "late")
    run(lake, lambda lake, report: land(lake, [str(tmp_path / "first.jsonl")], report))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    late.parent.mkdir(exist_ok=True)
    (tmp_path / "late").rename(late)
    run(lake, lambda lake, report: land(lake, [str(tmp_path / "usage.jsonl")], report))
    aggregated(lake)
    found = Counter(json.loads(raw)["idempotency_key"] for raw in _quarantined(lake))
    assert (found["k0"], found["k2"], found["k4"], max(found.values())) == (1, 1, 1, 1)


def _broken_off_at_the_end(lake: Lake, file: Path, *, before_any: bool = False) -> None:
    """Land all of a file but the record that it is landed; or nothing of it but that it was begun."""

    def broken(path: str, *about: Any, **options: Any) -> Any:
        if path.startswith(paths.RUNS):
            return None
        raise BrokenOffError(path, about, options)

    storage = LocalStorage(lake.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "publish_file" if before_any else "publish", broken)
        with pytest.raises(BrokenOffError):
            run(lake.over(storage), lambda lake, report: land(lake, [str(file)], report))


def _compacted(lake: Lake) -> None:
    """Merge what has landed of past dates, and remove what was merged."""
    aggregated(lake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.events.listing.GRACE", dt.timedelta(0))
        for _ in range(2):
            run(lake, lambda lake, report: compact(lake, report, as_of=NEXT + dt.timedelta(days=7)))


def _sealed(lake: Lake) -> None:
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    aggregated(lake)


def _sealed_events(lake: Lake) -> int:
    """How many events the tables hold of dates that are dropped."""
    dates = {date for date in (DAY, NEXT) if date in load_state(lake.storage, NAME).sealed}
    rows = (lake.usage(NAME, date, date + dt.timedelta(days=1)) for date in dates)
    return sum(frame.collect()["events"].sum() for frame in rows)


THEN: dict[str, Callable[[Lake], Any]] = {
    "nothing": nothing,
    "a dimension is declared": declare,
    "files are merged": _compacted,
    "a date is sealed": _sealed,
}


@pytest.mark.parametrize("then", THEN.values(), ids=THEN)
def test_what_was_rejected_whole_and_is_broken_off_on_its_second_landing(
    scratch: Path, then: Callable[[Lake], Any]
) -> None:
    """Without keys, so that what lands twice counts twice."""
    lines = [
        *(line(n, idempotency_key=None, subject=f"k{n}", day=[DAY, NEXT][n % 2]) for n in range(6)),
        line(6, subject="k6", quantity=-1),
        line(7, idempotency_key=None, subject="k7", metadata={"size": "large"}),
    ]
    file = scratch / "usage.jsonl"
    file.write_text("".join(lines))
    other = scratch / "other.jsonl"
    other.write_text(line(50, subject="other") + line(51, subject="other", day=NEXT))
    prepared = Lake.init(str(scratch / "prepared"))
    run(prepared, lambda lake, report: land(lake, [str(file)], report))
    define(prepared, event_retention_days=30)
    run(prepared, lambda lake, report: land(lake, [str(other)], report))
    last = _operations(scratch, file)
    for turn, fails_at in enumerate([*evenly(last, 8), last + 1]):
        lake = _landed_until(fails_at, scratch, file, after=turn % 2 == 1)
        then(lake)
        run(lake, lambda lake, report: land(lake, [str(file)], report))
        # A merged file that came back would be named here.
        assert aggregated(lake).errors == []
        found = Counter(lake.events(NAME).collect()["subject"])
        rows = [json.loads(raw)["subject"] for raw in _quarantined(lake)]
        assert found.total() + len(rows) + _sealed_events(lake) == len(lines) + 2, fails_at
        assert max((found + Counter(rows) - Counter(["other"])).values()) == 1, fails_at
        shutil.rmtree(lake.url)


def _quarantined(lake: Lake) -> list[str]:
    files = (Path(lake.url) / paths.QUARANTINE).rglob("*.parquet")
    return [raw for file in files for raw in pl.read_parquet(file)["raw"]]
