"""Hostile input through the command line: nothing crashes, nothing escapes, nothing is lost."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from lake import Lake
from lake.meters import save_meter
from schemas.meter import parse_meter

ROOT = Path(__file__).parents[2]
NAMES = [
    "../x",
    "/etc/passwd",
    "a/../../b",
    "%2e%2e%2fx",
    "line\nend",
    "..",
    ".",
    "é" * 60,
    "meter=1/date=2026-01-01",
    "NUL\x01",
]
VALUES = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2",
    "@sum",
    'say "hi"',
    "two\nlines",
    "tab\t",
    "'",
    "\\",
    "{}",
    "null",
    "é",
    "",
]
COUNT = 100_000


def meterlake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", "--lake", str(folder), *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode in (0, 1), (ran.returncode, ran.stderr)
    assert "Traceback" not in ran.stderr
    assert "unexpected" not in ran.stderr
    return ran


def define(folder: Path, *names: str) -> None:
    lake = Lake.init(str(folder))
    for name in names:
        body = {"name": name, "unit": "u", "dimensions": [{"name": "v", "type": "string", "required": False}]}
        save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "test"))


def line(meter: str = "m", **changes: object) -> bytes:
    body = {"subject": "s", "meter": meter, "quantity": 1, "timestamp": "2026-06-19T10:00:00Z"} | changes
    return json.dumps(body).encode()


def test_meter_names_can_not_leave_the_lake(tmp_path: Path) -> None:
    lake = tmp_path / "deep" / "lake"
    lake.mkdir(parents=True)
    define(lake, *NAMES)
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(line(name) for name in NAMES))
    before = {path for path in tmp_path.rglob("*") if lake not in path.parents}
    meterlake(lake, "land", str(tmp_path / "in.jsonl"))
    meterlake(lake, "nightly")
    assert {path for path in tmp_path.rglob("*") if lake not in path.parents} == before
    schema = {"meter": pl.String, "date": pl.Date}
    files = str(lake / "aggregates" / "usage" / "**" / "*.parquet")
    rows = pl.scan_parquet(files, hive_partitioning=True, hive_schema=schema).collect()
    assert sorted(rows["meter"]) == sorted(NAMES)


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    define(tmp_path, "m")
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(line(metadata={"v": value}) for value in VALUES))
    meterlake(tmp_path, "land", str(tmp_path / "in.jsonl"))
    meterlake(tmp_path, "aggregate")
    assert sorted(pl.read_parquet(tmp_path / "aggregates" / "usage")["v"]) == sorted(VALUES)


HOSTILE = {
    "deep JSON": b'{"a":' * 100_000,
    "deep arrays": b"[" * 1_000_000 + b"\n" + line(),
    "10 MB of text": line(subject="x" * 10_000_000),
    "100,000 keys": line(metadata={f"k{n}": n for n in range(COUNT)}),
    "a key twice": line()[:-1] + b', "quantity": 5}',
    "half a surrogate pair": line().replace(b'"s"', b'"\\ud800"'),
    "NUL": line(subject="a\x00b"),
    "a huge exponent": line().replace(b'"quantity": 1', b'"quantity": 1e999999999'),
    "a million digits": line().replace(b'"quantity": 1', b'"quantity": ' + b"1" * 1_000_000),
    "null": b"null\nnull\n" + line(),
    "bytes": bytes(range(256)) * 1_000,
    "no line end": b"x" * 20_000_000,
    "a bomb": gzip.compress(b" " * 100_000_000),
    "a bomb of lines": gzip.compress(b"\n" * 20_000_000 + line()),
}


# Lands each of some files into a lake of its own, and prints for each, on a line, its exit code and both outputs.
LAND_EACH = """
import contextlib, io, json, sys
from jobs.cli import app
for file in sys.argv[1:]:
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run(["--lake", file + " lake", "land", file, "--json"])
    print(json.dumps([code, *(each.buffer.getvalue().decode() for each in (out, err))]), flush=True)
"""


@pytest.mark.parametrize("extension", ["jsonl", "json"])
def test_no_input_crashes_and_none_is_lost(tmp_path: Path, extension: str) -> None:
    """In a process of their own, which must not die of one."""
    files = [tmp_path / f"{number}.{extension}" for number in range(len(HOSTILE))]
    for file, body in zip(files, HOSTILE.values(), strict=True):
        define(Path(f"{file} lake"), "m")
        file.write_bytes(body)
    command = [sys.executable, "-c", LAND_EACH, *map(str, files)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0, (ran.returncode, f"in or after {[*HOSTILE][len(lines) - 1]}", ran.stderr)
    for (name, body), printed in zip(HOSTILE.items(), lines, strict=True):
        code, out, err = json.loads(printed)
        assert code in (0, 1), (name, err)
        assert "Traceback" not in err, name
        assert "unexpected" not in err, name
        said = json.loads(out)
        rejected = sum(said["quarantined"].values())
        blank = not gzip.decompress(body).strip() if body.startswith(b"\x1f\x8b") else False
        assert said["events_landed"] + rejected > 0 or blank, name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"name": "' + b"x" * 10_000_000 + b'", "unit": "u"}',
    ],
    ids=["empty", "null", "array", "bytes", "deep", "long"],
)
def test_no_meter_file_crashes(tmp_path: Path, body: bytes) -> None:
    meterlake(tmp_path, "init")
    (tmp_path / "meter.json").write_bytes(body)
    ran = meterlake(tmp_path, "meter", "add", str(tmp_path / "meter.json"))
    assert ran.returncode == 1
    assert len(ran.stderr.encode()) < 2_000
    assert "meter.json" in ran.stderr
