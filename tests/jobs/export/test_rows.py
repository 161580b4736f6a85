"""A night bills the rows that were published and no others, whatever the state notes of earlier exports."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEEP
from in_memory import FOLDER
from jobs.compact import compact
from jobs.export import rows
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from lake.checksums import write_stamped
from lake.state.records import METADATA_KEY
from lake.state.state_file import load_state, save_state
from schemas.meter import Meter
from support import DAY, METER, a_lake, content, event, put

DAYS = [DAY - dt.timedelta(days=number) for number in (0, 1, 2, 25)]
AS_OF = DAY + dt.timedelta(days=1)
NAME = METER["name"]
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
    """The exports as another night would leave them if nothing were noted of earlier ones."""
    with twin(folder) as other:
        lake = Lake(str(other))
        state = load_state(lake.storage, NAME)
        state.exported = {}
        save_state(lake.storage, NAME, state)
        # 1 where a file came too late for a sealed date.
        assert night(lake, as_of).exit_code < 2
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
def test_exports_are_the_same_bytes_whatever_is_noted_of_earlier_ones(
    aggregation: str, steps: list[tuple[list[tuple[dt.date, str, list[tuple[str, int]]]], int]]
) -> None:
    """Files come, change and go on the dates of two months, and dates are sealed, from night to night."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    lake, meter = a_lake(folder, aggregation=aggregation)
    as_of = AS_OF
    for files, later in steps:
        # Never back: a night before another one is none.
        as_of = max(as_of, AS_OF + dt.timedelta(days=later))
        for day, name, facts in files:
            events = [event(key, f"org_{n}", day=day, quantity=str(n)) for key, n in facts]
            lake.storage.delete(paths.events(NAME, day) + f"{name}.parquet")
            if events:
                put(lake, meter, f"{name}.parquet", *events, day=day)
        expected = without(folder, as_of)
        assert night(lake, as_of).exit_code < 2
        assert content(folder, "exports") == expected
    shutil.rmtree(folder)


@pytest.mark.parametrize("damage", ["removed", "other rows", "not Parquet", "another partition's"])
def test_a_partition_whose_file_is_not_the_one_that_was_published_is_not_billed(
    exported: tuple[Lake, Meter, Path], damage: str
) -> None:
    lake, meter, folder = exported
    place = paths.aggregate("usage_by_subject", meter.name, DAYS[2])
    file = folder / place
    if damage == "removed":
        file.unlink()
    elif damage == "other rows":
        record = pl.read_parquet_metadata(file)[METADATA_KEY]
        other = pl.read_parquet(file, hive_partitioning=False).with_columns(pl.col("quantity_sum") + 1)
        write_stamped(other, file, {METADATA_KEY: record})
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


def test_a_month_of_many_rows_is_billed_all_the_same(
    exported: tuple[Lake, Meter, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _, folder = exported
    expected = without(folder)
    monkeypatch.setattr(rows, "CHECKED_BYTES", 0)
    assert night(lake).exit_code == 0
    assert content(folder, "exports") == expected
    assert load_state(lake.storage, NAME).exported["2026-06"].revision == 2


def test_partitions_of_an_older_release_have_no_checksum_and_are_billed_all_the_same(
    exported: tuple[Lake, Meter, Path],
) -> None:
    lake, _, folder = exported
    expected = without(folder)
    state = load_state(lake.storage, NAME)
    for date, record in state.partitions.items():
        usage = {"usage": record.checksums["usage"]}
        state.partitions[date] = msgspec.structs.replace(record, checksums=usage)
    save_state(lake.storage, NAME, state)
    assert night(lake).exit_code == 0
    assert content(folder, "exports") == expected


@pytest.mark.parametrize("body", [b"", b"PAR1", "its own"])
def test_rows_that_an_earlier_version_kept_for_exports_are_not_read_and_compaction_removes_them(
    exported: tuple[Lake, Meter, Path], body: bytes | str
) -> None:
    lake, meter, folder = exported
    expected = without(folder)
    kept = folder / paths.RECENT / f"{meter.name}.parquet"
    kept.parent.mkdir()
    table = folder / paths.aggregate("usage_by_subject", meter.name, DAYS[0])
    kept.write_bytes(table.read_bytes() if isinstance(body, str) else body)
    assert problems(lake) == [("out of date", paths.events(NAME, DAYS[1]))]
    assert night(lake).exit_code == 0
    assert content(folder, "exports") == expected
    assert kept.exists()
    with reported(lake, "compact") as report:
        compact(lake, report)
    assert report.errors == []
    assert not kept.exists()


def test_compaction_leaves_what_it_may_not_remove(exported: tuple[Lake, Meter, Path]) -> None:
    lake, meter, folder = exported
    kept = folder / paths.RECENT / f"{meter.name}.parquet"
    kept.mkdir(parents=True)
    kept.parent.joinpath("linked.parquet").symlink_to(folder / "lake.json")
    with reported(lake, "compact") as report:
        compact(lake, report)
    assert report.errors == []
    assert kept.is_dir()
    assert (folder / paths.RECENT / "linked.parquet").is_symlink()
