"""Gauges whose subjects have several levels on one date are named everywhere, until their definition decides."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.cli import app
from jobs.run_report import RunReport
from jobs.verify.job import verify
from lake import Lake, paths
from lake.state.state_file import load_state, save_state
from support import DAY, a_lake, aggregated, define, event, put

NEXT = DAY + dt.timedelta(days=1)
SEATS: dict[str, Any] = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "dimensions": [{"name": "workspace", "type": "string", "required": False}],
}
NOTE = "meter 'seats' is ambiguous: on one date 2 subjects have several levels"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two subjects have several workspaces on the first date, one on the second."""
    lake, meter = a_lake(tmp_path / "lake", **SEATS)
    for day, subjects in [(DAY, ["org_a", "org_b"]), (NEXT, ["org_a"])]:
        rows = [event(f"{s} {w} {day}", s, "5", day, workspace=w) for s in subjects for w in ("x", "y")]
        put(lake, meter, "a.parquet", *rows, event(f"c {day}", "org_c", "1", day, workspace="x"), day=day)
    aggregated(lake)
    return lake


def subjects(lake: Lake) -> list[object]:
    return [each.ambiguous_subjects for each in load_state(lake.storage, "seats").partitions.values()]


COMMANDS = {
    "query": ["query", "--meter", "seats", "--from", "2026-06-01", "--to", "2026-07-01"],
    "aggregate": ["aggregate"],
    "export": ["export", "--period", "2026-06"],
    "nightly": ["nightly", "--as-of", "2026-07-02"],
    "status": ["status"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_it_with_the_greatest_number_and_ends_with_0(
    lake: Lake, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["--lake", lake.url, *COMMANDS[command]]) == 0
    shown = capfd.readouterr()
    assert NOTE in " ".join((shown.out + shown.err).split())
    assert 'set "series" in its definition' in " ".join((shown.out + shown.err).split())
    assert app.run(["--lake", lake.url, *COMMANDS[command], "--json"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert NOTE in said.out or '"ambiguous_subjects": 2' in said.out


def test_the_page_names_it(lake: Lake, tmp_path: Path) -> None:
    assert app.run(["--lake", lake.url, "report", "--out", str(tmp_path / "page.html")]) == 0
    assert "is ambiguous: on one date 2 subjects" in (tmp_path / "page.html").read_text()


def test_definitions_are_named_when_they_are_added(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    file = tmp_path / "meter.json"
    for body, is_named in [
        (SEATS, True),
        (SEATS | {"series": []}, False),
        (SEATS | {"aggregation": "sum"}, False),
    ]:
        file.write_text(json.dumps(body | {"name": f"m{len(body)}{body['aggregation']}"}))
        assert app.run(["--lake", lake.url, "meter", "add", str(file)]) == 0
        assert ("without series" in capfd.readouterr().err) == is_named


def test_its_months_can_not_be_closed_until_the_definition_decides(
    lake: Lake, capfd: pytest.CaptureFixture[str]
) -> None:
    close = ["--lake", lake.url, "export", "--period", "2026-06", "--close"]
    assert app.run(close) == 1
    assert "can't be closed while the gauge is ambiguous" in capfd.readouterr().err
    define(lake, **SEATS | {"series": ["workspace"]})
    aggregated(lake)
    assert app.run(close) == 0
    assert "ambiguous" not in capfd.readouterr().err
    assert subjects(lake) == [msgspec.UNSET] * 2


def test_a_gauge_with_one_level_a_subject_and_date_is_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lake, meter = a_lake(tmp_path / "lake", **SEATS)
    for day, workspace in [(DAY, "x"), (NEXT, "y")]:
        put(lake, meter, "a.parquet", event(f"{day}", "org_a", "5", day, workspace=workspace), day=day)
    aggregated(lake)
    assert subjects(lake) == [0, 0]
    assert app.run(["--lake", lake.url, "export", "--period", "2026-06", "--close"]) == 0
    assert "ambiguous" not in capfd.readouterr().err


def test_dates_of_an_earlier_version_are_counted_by_the_next_run(lake: Lake) -> None:
    state = load_state(lake.storage, "seats")
    state.partitions = {
        date: msgspec.structs.replace(record, ambiguous_subjects=msgspec.UNSET)
        for date, record in state.partitions.items()
    }
    save_state(lake.storage, "seats", state)
    aggregated(lake)
    assert subjects(lake) == [2, 1]
    report = RunReport(job="verify", started_at=dt.datetime.now(dt.UTC))
    verify(lake, report)
    assert report.errors == []
    shutil.rmtree(Path(lake.url) / paths.STATE)
    aggregated(lake)
    assert subjects(lake) == [2, 1]
