"""The lake of the demo, which one process of a test run makes for all tests that read it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from documents.pages import ROOT
from documents.running import program
from once import once


def demo_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the program `meterlake`, the lake `demo-lake`, and what the demo `printed`."""
    return once(factory, "demo", _run_demo)


def _run_demo(folder: Path) -> None:
    ran = subprocess.run(
        [program(folder), "demo"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (folder / "printed").write_text(ran.stdout)
