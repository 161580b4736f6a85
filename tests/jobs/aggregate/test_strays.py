"""Files in other places than a partition's folder: named or passed over, and never counted."""

from __future__ import annotations

import datetime as dt
import shutil
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from jobs.nightly import nightly
from jobs.run_report import reported
from jobs.status import status
from jobs.verify.job import verify
from lake import Lake, paths
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, event, put, recomputed, retained, usage

PARTITION = f"meter=active_users/date={DAY}"
STRAYS = [
    f"events/meter=active_users/backup/{PARTITION}/b.parquet",
    f"events/meter=active_users/{PARTITION}/b.parquet",
    f"events/{PARTITION}/deeper/b.parquet",
    f"events/{PARTITION}/date={DAY}/b.parquet",
    f"events/{PARTITION}/B.PARQUET",
    "events/meter=active_users/b.parquet",
    "events/meter=active_users/date=2026-6-1/b.parquet",
    "events/meter=active_users/date=2026-02-30/b.parquet",
]
HIDDEN = [
    f"events/meter=active_users/.spark-staging-1/{PARTITION}/b.parquet",
    "events/meter=active_users/_temporary/0/b.parquet",
    f"events/{PARTITION}/_temporary/0/b.parquet",
    f"events/{PARTITION}/.b.parquet",
    f"events/.staging/{PARTITION}/b.parquet",
    "events/_SUCCESS",
]
OUTSIDE = {
    "events/b.parquet": "events/b.parquet",
    "events/meter=gone/date=2026-06-19/b.parquet": "events/meter=gone/",
    "events/meter=%61ctive_users/date=2026-06-19/b.parquet": "events/meter=%61ctive_users/",
    "events/backup/b.parquet": "events/backup/",
}


def lake_with(folder: Path, path: str) -> tuple[Lake, Meter]:
    """A lake with one event in its place, and a file with another one at this path."""
    lake, meter = a_lake(folder)
    put(lake, meter, "a.parquet", event("a"))
    other = folder / path
    other.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(put(lake, meter, "b.parquet", event("b")), other)
    return lake, meter


def problems(lake: Lake, job: str) -> set[str]:
    with reported(lake, job) as report:
        {"nightly": nightly, "verify": verify}[job](lake, report)
    return {said["where"] for said in report.errors}


@pytest.mark.parametrize("path", STRAYS)
def test_a_stray_file_below_a_meter_is_named_and_not_counted(tmp_path: Path, path: str) -> None:
    lake, meter = lake_with(tmp_path, path)
    report = aggregated(lake)
    assert report.exit_code == 1
    assert [(said["what"], said["where"]) for said in report.errors] == [("stray file", path)]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert lake.events(meter.name).collect().height == 1
    assert recomputed(aggregated(lake)) == {}
    assert [said["where"] for said in status(lake, runs=0).all_problems] == [path]
    assert problems(lake, "verify") == {path}


@pytest.mark.parametrize("path", HIDDEN)
def test_hidden_files_and_folders_are_passed_over(tmp_path: Path, path: str) -> None:
    lake, meter = lake_with(tmp_path, path)
    report = aggregated(lake)
    assert (report.exit_code, report.errors) == (0, [])
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert status(lake, runs=0).all_problems == []
    assert problems(lake, "verify") == set()


@pytest.mark.parametrize(("path", "named"), OUTSIDE.items())
def test_event_files_in_no_meters_folder_are_named(tmp_path: Path, path: str, named: str) -> None:
    lake, meter = lake_with(tmp_path, path)
    report = aggregated(lake)
    assert (report.exit_code, [said["where"] for said in report.errors]) == (1, [named])
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert problems(lake, "nightly") == problems(lake, "verify") == {named}
    assert aggregated(lake, meter=meter.name).errors == []
    found = status(lake, runs=0)
    undefined = [each.meter for each in found.undefined]
    assert undefined == ["gone"] or [said["where"] for said in found.all_problems] == [named]


def test_files_of_a_broken_meter_are_not_taken_for_those_of_none(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    lake.storage.publish(paths.meter_definition(meter.name), b"no JSON")
    assert [said["where"] for said in aggregated(lake).errors] == [paths.meter_definition(meter.name)]


def test_an_aggregate_that_was_copied_elsewhere_below_its_meter_does_not_count(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    for table in paths.TABLES:
        source = tmp_path / paths.aggregate(table, meter.name, DAY)
        (copy := tmp_path / paths.aggregates(table, meter.name) / "backup" / PARTITION).mkdir(parents=True)
        shutil.copy(source, copy)
        shutil.copy(source, source.with_name("copy.parquet"))
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert lake.totals(meter.name).collect()["events"].to_list() == [1]
    assert len(problems(lake, "verify")) == 2 * len(paths.TABLES)


def test_sealed_winners_that_were_copied_elsewhere_do_not_count(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    old = DAY - dt.timedelta(days=9)
    put(lake, meter, "a.parquet", event("k", day=old), day=old)
    put(lake, meter, "b.parquet", event("k"))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=30))
    source = tmp_path / paths.sealed_winners(meter.name, old)
    winners = pl.read_parquet(source).with_columns(idempotency_key=pl.lit("c"))
    (copy := tmp_path / paths.sealed_winners(meter.name) / "backup" / source.parent.name).mkdir(parents=True)
    winners.write_parquet(copy / "part.parquet")
    winners.write_parquet(source.with_name("copy.parquet"))
    put(lake, meter, "c.parquet", event("c"))
    aggregated(lake)
    assert usage(lake, meter)[-1] == (DAY, "org_1", Decimal(1))
