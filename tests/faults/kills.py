"""Commands on a lake that are killed, or run to their end, whoever held the lease before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from jobs.cli import app
from lake import paths

ROOT = Path(__file__).parents[2]
DYING = Path(__file__).with_name("dying_command.py")
ENV = os.environ | {"PYTHONPATH": str(ROOT)}


def killed(lake: Path, seed: int | str, *arguments: object) -> None:
    """Kill a command at a random moment of its work, chosen by a seed."""
    release(lake)
    command = [sys.executable, str(DYING), str(lake), str(seed), *map(str, arguments)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode in {-signal.SIGKILL, -signal.SIGALRM}, done.stderr


def completed(lake: Path, *arguments: object) -> int:
    """Run a command to its end, in this process; gives its exit code."""
    release(lake)
    return app.run(["--lake", str(lake), *map(str, arguments)])


def release(lake: Path) -> None:
    """Remove the lease of a dead holder, which would hold the next command up for a minute."""
    for lease in (lake / paths.LEASE).glob("*.json"):
        lease.unlink()
