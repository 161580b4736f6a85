"""What one process of a test run makes for all: with several, the first makes it and the others wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_SECONDS = 200


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of this name that `make` has filled once in this test run. No test may change it."""
    root = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, done = root / name, root / f"{name}.done"
    try:
        folder.mkdir()
    except FileExistsError:
        until = time.monotonic() + PATIENCE_SECONDS
        while not done.exists():
            assert time.monotonic() < until, f"{name} was not made"
            time.sleep(0.1)
        return folder
    try:
        make(folder)
    finally:
        done.touch()
    return folder
