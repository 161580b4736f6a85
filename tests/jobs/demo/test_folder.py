"""The folder of a demo: only a demo is replaced by one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import Ran, Run
from lake import Lake
from support import ROOT


def demo_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put something small in the place of the demo; gives the folders it was asked for."""
    made: list[str] = []

    class Stub:
        @staticmethod
        def demo(folder: str, console: Any, program: str) -> dict[str, str]:  # noqa: ARG004
            made.append(folder)
            console.print("the demo")
            return {"lake": Lake.init(folder).url}

    monkeypatch.setitem(sys.modules, "jobs.demo.job", Stub)
    return made


def test_the_demo_replaces_only_a_demo(
    meterlake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = demo_of(monkeypatch)
    assert meterlake("demo") == Ran(0, "the demo\n", "")
    (tmp_path / "demo-lake" / "old").write_text("")
    assert meterlake("demo").code == 0
    assert not (tmp_path / "demo-lake" / "old").exists()
    (tmp_path / "empty").mkdir()
    assert meterlake("demo", "empty").code == 0
    assert made == ["demo-lake", "demo-lake", "empty"]


def test_the_demo_leaves_other_folders_alone(
    meterlake: Run, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = demo_of(monkeypatch)
    before = sorted(lake.rglob("*"))
    for target in (str(lake), str(lake / "lake.json")):
        ran = meterlake("demo", target)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"error: {target}: this is not a demo's folder")
        assert meterlake("demo", target, "--json").document["error"]["kind"] == "refused"
    assert sorted(lake.rglob("*")) == before
    assert made == []


def test_a_demo_whose_reader_has_left_is_made_to_its_end(tmp_path: Path) -> None:
    code = """
import sys, types
from lake import Lake
def demo(folder, console, program):
    for number in range(20000):
        console.print(f"line {number}")
    return {"lake": Lake.init(folder).url}
sys.modules["jobs.demo.job"] = types.SimpleNamespace(demo=demo)
from jobs.cli.app import main
main()
"""
    command = f"'{sys.executable}' -c '{code}' demo | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "line 0\n", "")
    assert Lake(str(tmp_path / "demo-lake")).meters() == []


def test_the_demo_as_json(meterlake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo_of(monkeypatch)
    ran = meterlake("demo", "--json")
    assert ran.document == {"lake": str(tmp_path / "demo-lake")}
    assert ran.err == "the demo\n"
