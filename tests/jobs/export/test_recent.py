"""A night's exports are the same with the file of recent rows, without it, and whatever has become of it."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEEP
from in_memory import FOLDER
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths, recent
from lake.checksums import write_stamped
from lake.state.records import METADATA_KEY
from lake.state.state_file import load_state
from lake.storage import StoredFile
from schemas.meter import Meter
from support import DAY, METER, a_lake, content, event, put

DAYS = [DAY - dt.timedelta(days=number) for number in (0, 1, 2, 25)]
AS_OF = DAY + dt.timedelta(days=1)
NAME = METER["name"]
RECENT = paths.recent(NAME)
EXAMPLES = 200 if DEEP else 30


def night(lake: Lake, as_of: dt.date = AS_OF) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=as_of)
    return report


def problems(lake: Lake) -> list[tuple[str, str]]:
    with reported(lake, "verify") as report:
        verify(lake, report)
    return [(said["what"], said["where"]) for said in report.errors]


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Lake, Meter, Path]:
    """A lake after a night, and a file that came after it."""
    lake, meter = a_lake(tmp_path)
    for day in DAYS:
        events = [event(f"{subject} {day}", subject, day=day) for subject in ("org_1", "org_2")]
        put(lake, meter, "a.parquet", *events, day=day)
    assert night(lake).exit_code == 0
    put(lake, meter, "b.parquet", event("c", day=DAYS[1], quantity="2.5"), day=DAYS[1])
    return lake, meter, tmp_path


@contextmanager
def twin(folder: Path) -> Iterator[Path]:
    """A lake of the very same files, so that their identities are the same; what is published replaces its own."""
    twin = folder.with_name(f"{folder.name}-twin")
    shutil.copytree(folder, twin, copy_function=os.link)
    yield twin
    shutil.rmtree(twin)


def without(folder: Path, as_of: dt.date = AS_OF) -> dict[str, bytes]:
    """The exports as another night would leave them if there were no recent rows."""
    with twin(folder) as other:
        (other / RECENT).unlink(missing_ok=True)
        # 1 where a file came too late for a sealed date.
        assert night(Lake(str(other)), as_of).exit_code < 2
        return content(other, "exports")


changes = st.tuples(
    st.sampled_from(DAYS),
    st.sampled_from(["a", "b"]),
    st.lists(st.tuples(st.sampled_from(["x", "y", "z"]), st.integers(1, 9)), max_size=3),
)


@given(
    aggregation=st.sampled_from(["sum", "avg", "min", "max", "first", "last"]),
    steps=st.lists(st.tuples(st.lists(changes, max_size=3), st.integers(0, 34)), min_size=2, max_size=4),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_exports_are_the_same_bytes_with_and_without_recent_rows(
    aggregation: str, steps: list[tuple[list[tuple[dt.date, str, list[tuple[str, int]]]], int]]
) -> None:
    """Files come, change and go on the dates of two months, and dates are sealed, from night to night."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    lake, meter = a_lake(folder, aggregation=aggregation)
    as_of = AS_OF
    for files, later in steps:
        # Never back: a night before another one is none.
        as_of = max(as_of, AS_OF + dt.timedelta(days=later))
        for day, name, rows in files:
            events = [event(key, f"org_{n}", day=day, quantity=str(n)) for key, n in rows]
            lake.storage.delete(paths.events(NAME, day) + f"{name}.parquet")
            if events:
                put(lake, meter, f"{name}.parquet", *events, day=day)
        expected = without(folder, as_of)
        assert night(lake, as_of).exit_code < 2
        assert content(folder, "exports") == expected
    shutil.rmtree(folder)


def test_a_night_reads_only_what_is_new(
    exported: tuple[Lake, Meter, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _, _ = exported
    read: list[str] = []
    whole = lake.storage.read_all

    def noted(places: list[str]) -> list[bytes | None]:
        read.extend(places)
        return list(whole(places))

    monkeypatch.setattr(lake.storage, "read_all", noted)
    assert night(lake).exit_code == 0
    assert [place for place in read if place.startswith(paths.AGGREGATES)] == [
        paths.aggregate("usage_by_subject", NAME, DAYS[1])
    ]


def test_damaged_anywhere_recent_rows_are_made_anew(exported: tuple[Lake, Meter, Path]) -> None:
    lake, _, folder = exported
    file = folder / RECENT
    body, expected = file.read_bytes(), without(folder)
    assert problems(lake) == [("out of date", paths.events(NAME, DAYS[1]))]
    for place in range(0, len(body), len(body) // 7):
        file.write_bytes(body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :])
        assert ("damaged", RECENT) in problems(lake), place
        with twin(folder) as other:
            assert night(Lake(str(other))).exit_code == 0
            assert content(other, "exports") == expected, place
            assert problems(Lake(str(other))) == []


@pytest.mark.parametrize("edit", ["other rows", "a date less", "another date", "other columns", "no rows"])
def test_rows_that_are_not_those_of_the_record_are_never_billed(
    exported: tuple[Lake, Meter, Path], edit: str
) -> None:
    lake, _, folder = exported
    expected = without(folder)
    rows = pl.read_parquet(folder / RECENT)
    edited = {
        "other rows": rows.with_columns(pl.col("quantity_sum") + 1, pl.col("quantity") + 1),
        "a date less": rows.filter(pl.col("date") != DAYS[0]),
        "another date": rows.with_columns(pl.col("date") + dt.timedelta(days=1)),
        "other columns": rows.drop("quantity_min"),
        "no rows": rows.clear(),
    }
    # With the right checksum of its own, as a lake of the past or another meter's would have it.
    write_stamped(edited[edit], folder / RECENT)
    assert night(lake).exit_code == 0
    assert content(folder, "exports") == expected


def test_an_older_file_of_recent_rows_changes_nothing(exported: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = exported
    older = (folder / RECENT).read_bytes()
    night(lake)
    put(lake, meter, "c.parquet", event("d", day=DAYS[0]), day=DAYS[0])
    expected = without(folder)
    (folder / RECENT).write_bytes(older)
    night(lake)
    assert content(folder, "exports") == expected


@pytest.mark.parametrize("damage", ["removed", "other rows", "not Parquet", "another partition's"])
def test_a_partition_whose_file_is_not_the_one_that_was_published_is_not_billed(
    exported: tuple[Lake, Meter, Path], damage: str
) -> None:
    lake, meter, folder = exported
    (folder / RECENT).unlink()
    place = paths.aggregate("usage_by_subject", meter.name, DAYS[2])
    file = folder / place
    if damage == "removed":
        file.unlink()
    elif damage == "other rows":
        record = pl.read_parquet_metadata(file)[METADATA_KEY]
        rows = pl.read_parquet(file, hive_partitioning=False).with_columns(pl.col("quantity_sum") + 1)
        write_stamped(rows, file, {METADATA_KEY: record})
    elif damage == "not Parquet":
        file.write_bytes(b"PAR1")
    else:
        shutil.copy(folder / paths.aggregate("usage_by_subject", meter.name, DAYS[0]), file)
    before = content(folder, "exports")
    report = night(lake)
    assert report.exit_code == 3
    assert [problem["where"] for problem in report.errors] == [place]
    assert "meterlake aggregate" in report.errors[0]["hint"]
    # The other month is not concerned.
    assert content(folder, "exports") == before
    assert [(done.period, done.action) for done in report.exports] == [("2026-05", "unchanged")]
    assert load_state(lake.storage, NAME).exported["2026-06"].revision == 1


def test_many_rows_are_not_kept_and_are_exported_all_the_same(
    exported: tuple[Lake, Meter, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _, folder = exported
    expected = without(folder)
    monkeypatch.setattr(recent, "MAX_ROWS", 5)
    assert night(lake).exit_code == 0
    assert content(folder, "exports") == expected
    # What is left is the other month, of two rows; this one has seven.
    assert pl.read_parquet(folder / RECENT)["date"].unique().to_list() == [DAYS[3]]
    monkeypatch.setattr(recent, "MAX_ROWS", 1)
    for name in ("x", "y"):
        put(lake, exported[1], f"{name}.parquet", event(name, day=DAYS[3]), day=DAYS[3])
        assert night(lake).exit_code == 0
        assert not (folder / RECENT).exists()


def test_what_no_night_exports_any_more_is_not_kept(exported: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = exported
    july = dt.date(2026, 7, 2)
    put(lake, meter, "a.parquet", event("j", day=july), day=july)
    night(lake, july)
    assert set(pl.read_parquet(folder / RECENT)["date"]) == {*DAYS[:3], july}


def test_recent_rows_of_no_meter_are_told(exported: tuple[Lake, Meter, Path]) -> None:
    lake, _, folder = exported
    night(lake)
    shutil.copy(folder / RECENT, folder / paths.recent("nobody"))
    assert problems(lake) == [("unknown", paths.recent("nobody"))]


def test_partitions_of_an_older_release_have_no_checksum_and_are_read_as_they_are(
    exported: tuple[Lake, Meter, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter, folder = exported
    expected = without(folder)
    (folder / RECENT).unlink()
    asked: list[StoredFile] = []
    monkeypatch.setattr("jobs.export.rows.check_files", lambda *given: asked.append(given[1]))
    monkeypatch.setattr(recent, "TABLE", "usage_by_nothing")
    assert night(lake).exit_code == 0
    assert content(folder, "exports") == expected
    assert len(asked) == 1
    assert load_state(lake.storage, meter.name).exported["2026-06"].revision == 2
