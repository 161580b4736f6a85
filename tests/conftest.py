"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from depth import PROFILE
from in_memory import FOLDER

if FOLDER:
    # Where pytest makes the folders of `tmp_path`.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", FOLDER)

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", settings.get_profile("ci"), derandomize=False, max_examples=5_000)
settings.load_profile(PROFILE)


def _empty_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder, in memory where there is room."""
    yield from _empty_folder()


@pytest.fixture(scope="session")
def scratch_of_session() -> Iterator[Path]:
    """As `scratch`, for what several tests use and none changes."""
    yield from _empty_folder()
