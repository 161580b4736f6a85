"""A file of a table that is gone while the state is current: no answer passes it over, and a rebuild brings it back."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lake import Lake, paths
from schemas.errors import BrokenLakeError
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, event, put, retained, usage

NEXT = DAY + dt.timedelta(days=1)
AFTER = NEXT + dt.timedelta(days=1)


def a_filled_lake(folder: Path) -> tuple[Lake, Meter]:
    lake, meter = a_lake(folder)
    put(lake, meter, "a.parquet", event("a", plan="pro"))
    put(lake, meter, "b.parquet", event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    return lake, meter


def removed(lake: Lake, meter: Meter, table: str, day: dt.date = DAY) -> str:
    path = paths.aggregate(table, meter.name, day)
    (Path(lake.url) / path).unlink()
    return path


def answers(lake: Lake, meter: Meter, table: str) -> None:
    """Ask what is answered from a table."""
    by = {"usage": "plan", "usage_by_subject": "subject"}
    if table in by:
        lake.totals(meter.name, [by[table]])
        return
    lake.values(meter.name, "plan")


@pytest.mark.parametrize("table", paths.TABLES)
def test_an_answer_names_the_table_and_the_date_whose_file_is_gone(tmp_path: Path, table: str) -> None:
    lake, meter = a_filled_lake(tmp_path)
    path = removed(lake, meter, table)
    for ask in (lambda: answers(lake, meter, table), lambda: getattr(lake, table)(meter.name).collect()):
        with pytest.raises(BrokenLakeError) as raised:
            ask()
        said = raised.value.to_dict()
        assert (said["where"], said["found"]) == (path, f"none for {DAY}")
        assert said["hint"] == "run: meterlake aggregate --rebuild --meter 'active_users'"
    assert getattr(lake, table)(meter.name, NEXT, AFTER).collect()["date"].to_list()[0] == NEXT


def test_a_query_of_the_other_dates_is_answered(tmp_path: Path) -> None:
    lake, meter = a_filled_lake(tmp_path)
    for table in paths.TABLES:
        removed(lake, meter, table)
    assert lake.query(meter.name, NEXT, AFTER).collect()["events"].to_list() == [1]
    with pytest.raises(BrokenLakeError, match="rows of the table usage"):
        lake.query(meter.name, DAY, AFTER)


def test_a_rebuild_brings_the_table_of_an_open_date_back(tmp_path: Path) -> None:
    lake, meter = a_filled_lake(tmp_path)
    before = usage(lake, meter)
    removed(lake, meter, "usage_by_subject")
    assert aggregated(lake, rebuild=True).exit_code == 0
    assert usage(lake, meter) == before


def test_a_rebuild_names_the_table_of_a_sealed_date(tmp_path: Path) -> None:
    lake, meter = a_filled_lake(tmp_path)
    retained(lake, DAY + dt.timedelta(days=31))
    path = removed(lake, meter, "usage")
    report = aggregated(lake, rebuild=True)
    assert report.exit_code == 3
    assert [problem["where"] for problem in report.errors] == [path]
    assert report.errors[0]["hint"].startswith("restore the files of sealed dates from a backup")


def test_the_command_line_names_what_is_gone(tmp_path: Path) -> None:
    lake, meter = a_filled_lake(tmp_path)
    path = removed(lake, meter, "usage_by_dimension")
    command = [str(Path(sys.executable).with_name("meterlake")), "--lake", lake.url, "values", "--json"]
    options = ["--meter", meter.name, "--dimension", "plan"]
    asked = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert asked.returncode == 3
    assert json.loads(asked.stdout)["error"]["where"] == path


@pytest.mark.parametrize("gone", ["state", "events"])
def test_where_no_record_counts_events_nothing_is_missing(tmp_path: Path, gone: str) -> None:
    lake, meter = a_filled_lake(tmp_path)
    if gone == "state":
        (Path(lake.url) / paths.state(meter.name)).unlink()
        removed(lake, meter, "usage", NEXT)
    else:
        (Path(lake.url) / paths.events(meter.name, DAY) / "a.parquet").unlink()
        aggregated(lake)
    assert lake.usage(meter.name).collect().height == 1
