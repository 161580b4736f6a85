"""Inputs land once: again, interrupted, broken, in pieces, and whatever their bytes are."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.land.read import json_stream, line_batches
from lake import Lake, paths
from lake.storage import LocalStorage
from landing import LINES, body, landed, quarantined, written
from schemas.errors import StorageError
from support import DAY, a_lake, aggregated, content, define, event, put, retained, set_flush_bounds


def test_one_input_may_hold_many_meters_and_many_dates(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    define(lake, name="a/b c", dimensions=[{"name": "region", "type": "string"}])
    other = body(2, meter="a/b c", metadata={"region": "eu"})
    foreign = body(3, metadata={"plan": "pro", "region": "eu"})
    report = landed(
        lake, written(tmp_path, body(1), other, foreign, body(4, timestamp="2026-06-20T10:00:00Z"))
    )
    assert report.exit_code == 0
    found = lake.events("active_users").collect().select("date", "metadata").rows()
    assert found == [(DAY, None), (DAY, '{"region":"eu"}'), (DAY + dt.timedelta(days=1), None)]
    assert lake.events("a/b c").collect()["region"].to_list() == ["eu"]


def test_landing_the_same_content_twice_adds_nothing_whatever_its_name(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    bodies = [body(1, idempotency_key=...), body(2), body(3, quantity=0)]
    first = written(tmp_path, *bodies)
    landed(lake, first)
    before = content(tmp_path / "lake", "events", "quarantine")
    again = tmp_path / "again.gz"
    again.write_bytes(gzip.compress(first.read_bytes()))
    report = landed(lake, first, again)
    assert [said["status"].split(" at ")[0] for said in report.inputs] == ["already landed"] * 2
    assert (report.events_landed, report.exit_code) == (0, 0)
    assert content(tmp_path / "lake", "events", "quarantine") == before


def test_an_input_that_came_before_its_meter_can_be_landed_again(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    file = written(tmp_path, body(1), body(2))
    assert landed(lake, file).quarantined == {"unknown_meter": 2}
    define(lake)
    report = landed(lake, file)
    assert (report.events_landed, report.quarantined) == (2, {})


def test_a_sealed_partition_takes_no_event(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    report = landed(lake, written(tmp_path, body(1), body(2, timestamp="2026-06-20T10:00:00Z")))
    assert report.quarantined == {"sealed_partition": 1}
    assert report.events_landed == 1


class _Failing(LocalStorage):
    """Fails at one of the operations that write."""

    def __init__(self, root: str, fails_at: int) -> None:
        super().__init__(root)
        self.left = fails_at

    def publish_file(self, path: str, local: Path) -> None:
        self._count(path)
        super().publish_file(path, local)

    def publish(self, path: str, content: bytes) -> None:
        self._count(path)
        super().publish(path, content)

    def _count(self, path: str) -> None:
        if path.startswith(paths.RUNS):
            return
        self.left -= 1
        if self.left == 0:
            raise StorageError("the test says no", where=path)


@pytest.mark.parametrize("fails_at", range(1, 10))
def test_an_interrupted_landing_is_gone_on_with_and_ends_the_same(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 1_000)
    set_flush_bounds(monkeypatch, lines=10)
    bodies = [body(n, timestamp=f"2026-06-{18 + n % 2}T10:00:00Z", quantity=n % 5) for n in range(20)]
    file = written(tmp_path, *bodies)
    ends = []
    for name in ("whole", "interrupted"):
        lake, meter = a_lake(tmp_path / name)
        if name == "interrupted":
            storage, lake.storage = lake.storage, _Failing(lake.url, fails_at)
            failed = landed(lake, file)
            lake.storage = storage
            # Each writing operation of the landing fails once; the last number is one too many.
            assert (failed.errors != []) == (fails_at <= 8)
            landed(lake, file)
        else:
            landed(lake, file)
        rows = lake.events(meter.name).drop("received_at").collect()
        ends.append((rows.rows(), sorted(quarantined(lake)["position"])))
        assert lake.events(meter.name).collect()["received_at"].n_unique() == 1
    assert ends[0] == ends[1]
    assert len(ends[0][0]) == 16


UNREADABLE = {
    "truncated gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())[:-20]),
    "truncated zstd": ("a.zst", bytes(pa.compress(LINES.encode() * 9, codec="zstd", asbytes=True))[:-20]),
    "damaged gzip": ("a.gz", gzip.compress(LINES.encode())[:40] + bytes(40)),
    "Parquet of nothing": ("a.parquet", b""),
    "half a Parquet file": ("a.parquet", b"PAR1" + bytes(100)),
    "CSV with a column twice": ("a.csv", b"subject,meter,quantity,x,x\na,active_users,1,1,2\n"),
    "CSV of one long field": ("a.csv", b"x" * 200_000),
    "CSV without a header": ("a.csv", b""),
    "CSV with a header that is not UTF-8": ("a.csv", b"subject,meter,quantity,\xff\n"),
}


@pytest.mark.parametrize(("name", "content"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_input_is_named_and_nothing_of_it_is_landed(
    tmp_path: Path, name: str, content: bytes
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    (tmp_path / name).write_bytes(content)
    report = landed(lake, tmp_path / name, written(tmp_path, body()))
    assert report.exit_code == 1
    assert [said["status"] for said in report.inputs] == ["rejected", "landed"]
    assert name in report.errors[0]["where"]
    assert report.errors[0]["found"]
    assert lake.events(meter.name).collect().height == 1


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_path_that_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    (problem,) = landed(lake, tmp_path / name).errors
    assert problem["what"] == "could not read this input"


def test_an_empty_input_lands_nothing_and_is_no_error(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path))
    assert (report.exit_code, report.events_landed) == (0, 0)


def test_lines_and_elements_over_the_limit_are_kept_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 500)
    monkeypatch.setattr(line_batches, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(line_batches, "KEPT_OF_LONG_LINE_BYTES", 50)
    lake, _ = a_lake(tmp_path / "lake")
    long = json.dumps(body(2, subject="x" * 5_000))
    report = landed(lake, written(tmp_path, body(1), long, body(3)))
    assert (report.events_landed, report.quarantined) == (2, {"too_large": 1})
    assert quarantined(lake).select("position", "raw").rows() == [(2, long[:50])]


def test_an_array_is_read_piece_by_piece_and_ends_where_it_stops_being_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 7)
    lake, meter = a_lake(tmp_path / "lake")
    text = json.dumps([body(1, subject="é1"), body(2), 12345, body(3)], ensure_ascii=False)
    report = landed(lake, written(tmp_path, text[:-1] + ", {broken", name="a.json"))
    assert report.quarantined == {"not_an_object": 1, "not_json": 1, "subject_invalid": 1}
    assert lake.events(meter.name).collect().height == 2
    assert quarantined(lake)["position"].to_list() == [1, 3, 5]


TRUNCATED = {
    "between elements": ", ",
    "after an element": "",
    "within an element": ', {"subject": "or',
}


@pytest.mark.parametrize("tail", TRUNCATED.values(), ids=TRUNCATED)
def test_an_array_without_its_end_is_told(tmp_path: Path, tail: str) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path, json.dumps([body(1), body(2)])[:-1] + tail, name="a.json"))
    assert (report.events_landed, report.quarantined, report.exit_code) == (2, {"not_json": 1}, 1)
    assert quarantined(lake)["position"].to_list() == [3]


@pytest.mark.parametrize("name", ["a.log", "a.json", "a.jsonl"])
@pytest.mark.parametrize("broken", [0, 2], ids=["first", "third"])
def test_a_broken_line_stops_no_other_whatever_the_name(tmp_path: Path, name: str, broken: int) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    lines: list[Any] = [body(number) for number in range(5)]
    lines[broken] = '{"subject": "s"'
    report = landed(lake, written(tmp_path, *lines, name=name))
    assert (report.events_landed, report.quarantined) == (4, {"not_json": 1})
    assert quarantined(lake)["position"].to_list() == [broken + 1]


def test_a_pipe_lands_like_a_file(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    reader, writer = os.pipe()
    os.write(writer, LINES.encode())
    os.close(writer)
    report = landed(lake, f"/dev/fd/{reader}")
    os.close(reader)
    assert (report.errors, report.events_landed) == ([], 3)
    assert not list((tmp_path / "lake" / paths.TEMPORARY).iterdir())


def test_rows_that_are_landed_later_leave_quarantine(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    file = written(tmp_path, body(1), body(2, quantity=0), body(3, meter="other"))
    landed(lake, file)
    assert quarantined(lake)["reason"].to_list() == ["unknown_meter"] * 3
    define(lake)
    define(lake, name="other")
    report = landed(lake, file)
    assert (report.events_landed, report.quarantined) == (2, {"quantity_not_positive": 1})
    assert quarantined(lake).select("position", "reason").rows() == [(2, "quantity_not_positive")]
    assert landed(lake, file).events_landed == 0


def test_a_damaged_record_of_an_input_lands_nothing(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file = written(tmp_path, body(1))
    landed(lake, file)
    (record,) = (tmp_path / "lake" / paths.LANDED).iterdir()
    record.write_text("{")
    report = landed(lake, file)
    assert report.errors[0]["what"] == "not a record of a landed input"
    assert report.events_landed == 0


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path, body(1)), file_format="xml")
    assert report.errors[0]["what"] == "unknown format"


@pytest.mark.parametrize(("what", "number"), [("lines", 10), ("json_bytes", 2_000)])
def test_rows_are_written_before_they_are_too_many_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, number: int
) -> None:
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 1_000)
    set_flush_bounds(monkeypatch, **{what: number})
    lake, meter = a_lake(tmp_path / "lake")
    landed(lake, written(tmp_path, *(body(n) for n in range(30))))
    assert len(list((tmp_path / "lake" / paths.events(meter.name, DAY)).iterdir())) > 1
    assert lake.events(meter.name).collect().height == 30


def test_batches_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, *(body(n, quantity=n % 7) for n in range(200)))
    ends = []
    for size_bytes in (8 * 2**20, 1_000):
        monkeypatch.setattr(line_batches, "BATCH_BYTES", size_bytes)
        monkeypatch.setattr(line_batches, "BATCH_LINES", size_bytes // 300)
        lake, meter = a_lake(tmp_path / str(size_bytes))
        landed(lake, file)
        rows = lake.events(meter.name).drop("received_at").collect()
        ends.append((rows.rows(), quarantined(lake)["position"].to_list()))
    assert ends[0] == ends[1]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_land_or_are_rejected_and_never_raise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lake, _ = a_lake(folder / "lake")
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet", "a"):
        (folder / name).write_bytes(content)
        landed(lake, folder / name)
