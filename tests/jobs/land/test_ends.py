"""A process that lands what is refused ends with exit code 1, and not by a signal once its work is done.

Arrow reads ahead in threads of its own. One that calls into Python while the interpreter ends aborts the process, as
happened where a CSV file was refused on a busy machine: so none of them may be left reading an input.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depth import DEEP
from support import METER, ROOT, a_lake

ROWS = 50_000
HEADER = b"subject,meter,quantity,timestamp,plan\n"
ROW = b"s,active_users,1,2026-06-19T10:00:00Z,pro\n"
LINE = b'{"subject":"s","meter":"active_users","quantity":1,"timestamp":"2026-06-19T10:00:00Z"}\n'
# Threads that Python has not started are Arrow's. On a busy machine they come late; here each of them does.
LATE_READERS = """
import threading, time
from jobs.cli.app import main
from jobs.land.read.steady_file import SteadyFile

block = SteadyFile.block

def late(file, number):
    if isinstance(threading.current_thread(), threading._DummyThread):
        time.sleep(1)
    return block(file, number)

SteadyFile.block = late
main()
"""


def damaged_table() -> bytes:
    """A Parquet file of which one column can't be read, while others are read beside it."""
    body = io.BytesIO()
    row = {"subject": "s", "meter": METER["name"], "quantity": 1, "timestamp": "2026-06-19T10:00:00Z"}
    texts = pl.Series([f"key {n}" for n in range(ROWS)])
    pl.DataFrame({"idempotency_key": texts, "plan": texts}).with_columns(
        **{name: pl.lit(value) for name, value in row.items()}
    ).write_parquet(body)
    column = pq.ParquetFile(body).metadata.row_group(0).column(0)
    found = bytearray(body.getvalue())
    start = column.dictionary_page_offset or column.data_page_offset
    found[start : start + 400] = bytes(400)
    return bytes(found)


REFUSED = {
    "bytes.csv": HEADER + b"\xff" + ROW * ROWS,
    "fields.csv": HEADER + ROW * ROWS + b"s,active_users\n" + ROW * ROWS,
    "no-meter.csv": HEADER.replace(b"meter", b"metre") + ROW * ROWS,
    "cut.csv.gz": gzip.compress(HEADER + ROW * ROWS)[:-9],
    "cut.jsonl.zst": pa.compress(LINE * ROWS, "zstd", asbytes=True)[:-9],
    "bytes.jsonl": LINE * ROWS + b"\xff\n" + LINE * ROWS,
    "bytes.json": b"[" + LINE.replace(b"\n", b",") * ROWS + b"x",
    "damaged.parquet": damaged_table(),
}


def landed(folder: Path, name: str, *command: str) -> tuple[int, str]:
    """The exit code of a process that lands a file into the folder's lake, and the end of what it wrote to stderr."""
    (folder / name).write_bytes(REFUSED[name])
    done = subprocess.run(
        [sys.executable, *command, "--lake", str(folder / "lake"), "land", str(folder / name)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr[-500:]


@contextmanager
def busy_cores() -> Iterator[None]:
    """Two processes that do nothing but work."""
    working = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for process in working:
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", REFUSED)
def test_no_thread_is_left_reading_a_refused_input(tmp_path: Path, name: str) -> None:
    a_lake(tmp_path / "lake")
    code, told = landed(tmp_path, name, "-c", LATE_READERS)
    assert code == 1, told


def test_a_refused_csv_ends_cleanly_on_a_busy_machine(tmp_path: Path) -> None:
    with busy_cores():
        for number in range(6 if DEEP else 2):
            folder = tmp_path / str(number)
            a_lake(folder / "lake")
            for name in ("bytes.csv", "cut.csv.gz"):
                code, told = landed(folder, name, "-m", "jobs.cli")
                assert code == 1, told
