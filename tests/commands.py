"""What tests of the command line share: what a run printed, a definition as a file, and the program as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobs.aggregate import job as aggregate_job
from jobs.run_report import RunReport
from lake import Lake
from support import ROOT

METER = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "dimensions": [{"name": "plan", "type": "string"}],
}


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


def definition(tmp_path: Path, **fields: Any) -> str:
    path = tmp_path / f"{fields.get('name', 'seats')}.json"
    path.write_text(json.dumps(METER | fields))
    return path.name


def job(monkeypatch: pytest.MonkeyPatch, does: Callable[[Lake, RunReport], None]) -> None:
    """Put something else in the place of the aggregate job."""
    monkeypatch.setattr(aggregate_job, "aggregate", lambda lake, report, **_: does(lake, report))


def process(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, text=True, capture_output=True, check=False, env=environment, **more)
