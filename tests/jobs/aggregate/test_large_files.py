"""Files of producers that are small until they are decoded: refused by name, or read in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.run_report import reported
from jobs.verify.job import verify
from lake import Lake, paths
from lake.events import large_files
from lake.events.arrow_values import to_frame
from lake.events.partition import check_file
from schemas.columns import event_columns
from schemas.meter import Meter, parse_meter
from support import DAY, METER, a_lake, aggregated, event, put, usage

PEAK = """import resource, subprocess, sys
ran = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(ran.returncode)"""
LONG = "x" * 20_000


def rows(count: int, **columns: pl.Expr) -> pl.DataFrame:
    """Events of different keys in the lake's own types, with these columns in the place of theirs."""
    one = pl.DataFrame([event("k")], schema=event_columns(parse_meter(json.dumps(METER).encode(), "test")))
    keys = pl.format("k{}", pl.int_range(count)).alias("idempotency_key")
    return pl.concat([one] * count).with_columns(keys).with_columns(**columns)


def put_rows(lake: Lake, meter: Meter, df: pl.DataFrame, name: str = "a.parquet", **options: Any) -> Path:
    folder = Path(lake.url) / paths.events(meter.name, DAY)
    folder.mkdir(parents=True, exist_ok=True)
    df.write_parquet(folder / name, **options)
    return folder / name


def is_large(lake: Lake, meter: Meter, name: str = "a.parquet") -> bool:
    (file,) = (file for file in lake.storage.list(paths.EVENTS) if file.path.endswith(f"/{name}"))
    return check_file(lake.storage, meter, file).converted


@pytest.mark.parametrize("column", ["subject", "idempotency_key", "plan", "metadata"])
@pytest.mark.parametrize("encoding", ["dictionary", "plain"])
def test_a_file_of_little_else_than_repeated_text_is_named_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, encoding: str
) -> None:
    for limit in ("MAX_TEXT_BYTES", "MAX_METADATA_BYTES"):
        monkeypatch.setattr(large_files, limit, 2**20)
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "b.parquet", event("b"))
    number = pl.int_range(100) if encoding == "plain" else pl.lit(1)
    file = put_rows(lake, meter, rows(100, **{column: pl.format("{}{}", number, pl.lit(LONG))}))
    report = aggregated(lake)
    assert report.exit_code == 1
    (problem,) = report.errors
    assert problem["where"].endswith("a.parquet")
    assert problem["what"] == f"column {column!r} is too large"
    assert problem["expected"] == "at most 16 KiB of text in a row on average"
    assert file.exists()
    assert [subject for _, subject, _ in usage(lake, meter)] == ["org_1"]


def test_such_a_file_takes_less_than_1_gb_though_it_decodes_to_more(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put_rows(lake, meter, rows(15_000, subject=pl.lit("x" * 100_000)))
    assert file.stat().st_size < 2**20
    command = [str(Path(sys.executable).with_name("meterlake")), "--lake", lake.url, "aggregate"]
    found = subprocess.run(
        [sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert int(found.stdout) < 2**20


@pytest.mark.parametrize("limit", ["MAX_GROUP_BYTES", "MAX_MEAN_TEXT"])
def test_a_large_file_of_events_counts_whichever_way_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    df = rows(500, subject=pl.format("org_{}", pl.int_range(500) % 7), plan=pl.lit("x" * 100))
    other, meter = a_lake(tmp_path / "other")
    put_rows(other, meter, df)
    assert not is_large(other, meter)
    lake, meter = a_lake(tmp_path / "lake")
    if limit == "MAX_GROUP_BYTES":
        monkeypatch.setattr(large_files, limit, 2**14)
    else:
        # One long text, which stands for one row, might stand for all.
        monkeypatch.setattr(large_files, "MAX_TEXT_BYTES", 2**20)
        df = df.with_columns(plan=pl.when(pl.int_range(500) == 0).then(pl.lit("x" * 2**17)).otherwise("plan"))
        put_rows(other, meter, df)
    put_rows(lake, meter, df)
    assert is_large(lake, meter)
    assert aggregated(lake).exit_code == 0
    aggregated(other)
    assert usage(lake, meter) == usage(other, meter) != []
    with reported(lake, "verify") as report:
        verify(lake, report)
    assert report.exit_code == 0


def test_columns_that_are_passed_over_may_be_as_large_as_they_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_files, "MAX_TEXT_BYTES", 2**20)
    monkeypatch.setattr(large_files, "MAX_GROUP_BYTES", 2**16)
    lake, meter = a_lake(tmp_path)
    note = pl.lit(LONG)
    put_rows(
        lake,
        meter,
        rows(
            100,
            note=note,
            notes=pl.concat_list([note] * 3),
            nested=pl.struct(x=note),
        ),
    )
    assert not is_large(lake, meter)
    assert aggregated(lake).exit_code == 0


def test_files_that_the_lake_wrote_are_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_files, "MAX_GROUP_BYTES", 0)
    lake, meter = a_lake(tmp_path)
    for name in ("land-0123456789abcdef-0000.parquet", "a.parquet"):
        put_rows(lake, meter, rows(1), name)
    assert not is_large(lake, meter, "land-0123456789abcdef-0000.parquet")
    assert is_large(lake, meter)


def test_a_column_that_is_kept_keeps_no_other_in_memory() -> None:
    before = pa.total_allocated_bytes()
    batch = pa.record_batch({"text": pa.array(["x" * 100] * 100_000), "number": pa.array(range(100_000))})
    number = to_frame(batch)["number"]
    del batch
    assert pa.total_allocated_bytes() - before < 2**20
    assert number.len() == 100_000
    del number


def test_a_page_that_lies_about_its_size_is_no_page(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    file = put_rows(lake, meter, rows(1), compression="uncompressed")
    chunk = pq.read_metadata(file).row_group(0).column(0)
    body = bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    body[start : start + 8] = b"\xff" * 8
    file.write_bytes(body)
    report = aggregated(lake)
    assert (report.exit_code, len(report.errors)) == (1, 1)
    assert report.errors[0]["where"].endswith("a.parquet")
