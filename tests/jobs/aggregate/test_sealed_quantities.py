"""`quantity` of sealed dates by the rule of a changed definition, or of today's program, wherever a run breaks off."""

from __future__ import annotations

import datetime as dt
import shutil
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from faults.storage import BrokenOffError, DyingStorage, FaultyStorage
from jobs.aggregate.job import aggregate
from jobs.export.billing import month_of
from jobs.export.month import MonthExport, Options
from jobs.export.rows import billed_rows
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from lake.state.records import METADATA_KEY
from lake.state.state_file import load_state
from schemas.errors import BrokenLakeError
from support import DAY, a_lake, aggregated, define, event, put, retained

NEXT = DAY + dt.timedelta(days=1)
DATES = [DAY, NEXT]
SEATS: dict[str, Any] = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "event_retention_days": 30,
    "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace")],
}
ADDED = SEATS | {"series": ["workspace"]}


def snapshots(lake: Lake) -> None:
    meter = lake.meter(SEATS["name"])
    for day in DATES:
        rows = [
            event(f"{workspace} {day}", "org_acme", seats, day, plan=plan, workspace=workspace)
            for workspace, seats, plan in [("a", "20", "pro"), ("b", "30", "free"), ("c", "11", "pro")]
        ]
        # Of a workspace that changed its plan the seats count once.
        early = {"timestamp": dt.datetime.combine(day, dt.time(1), dt.UTC)}
        rows.append(event(f"moved {day}", "org_acme", "5", day, plan="trial", workspace="c") | early)
        put(lake, meter, "a.parquet", *rows, day=day)


def sealed_lake(folder: Path, **definition: Any) -> Lake:
    lake, _ = a_lake(folder, **definition)
    snapshots(lake)
    aggregated(lake)
    retained(lake, NEXT + dt.timedelta(days=31))
    assert load_state(lake.storage, "seats").sealed == set(DATES)
    return lake


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, pl.DataFrame]:
    """The tables of a meter that had its series from the beginning."""
    return tables(sealed_lake(tmp_path / "expected", **ADDED))


def tables(lake: Lake) -> dict[str, pl.DataFrame]:
    return {table: getattr(lake, table)("seats").collect() for table in paths.TABLES}


def same(lake: Lake, expected: dict[str, pl.DataFrame]) -> bool:
    return all(rows.equals(expected[table]) for table, rows in tables(lake).items())


def verified(lake: Lake) -> list[dict[str, str]]:
    report = RunReport(job="verify", started_at=dt.datetime.now(dt.UTC))
    verify(lake, report)
    return report.errors


def ran(lake: Lake) -> RunReport:
    with reported(lake, "aggregate") as report:
        aggregate(lake, report)
    return report


def test_sealed_dates_get_the_levels_of_their_series_and_keep_all_else(
    tmp_path: Path, expected: dict[str, pl.DataFrame]
) -> None:
    lake = sealed_lake(tmp_path / "lake", **SEATS)
    before, rows = load_state(lake.storage, "seats"), tables(lake)
    define(lake, **ADDED)
    assert verified(lake) == []
    report = ran(lake)
    assert report.errors == []
    assert [(each.date, each.action) for each in report.partitions] == [(day, "recomputed") for day in DATES]
    assert same(lake, expected)
    assert expected["usage_by_subject"]["quantity"].to_list() == [Decimal(61)] * 2
    assert verified(lake) == []
    after = load_state(lake.storage, "seats")
    for day in DATES:
        old, new = before.partitions[day], after.partitions[day]
        assert (new.sealed_at, new.fingerprint, new.events) == (old.sealed_at, old.fingerprint, old.events)
        assert new.earlier_checksums == old.checksums
    # Nothing is left to do, and what was done can be undone.
    assert ran(lake).partitions == []
    define(lake, **SEATS)
    assert ran(lake).errors == []
    assert same(lake, rows)
    assert verified(lake) == []


def test_a_dimension_that_was_declared_after_the_sealing_may_name_series(tmp_path: Path) -> None:
    lake = sealed_lake(tmp_path / "lake", **SEATS)
    names = [*SEATS["dimensions"], {"name": "region", "type": "string", "required": False}]
    define(lake, **ADDED | {"dimensions": names, "series": ["region", "workspace"]})
    assert ran(lake).errors == []
    assert lake.usage_by_subject("seats").collect()["quantity"].to_list() == [Decimal(61)] * 2
    assert verified(lake) == []


@pytest.mark.parametrize("is_lost", [False, True], ids=["state there", "state lost"])
def test_it_may_break_off_anywhere(
    tmp_path: Path, expected: dict[str, pl.DataFrame], *, is_lost: bool
) -> None:
    source = tmp_path / "lake"
    define(sealed_lake(source, **SEATS), **ADDED)
    fails_at, last = 0, 1
    while fails_at < last:
        fails_at += 1
        folder = tmp_path / f"{fails_at}"
        shutil.copytree(source, folder)
        faulty = FaultyStorage(folder, fails_at, after=fails_at % 2 == 0, error=BrokenOffError)
        with suppress(BrokenOffError), reported(Lake(str(folder)), "aggregate") as report:
            aggregate(Lake(str(folder)).over(faulty), report)
        last = faulty.done + 1 if faulty.done >= fails_at else fails_at
        lake = Lake(str(folder))
        if is_lost:
            (folder / paths.state("seats")).unlink(missing_ok=True)
        else:
            assert verified(lake) == [], fails_at
        assert ran(lake).errors == [], fails_at
        assert same(lake, expected), fails_at
        assert load_state(lake.storage, "seats").sealed == set(DATES)
        assert verified(lake) == [], fails_at
        assert ran(lake).partitions == [], fails_at
    assert fails_at > 10


@pytest.mark.parametrize("survives", [1, 3, 4])
def test_a_run_that_broke_off_is_undone_where_the_definition_is_as_it_was_again(
    tmp_path: Path, survives: int
) -> None:
    lake = sealed_lake(tmp_path / "lake", **SEATS)
    before = tables(lake)
    define(lake, **ADDED)
    dying = DyingStorage(tmp_path / "lake", paths.AGGREGATES, survives)
    with pytest.raises(BrokenOffError), reported(lake, "aggregate") as report:
        aggregate(lake.over(dying), report)
    define(lake, **SEATS)
    assert verified(lake) == []
    assert ran(lake).errors == []
    assert same(lake, before)
    assert verified(lake) == []
    assert ran(lake).partitions == []


def test_a_table_that_is_ahead_of_the_state_is_exported_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    lake = sealed_lake(tmp_path / "lake", **ADDED)
    define(lake, **SEATS)
    dying = DyingStorage(tmp_path / "lake", paths.AGGREGATES, 2)
    with pytest.raises(BrokenOffError), reported(lake, "aggregate") as report:
        aggregate(lake.over(dying), report)
    meter, state = lake.meter("seats"), load_state(lake.storage, "seats")
    june = MonthExport(lake.storage, meter, state, month_of(DAY), Options(), 0, {})
    assert billed_rows(june).collect()["quantity"].to_list() == [30, 61]
    stored = tmp_path / "lake" / paths.aggregate(june.table, "seats", DAY)
    pl.read_parquet(stored).with_columns(events=pl.lit(9, pl.Int64)).write_parquet(
        stored, metadata={METADATA_KEY: pl.read_parquet_metadata(stored)[METADATA_KEY]}
    )
    with pytest.raises(BrokenLakeError, match="not those that were published"):
        billed_rows(june)


def test_a_date_whose_rows_are_others_is_named_and_left_alone(
    tmp_path: Path, expected: dict[str, pl.DataFrame]
) -> None:
    lake = sealed_lake(tmp_path / "lake", **SEATS)
    damaged = tmp_path / "lake" / paths.aggregate("usage", "seats", DAY)
    rows, metadata = pl.read_parquet(damaged), pl.read_parquet_metadata(damaged)
    said = {name: text for name, text in metadata.items() if name.startswith("meterlake")}
    rows.with_columns(pl.lit(Decimal(7)).cast(pl.Decimal(38, 9)).alias("quantity_last")).write_parquet(
        damaged, metadata=said
    )
    before = {path: path.read_bytes() for path in (tmp_path / "lake/aggregates").rglob("*.parquet")}
    define(lake, **ADDED)
    report = ran(lake)
    (problem,) = report.errors
    assert problem["where"] == paths.aggregate("usage", "seats", DAY)
    assert report.exit_code == 3
    after = {path: path.read_bytes() for path in before}
    assert {path for path in before if before[path] == after[path]} == {
        path for path in before if f"date={DAY}" in str(path)
    }
    by_subject = lake.usage_by_subject("seats", NEXT).collect()
    assert by_subject.equals(expected["usage_by_subject"].filter(pl.col("date") == NEXT))
