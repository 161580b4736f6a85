"""What people read of partitions, rejected rows and billing revisions: as frames, and held to what was exported."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.land.job import land
from jobs.run_report import reported
from lake import Lake
from schemas.errors import BadInputError, BrokenLakeError
from support import DAY, a_lake, aggregated, event, put, retained

JUNE = "2026-06"
NEXT = DAY + dt.timedelta(days=1)


def _export(lake: Lake, *, close: bool = False, by: tuple[str, ...] = ()) -> None:
    aggregated(lake)
    with reported(lake, "export") as report:
        export(lake, report, parse_period(JUNE), close=close, options=Options(by))


@pytest.fixture
def june(tmp_path: Path) -> Lake:
    """June exported, adjusted by a late event, closed, and adjusted again."""
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a", quantity="2"))
    _export(lake)
    put(lake, meter, "b.parquet", event("b", day=NEXT), day=NEXT)
    _export(lake, close=True)
    put(lake, meter, "c.parquet", event("c", "org_2"))
    _export(lake)
    return lake


def test_revisions_are_listed_with_what_changed(june: Lake) -> None:
    _export(june, by=("plan",))
    found = june.revisions("active_users").collect()
    assert found.drop("meter_version").rows() == [
        (JUNE, 1, "usage", 1, [DAY], False),
        (JUNE, 2, "usage", 1, [NEXT], True),
        (JUNE, 3, "adjustments", 1, [DAY], True),
    ]
    assert june.revisions("active_users", JUNE).collect().equals(found)
    assert june.revisions("active_users", "2026-05").collect().is_empty()


def test_the_rows_of_a_revision_are_those_that_were_exported(june: Lake) -> None:
    assert june.exported("active_users", JUNE, 1).collect()["quantity"].to_list() == [Decimal(2)]
    last = june.exported("active_users", JUNE).collect()
    assert last.select("subject", "quantity_before", "quantity_after").rows() == [("org_2", None, Decimal(1))]
    adjusted = june.exported("active_users", JUNE, 2, "adjustments").collect()
    assert adjusted["quantity_change"].to_list() == [Decimal(1)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("2026-05",), "expected an exported month, found no export"),
        ((JUNE, 7), "expected one of 1, 2, 3, found revision 7"),
        ((JUNE, 3, "usage"), "expected one of adjustments.parquet, found usage.parquet"),
    ],
)
def test_a_revision_that_was_not_exported_is_an_error(
    june: Lake, asked: tuple[str, int, str], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        june.exported("active_users", *asked)


@pytest.mark.parametrize("name", ["usage.csv", "usage.parquet"])
def test_a_changed_file_of_a_revision_is_not_read(june: Lake, name: str) -> None:
    file = next(Path(june.url).glob(f"exports/**/revision=0001/{name}"))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BrokenLakeError, match=name):
        june.exported("active_users", JUNE, 1)
    file.unlink()
    with pytest.raises(BrokenLakeError, match="missing"):
        june.exported("active_users", JUNE, 1)


def test_a_changed_manifest_is_not_read(june: Lake) -> None:
    file = next(Path(june.url).glob("exports/**/revision=0001/manifest.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unit": "seat"}))
    with pytest.raises(BrokenLakeError, match=r"revision=0001/manifest\.json"):
        june.revisions("active_users")


def test_partitions_are_listed_with_their_counts(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    assert lake.partitions(meter.name).collect().is_empty()
    put(lake, meter, "a.parquet", event("a"), event("a", quantity="2"), event("bad", quantity="0"))
    put(lake, meter, "b.parquet", event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    found = lake.partitions(meter.name).collect()
    assert found.drop("sealed_at").rows() == [(DAY, 1, 1, 1, 1), (NEXT, 1, 0, 0, 0)]
    assert found["sealed_at"].is_null().to_list() == [False, True]


def test_rejected_rows_are_read_with_what_they_name(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    assert lake.quarantine().collect().is_empty()
    put(lake, meter, "a.parquet", event("bad", quantity="0"))
    aggregated(lake)
    (tmp_path / "some.jsonl").write_text('{"meter": "active_user", "subject": "org_1"}\n{"meter": "\n')
    with reported(lake, "land") as report:
        land(lake, [str(tmp_path / "some.jsonl")], report)
    found = lake.quarantine().collect()
    assert found.select("meter", "reason").sort("reason").rows() == [
        (None, "not_json"),
        ("active_users", "quantity_not_positive"),
        ("active_user", "unknown_meter"),
    ]
    assert lake.quarantine(meter.name).collect().equals(found.filter(pl.col("meter") == meter.name))
    assert found.columns[2:] == ["reason", "detail", "raw", "source", "position", "landed_at"]


def test_a_notebook_shows_an_error_by_its_message() -> None:
    error = BadInputError("no such meter", where="here", expected="a", found="b", hint="look")
    lines = getattr(error, "_render_traceback_")()  # noqa: B009
    assert lines == ["BadInputError: here: no such meter: expected a, found b", "hint: look"]
