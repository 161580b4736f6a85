"""The lock of production: what Meterlake needs to run, in the versions that are tested, and nothing else."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def locked(name: str) -> dict[str, str]:
    """Return what a lock has of each package: version, marker and hashes."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / name).read_text())
    return {canonicalize_name(entry.split("==")[0]): entry for entry in re.split(r"\n(?=\S)", text.strip())}


def needed(requirement: Requirement, seen: set[str]) -> set[str]:
    """Return the names of a requirement and of all that it requires on this machine."""
    name = canonicalize_name(requirement.name)
    if name in seen:
        return seen
    seen.add(name)
    for extra in requirement.extras or {""}:
        for text in _required(name):
            inner = Requirement(text)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                needed(inner, seen)
    return seen


def _required(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []  # for another system


def test_production_has_all_that_the_project_requires_and_no_tool_of_its_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    production = locked("requirements.lock")
    required: set[str] = set()
    for text in project["dependencies"]:
        needed(Requirement(text), required)
    assert required <= production.keys(), "make lock"
    tools = {canonicalize_name(Requirement(text).name) for text in project["optional-dependencies"]["dev"]}
    assert tools & production.keys() == set()
    assert all("; sys_platform" in production[name] for name in production.keys() - required)


def test_production_has_the_versions_that_are_tested() -> None:
    tested = locked("requirements-dev.lock")
    assert {name: tested.get(name) for name in locked("requirements.lock")} == locked("requirements.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_a_hash_of_every_file(name: str) -> None:
    assert "://" not in (ROOT / name).read_text()
    assert [package for package, entry in locked(name).items() if "--hash=sha256:" not in entry] == []
