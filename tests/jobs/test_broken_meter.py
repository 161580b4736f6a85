"""A meter whose definition or state is broken: it is told, the other meters are handled, and it can be mended."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import app
from lake import Lake, paths
from lake.meters import save_meter
from schemas.errors import BrokenLakeError, RefusedError
from schemas.meter import Meter
from support import DAY, a_lake, aggregated, event, put, usage

Broken = Callable[[Lake], str]


def definition(lake: Lake) -> str:
    path = paths.meter_definition("broken")
    lake.storage.publish(path, b"{")
    return path


def state(lake: Lake) -> str:
    path = paths.state("broken")
    lake.storage.publish(path, b"{")
    return path


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with three meters that have new events; the one of this name is sound until a test breaks it."""
    for name in ("active_users", "broken", "seats"):
        lake, meter = a_lake(tmp_path / "lake", name=name)
        put(lake, meter, "a.parquet", event("a"))
    return lake


@pytest.fixture
def meterlake(lake: Lake, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    def run(*arguments: str) -> tuple[int, Any]:
        code = app.run(["--lake", lake.url, *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("broken", [definition, state])
def test_a_night_does_the_other_meters(
    lake: Lake, meterlake: Callable[..., tuple[int, Any]], broken: Broken
) -> None:
    where = broken(lake)
    code, night = meterlake("nightly", "--as-of", "2026-06-20")
    assert code == 3
    assert [said["where"] for said in night["errors"]] == [where]
    assert [partition["meter"] for partition in night["partitions"]] == ["active_users", "seats"]
    made = [(each["meter"], each["period"]) for each in night["exports"] if each["action"] == "exported"]
    assert made == [("active_users", "2026-06"), ("seats", "2026-06")]
    code, dropped = meterlake("retain", "--as-of", str(DAY + dt.timedelta(days=31)))
    assert (code, [each["meter"] for each in dropped["partitions"]]) == (3, ["active_users", "seats"])


@pytest.mark.parametrize("broken", [definition, state])
def test_a_job_on_the_broken_meter_fails_and_on_another_does_not(
    lake: Lake, meterlake: Callable[..., tuple[int, Any]], broken: Broken
) -> None:
    broken(lake)
    assert meterlake("aggregate", "--meter", "broken")[0] == 3
    assert meterlake("aggregate", "--meter", "seats")[0] == 0


def test_the_list_and_an_export_have_the_other_meters(
    lake: Lake, meterlake: Callable[..., tuple[int, Any]]
) -> None:
    aggregated(lake)
    definition(lake)
    code, listed = meterlake("meter", "list")
    assert (code, [meter["name"] for meter in listed["meters"]]) == (3, ["active_users", "seats"])
    assert listed["problems"][0]["kind"] == "broken lake"
    code, exported = meterlake("export", "--period", "2026-06")
    assert (code, [each["meter"] for each in exported["exports"]]) == (3, ["active_users", "seats"])
    # Nor does a broken one hide the names of those that there are.
    code, unknown = meterlake("meter", "show", "nope")
    assert (code, unknown["error"]["expected"]) == (1, "one of 'active_users', 'broken', 'seats'")


def test_a_broken_definition_is_mended_by_adding_it_again(lake: Lake) -> None:
    before = lake.meter("broken")
    aggregated(lake)
    definition(lake)
    with pytest.raises(RefusedError, match="unit can't be changed"):
        save_meter(lake.storage, Meter(name="broken", unit="other", dimensions=before.dimensions))
    assert save_meter(lake.storage, before) == "changed"
    assert lake.meter("broken") == before
    assert len(usage(lake, before)) == 1


def test_a_broken_definition_that_nothing_else_tells_is_not_replaced(lake: Lake) -> None:
    before = lake.meter("broken")
    definition(lake)
    with pytest.raises(BrokenLakeError, match="not a meter definition") as raised:
        save_meter(lake.storage, before)
    assert raised.value.hint.startswith("restore the file from a backup")


@pytest.mark.parametrize("broken", [definition, state])
def test_aggregate_does_the_other_meters(
    lake: Lake, meterlake: Callable[..., tuple[int, Any]], broken: Broken
) -> None:
    where = broken(lake)
    code, run = meterlake("aggregate")
    assert code == 3
    assert [said["where"] for said in run["errors"]] == [where]
    assert {said["meter"] for said in run["partitions"]} == {"active_users", "seats"}
