"""Landing in processes of their own: below 1 GB of memory whatever comes, and a clean end where an input is rejected."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from jobs.land import job as land_module
from jobs.land import landed_input, write
from jobs.land.flush_bounds import VERSIONS
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from support import a_lake

MAX_BYTES = 2**30
METERLAKE = str(Path(sys.executable).with_name("meterlake"))
TEXT = "x" * 15_000_000
# Runs the command and prints the peak of its memory, in KiB.
_RUN = """import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code.returncode)"""


def body(number: int = 0, **changes: Any) -> dict[str, Any]:
    usage = {"idempotency_key": f"key {number}", "subject": "org_1", "meter": "active_users", "quantity": 1}
    return usage | changes


def written(folder: Path, *lines: str) -> Path:
    file = folder / "usage.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def landed(lake: Lake, file: Path) -> RunReport:
    with reported(lake, "land") as report:
        land_module.land(lake, [str(file)], report)
    return report


def land_apart(lake: Path, file: Path) -> tuple[int, int]:
    """Land a file in a process of its own; return its exit code and the peak of its memory in bytes."""
    command = [sys.executable, "-c", _RUN, METERLAKE, "--lake", str(lake), "land", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.returncode, int(found.stdout) * 1024


def _long_lines(kind: str) -> tuple[str, str]:
    """Return the name of an input and a line of 15 MB for it."""
    if kind == "csv":
        return "usage.csv", f"org_1,active_users,1,{TEXT}\n"
    changes = {"meter": "other"} if kind == "rejected" else {}
    return "usage.jsonl", json.dumps(body(metadata={"note": TEXT}, **changes)) + "\n"


@pytest.mark.parametrize("kind", ["metadata", "rejected", "csv"])
def test_lines_of_15_mb_land_below_1_gb(tmp_path: Path, kind: str) -> None:
    a_lake(tmp_path / "lake")
    name, line = _long_lines(kind)
    with (tmp_path / name).open("w") as file:
        file.write("subject,meter,quantity,note\n" if kind == "csv" else "")
        file.writelines(line for _ in range(16))
    code, peak_bytes = land_apart(tmp_path / "lake", tmp_path / name)
    assert code == int(kind == "rejected")
    assert peak_bytes < MAX_BYTES


EVENT = json.dumps(body()).encode()
# An input of which one line, cell, element or document has no end, as what stands before and behind it.
ENDLESS = {
    "usage.jsonl": (EVENT + b'\n{"note":"', b'"}\n'),
    "usage.csv": (b'subject,meter,quantity,note\norg_1,active_users,1,\norg_1,active_users,1,"', b'"\n'),
    "usage.json": (b"[" + EVENT + b',{"note":"', b'"}]'),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_endless_once_decompressed_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    start, end = ENDLESS[name]
    file = tmp_path / f"{name}.zst"
    with pa.CompressedOutputStream(str(file), "zstd") as stream:
        stream.write(start)
        for _ in range(32):
            stream.write(b"x" * 2**24)
        stream.write(end)
    code, peak_bytes = land_apart(tmp_path / "lake", file)
    assert code == 1
    # It is half a gigabyte.
    assert peak_bytes < MAX_BYTES / 2
    assert lake.events(meter.name).collect().height == 1
    (rejected,) = (tmp_path / "lake" / paths.QUARANTINE).rglob("*.parquet")
    assert pl.read_parquet(rejected, hive_partitioning=False)["reason"].to_list() == ["too_large"]


# What the record of an input had in each version of the bounds.
RECORDS: list[dict[str, int]] = [{}, {"long_line_weight": 8}, {"bounds": 2}]


@pytest.mark.parametrize("version", range(len(RECORDS)))
def test_an_interrupted_input_is_resumed_with_the_bounds_of_its_first_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_LINES", 10)
    several = [bounds._replace(lines=10 * (number + 1)) for number, bounds in enumerate(VERSIONS)]
    monkeypatch.setattr(write, "VERSIONS", several)
    lake, _ = a_lake(tmp_path / "lake")
    file = written(tmp_path, *(json.dumps(body(number)) for number in range(70)))
    monkeypatch.setattr(landed_input, "NEWEST", version)
    landed(lake, file)
    (place,) = (tmp_path / "lake" / paths.LANDED).iterdir()
    record = msgspec.json.decode(place.read_bytes())
    begun = {"source": record["source"], "landed_at": record["landed_at"]} | RECORDS[version]
    place.write_bytes(msgspec.json.encode(begun))
    # It was broken off before the last file.
    (tmp_path / "lake" / max(record["files"])).unlink()
    monkeypatch.setattr(landed_input, "NEWEST", len(VERSIONS) - 1)
    assert landed(lake, file).events_landed == 70
    events = list((tmp_path / "lake" / paths.EVENTS).rglob("*.parquet"))
    keys = pl.concat([pl.read_parquet(event, hive_partitioning=False) for event in events])["idempotency_key"]
    assert sorted(keys) == sorted(f"key {number}" for number in range(70))


def test_bounds_of_released_versions_stay() -> None:
    """Since they are part of the names of landed files."""
    assert VERSIONS[0] == (1_000_000, 512 * 2**20, 1, False)


def test_a_record_of_unknown_bounds_is_broken(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file = written(tmp_path, json.dumps(body()))
    landed(lake, file)
    (place,) = (tmp_path / "lake" / paths.LANDED).iterdir()
    record = msgspec.json.decode(place.read_bytes())
    place.write_bytes(msgspec.json.encode(record | {"bounds": len(VERSIONS)}))
    (problem,) = landed(lake, file).errors
    assert problem["what"] == "not a record of a landed input"


def test_rows_of_parquet_become_text_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.land.read.parquet_rows.TEXT_BYTES", 500)
    lake, meter = a_lake(tmp_path / "lake")
    rows = [body(number, quantity=-1 if number == 57 else 1) for number in range(100)]
    pl.DataFrame(rows).write_parquet(tmp_path / "usage.parquet")
    assert landed(lake, tmp_path / "usage.parquet").events_landed == 99
    (file,) = (tmp_path / "lake" / paths.QUARANTINE).rglob("*.parquet")
    assert pl.read_parquet(file, hive_partitioning=False)["position"].to_list() == [58]
    assert sorted(lake.raw_events(meter.name).collect()["idempotency_key"]) == sorted(
        f"key {number}" for number in range(100) if number != 57
    )


def test_a_long_rejected_line_is_kept_whole(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    line = json.dumps(body(meter="other", metadata={"note": "x" * 2**21}))
    landed(lake, written(tmp_path, line))
    (file,) = (tmp_path / "lake" / paths.QUARANTINE).rglob("*.parquet")
    assert pl.read_parquet(file, hive_partitioning=False)["raw"].to_list() == [line]


@pytest.mark.parametrize("form", ["gz", "zst"])
@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
@pytest.mark.parametrize("whole_frames", [1, 10])
def test_an_input_that_is_damaged_at_its_start_or_in_its_middle_ends_cleanly(
    tmp_path: Path, file_format: str, form: str, whole_frames: int
) -> None:
    """With four processes at a time no core is free for threads that would end late."""
    a_lake(tmp_path / "lake")
    rows = "".join(f"key {n},org_{n * n % 997},active_users,1\n" for n in range(10_000))
    text = ("idempotency_key,subject,meter,quantity\n" + rows).encode()
    frame = gzip.compress(text, 1) if form == "gz" else pa.compress(text, codec="zstd", asbytes=True)
    file = tmp_path / f"usage.{file_format}.{form}"
    # Without a checksum, which zstd need not have, only what begins no frame is certainly damage.
    file.write_bytes(frame * whole_frames + b"\xff" * 200 + frame * (20 - whole_frames))
    command = [METERLAKE, "--lake", str(tmp_path / "lake"), "land", str(file)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    ends = [(run.communicate()[1].decode(), run.returncode) for run in runs]
    assert [code for _, code in ends] == [1] * 4
    assert all("could not read this input" in said and "Fatal" not in said for said, _ in ends)
