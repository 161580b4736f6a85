"""Meters on the command line: added, changed, listed, shown."""

import io
import json
import sys
from pathlib import Path

import pytest

from commands import METER, Ran, Run, definition
from lake import Lake


def test_meters_are_added_changed_and_left(meterlake: Run, lake: Path, tmp_path: Path) -> None:
    seats, users = definition(tmp_path, series=[]), definition(tmp_path, name="users", series=[])
    ran = meterlake("meter", "add", seats, users)
    assert ran == Ran(0, "added      seats  (seats.json)\nadded      users  (users.json)\n", "")
    definition(tmp_path, description="new", series=[])
    ran = meterlake("meter", "add", seats, users)
    assert ran == Ran(0, "changed    seats  (seats.json)\nunchanged  users  (users.json)\n", "")
    assert Lake(str(lake)).meter("seats").description == "new"


@pytest.mark.usefixtures("lake")
def test_a_bad_file_does_not_stop_the_others(meterlake: Run, tmp_path: Path) -> None:
    (tmp_path / "typo.json").write_text('{"name": "x", "untit": "y"}')
    (tmp_path / "folder").mkdir()
    files = ["typo.json", "missing.json", "folder", definition(tmp_path, series=[])]
    ran = meterlake("meter", "add", *files)
    assert (ran.code, ran.out) == (1, "added      seats  (seats.json)\n")
    unreadable = "could not read this file: expected a JSON file with one meter definition, found"
    assert ran.err.splitlines() == [
        "error: typo.json: not a meter definition: Object contains unknown field `untit`",
        "hint: known fields: name, unit, description, aggregation, event_retention_days, dimensions, series, carry_days, unique",
        f"error: missing.json: {unreadable} No such file or directory",
        f"error: folder: {unreadable} Is a directory",
    ]
    found = meterlake("meter", "add", *files, "--json")
    assert found.code == 1
    assert [each["outcome"] for each in found.document["meters"]] == ["refused"] * 3 + ["unchanged"]
    assert found.document["meters"][0]["error"]["where"] == "typo.json"


@pytest.mark.usefixtures("lake")
def test_a_definition_from_stdin(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(METER).encode())))
    assert meterlake("meter", "add", "-").out == "added      seats  (standard input)\n"


def test_a_change_that_data_forbids_is_refused(meterlake: Run, lake: Path, tmp_path: Path) -> None:
    meterlake("meter", "add", definition(tmp_path))
    landed = lake / "events" / "meter=seats" / "date=2026-06-19" / "a.parquet"
    landed.parent.mkdir(parents=True)
    landed.write_bytes(b"")
    ran = meterlake("meter", "add", definition(tmp_path, unit="chair"))
    assert (ran.code, ran.out) == (1, "")
    assert "its unit can't be changed: expected seat, found chair" in ran.err
    assert "hint: define a new meter" in ran.err


@pytest.mark.usefixtures("lake")
def test_listing_meters(meterlake: Run, tmp_path: Path) -> None:
    assert "no meters yet" in meterlake("meter", "list").out
    assert meterlake("meter", "list", "--json").document == {"meters": []}
    meterlake(
        "meter", "add", definition(tmp_path, name="[red]ä\x1b[31m"), definition(tmp_path, name="b" * 100)
    )
    ran = meterlake("meter", "list")
    # A name is shown as it is, but does not steer the terminal; a long one is folded, not cut.
    assert "[red]ä\\x1b[31m" in ran.out
    assert ran.out.count("b") >= 100
    assert max(map(len, ran.out.splitlines())) <= 80
    assert [each["name"] for each in meterlake("meter", "list", "--json").document["meters"]] == [
        "[red]ä\x1b[31m",
        "b" * 100,
    ]


@pytest.mark.usefixtures("lake")
def test_showing_a_meter(meterlake: Run, tmp_path: Path) -> None:
    dimensions = [
        {"name": "plan", "type": "string", "display_name": "Plan", "description": "What they pay for"},
        {"name": "region", "type": "string", "required": False},
        {"name": "old", "type": "number", "deprecated": True},
    ]
    meterlake("meter", "add", definition(tmp_path, description="Seats", dimensions=dimensions))
    assert meterlake("meter", "show", "seats").out == (
        "seats: last of seat, raw events kept for 90 days\n"
        "Seats\n"
        "dimension  type    value       description\n"
        "plan       string  required    Plan: What they pay for\n"
        "region     string  optional\n"
        "old        number  deprecated\n"
    )
    (tmp_path / "again.json").write_text(meterlake("meter", "show", "seats", "--json").out)
    assert meterlake("meter", "add", "again.json").out.startswith("unchanged")


@pytest.mark.usefixtures("lake")
def test_showing_a_meter_that_is_not_there(meterlake: Run, tmp_path: Path) -> None:
    meterlake("meter", "add", definition(tmp_path))
    ran = meterlake("meter", "show", "seat")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: no meter 'seat' in this lake: expected one of 'seats'\nhint: ")
