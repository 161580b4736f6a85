"""An input that is replaced, changed or goes on growing while it is landed counts as what was hashed, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from jobs.land.job import land
from jobs.land.read import inputs, line_batches
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from support import DAY, METER, a_lake, set_flush_bounds

NAME = METER["name"]


def rows(tag: str, count: int) -> list[dict[str, Any]]:
    at = f"{DAY}T10:00:00Z"
    return [
        {"idempotency_key": f"{tag}{n}", "subject": tag, "meter": NAME, "quantity": 1, "timestamp": at}
        for n in range(count)
    ]


def lines(tag: str, count: int) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows(tag, count))


def table(tag: str, count: int) -> bytes:
    body = io.BytesIO()
    pl.DataFrame(rows(tag, count)).write_parquet(body)
    return body.getvalue()


FORMS: dict[str, Callable[[str, int], bytes]] = {
    "usage.jsonl": lines,
    "usage.json": lambda tag, count: json.dumps(rows(tag, count)).encode(),
    "usage.csv": lambda tag, count: pl.DataFrame(rows(tag, count)).write_csv().encode(),
    "usage.jsonl.gz": lambda tag, count: gzip.compress(lines(tag, count)),
    "usage.jsonl.zst": lambda tag, count: pa.compress(lines(tag, count), "zstd", asbytes=True),
    "usage.parquet": table,
}


def replaced(file: Path, body: bytes) -> None:
    other = file.with_name("other")
    other.write_bytes(body)
    other.replace(file)


def overwritten(file: Path, body: bytes) -> None:
    """In its place, with the times that it had."""
    times = file.stat()
    file.write_bytes(body)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def appended(file: Path) -> None:
    with file.open("ab") as more:
        more.write(b"more")


@pytest.fixture
def landed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lake, Path, Callable[[], None]], RunReport]:
    """Land a file to which something happens once it has been read through."""

    def run(lake: Lake, file: Path, change: Callable[[], None]) -> RunReport:
        read_through = inputs._read_through

        def changed(*about: Any) -> inputs.Input:
            found = read_through(*about)
            change()
            return found

        with monkeypatch.context() as patch, reported(lake, "land") as report:
            patch.setattr(inputs, "_read_through", changed)
            land(lake, [str(file)], report)
        return report

    return run


def subjects(lake: Lake) -> dict[str, int]:
    counted = lake.events(NAME).group_by("subject").len().collect()
    return dict(counted.iter_rows())


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_renamed_over_it_is_another_input(
    tmp_path: Path, name: str, landed_after: Callable[..., RunReport]
) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file, form = tmp_path / name, FORMS[name]
    file.write_bytes(form("first", 50))
    report = landed_after(lake, file, lambda: replaced(file, form("second", 70)))
    assert (report.exit_code, subjects(lake)) == (0, {"first": 50})
    with reported(lake, "land") as report:
        land(lake, [str(file)], report)
        land(lake, [str(file)], report)
    assert subjects(lake) == {"first": 50, "second": 70}


@pytest.mark.parametrize("name", FORMS)
def test_nothing_counts_of_bytes_that_were_not_hashed(
    tmp_path: Path, name: str, landed_after: Callable[..., RunReport]
) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file, form = tmp_path / name, FORMS[name]
    file.write_bytes(form("first", 50))
    report = landed_after(lake, file, lambda: overwritten(file, form("fi?st", 50)))
    assert report.exit_code == 1
    assert report.errors[0]["what"] == "the input changed while it was landed"
    assert report.errors[0]["where"] == str(file)
    assert subjects(lake) == {}
    assert not any(
        json.loads(record.read_text())["complete"]
        for record in (tmp_path / "lake" / paths.LANDED).glob("*.json")
    )
    file.write_bytes(form("first", 50))
    with reported(lake, "land") as report:
        land(lake, [str(file)], report)
    assert subjects(lake) == {"first": 50}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_still_written_is_refused_whole(
    tmp_path: Path, name: str, landed_after: Callable[..., RunReport]
) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file, form = tmp_path / name, FORMS[name]
    file.write_bytes(form("first", 50))
    report = landed_after(lake, file, lambda: appended(file))
    assert report.exit_code == 1
    assert report.errors[0]["what"] == "the input changed while it was landed"
    assert subjects(lake) == {}


def test_what_was_written_before_a_change_is_seen_is_what_was_hashed(
    tmp_path: Path, landed_after: Callable[..., RunReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_flush_bounds(monkeypatch, lines=10_000)
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 2**20)
    lake, _ = a_lake(tmp_path / "lake")
    file, others = tmp_path / "usage.jsonl", tmp_path / "others.jsonl"
    body = lines("first", 200_000)
    file.write_bytes(body)
    report = landed_after(lake, file, lambda: overwritten(file, body[: -len(body) // 4].ljust(len(body))))
    assert report.exit_code == 1
    found = lake.events(NAME).collect()
    assert 0 < found.height < 150_001
    assert set(found["subject"]) == {"first"}
    # The input as it was hashed is resumed, and another one lands.
    file.write_bytes(body)
    others.write_bytes(lines("others", 5))
    with reported(lake, "land") as report:
        land(lake, [str(file), str(others)], report)
    assert subjects(lake) == {"first": 200_000, "others": 5}


def test_inputs_that_take_each_others_place_all_the_time_count_once_each(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file = tmp_path / "usage.jsonl"
    # Without keys, so that an event that lands twice counts twice.
    bodies = [
        b"".join(json.dumps({**row, "idempotency_key": None}).encode() + b"\n" for row in rows(tag, 20_000))
        for tag in "ab"
    ]
    for tag, body in zip("ab", bodies, strict=True):
        (tmp_path / tag).write_bytes(body)
    file.write_bytes(bodies[0])
    script = """
import os, shutil, sys
for number in range(10**9):
    shutil.copy(f"{sys.argv[1]}/{'ab'[number % 2]}", f"{sys.argv[1]}/copy")
    os.replace(f"{sys.argv[1]}/copy", f"{sys.argv[1]}/usage.jsonl")
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as replacing:
        try:
            while file.read_bytes() == bodies[0]:
                assert replacing.poll() is None
            for _ in range(8):
                with reported(lake, "land") as report:
                    land(lake, [str(file)], report)
                assert report.errors == []
        finally:
            replacing.kill()
    landed = {hashlib.sha256(body).hexdigest(): tag for tag, body in zip("ab", bodies, strict=True)}
    records = [record.stem for record in (tmp_path / "lake" / paths.LANDED).glob("*.json")]
    assert set(records) <= landed.keys()
    assert subjects(lake) == {landed[sha256]: 20_000 for sha256 in records}
