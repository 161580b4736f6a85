"""How the command line shows meters with `series`, `carry_days` and `unique`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import app
from lake import Lake
from support import a_lake, define

DIMENSIONS = [{"name": name, "type": "string"} for name in ("workspace", "user")]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake, _ = a_lake(tmp_path / "lake", name="plain")
    gauge = {"aggregation": "last", "dimensions": DIMENSIONS}
    define(lake, name="seats", series=["workspace"], carry_days=31, **gauge)
    define(lake, name="users", aggregation="unique_count", unique="user", dimensions=DIMENSIONS)
    return lake


def printed(lake: Lake, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["--lake", lake.url, *arguments]) == 0
    return capfd.readouterr().out


def test_a_list_tells_what_is_added_and_counted(lake: Lake, capfd: pytest.CaptureFixture[str]) -> None:
    lines = printed(lake, capfd, "meter", "list").splitlines()
    assert "last by subject, workspace" in lines[2]
    assert "unique_count of user" in lines[3]


def test_a_meter_is_shown_with_its_series(lake: Lake, capfd: pytest.CaptureFixture[str]) -> None:
    shown = printed(lake, capfd, "meter", "show", "seats")
    assert "series: subject and workspace, whose levels are added; a silent one" in shown
    assert "keeps its last level for 31 days" in shown.replace("\n", " ")
    assert "the distinct values of user are counted" in printed(lake, capfd, "meter", "show", "users")


@pytest.mark.parametrize("name", ["plain", "seats", "users"])
def test_json_is_a_definition_again(lake: Lake, capfd: pytest.CaptureFixture[str], name: str) -> None:
    body: dict[str, Any] = json.loads(printed(lake, capfd, "--json", "meter", "show", name))
    changes = {field: value for field, value in body.items() if value is not None}
    assert define(lake, **changes) == lake.meter(name)
    assert ("series" in body, "unique" in body) == (name == "seats", name == "users")
