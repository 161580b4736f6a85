"""Shell completion: the scripts, and what each shell's protocol answers when it is asked as that shell asks."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lake import Lake
from lake.meters import save_meter
from schemas.meter import Meter
from support import ROOT

SHELLS = ["bash", "zsh", "fish"]
# Tests have no shell above them that could be asked which it is; with this the option takes its name.
NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


@pytest.fixture
def meterlake(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which `meterlake` can be called, in a home of its own."""
    program = tmp_path / "bin" / "meterlake"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jobs.cli "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    return {name: text for name, text in environment.items() if not name.startswith("METERLAKE_")}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    lake = Lake.init(str(tmp_path / "lake"))
    for name in ("active_users", "api.calls", "seats", "a name's $(spaces)"):
        save_meter(lake.storage, Meter(name=name, unit="user"))
    return tmp_path / "lake"


def asked(shell: str, environment: dict[str, str], line: str) -> set[str]:
    """What a shell would offer at the end of a command line."""
    words = line.split(" ")
    said = {
        "_METERLAKE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    ran = subprocess.run(
        ["meterlake"], env=environment | said, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stderr == ""
    if shell == "zsh":
        inside = ran.stdout.partition("((")[2].partition("))")[0]
        return {entry.split('"')[1] for entry in inside.splitlines()}
    return {entry.split("\t")[0] for entry in ran.stdout.splitlines() if entry}


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_choices_and_meters_are_offered(
    meterlake: dict[str, str], lake: Path, shell: str
) -> None:
    assert {"query", "land", "meter"} <= asked(shell, meterlake, "meterlake ")
    assert asked(shell, meterlake, "meterlake re") == {"report", "retain"}
    assert asked(shell, meterlake, "meterlake query --buck") == {"--bucket"}
    assert asked(shell, meterlake, "meterlake query --bucket mo") == {"month"}
    # Not one that would have to be quoted.
    of_lake = f"meterlake --lake {lake}"
    assert asked(shell, meterlake, f"{of_lake} query --meter ") == {"active_users", "api.calls", "seats"}
    here = meterlake | {"METERLAKE_LAKE": str(lake)}
    assert asked(shell, here, "meterlake meter show s") == {"seats"}


@pytest.mark.parametrize("lake", ["nowhere", "s3://no-such-bucket/usage", "gopher://x", ""])
def test_a_lake_that_cannot_be_asked_offers_nothing_and_says_nothing(
    meterlake: dict[str, str], lake: str
) -> None:
    assert asked("bash", meterlake | {"METERLAKE_LAKE": lake}, "meterlake aggregate --meter ") == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_shown_and_installed(meterlake: dict[str, str], tmp_path: Path, shell: str) -> None:
    def run(*arguments: str) -> str:
        return subprocess.run(
            ["meterlake", *arguments], env=meterlake | NAMED_SHELL, capture_output=True, text=True, check=True
        ).stdout

    assert f"_METERLAKE_COMPLETE=complete_{shell}" in run("--show-completion", shell)
    assert "completion installed in" in run("--install-completion", shell)
    installed = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert any(f"_METERLAKE_COMPLETE=complete_{shell}" in text for text in installed)


@pytest.mark.skipif(not shutil.which("bash"), reason="this system has no bash")
def test_bash_itself_completes_with_the_script(meterlake: dict[str, str], lake: Path) -> None:
    script = """
        eval "$(meterlake --show-completion bash)"
        COMP_WORDS=(meterlake --lake "$1" aggregate --meter ""); COMP_CWORD=5
        $(complete -p meterlake | sed -E 's/.*-F ([^ ]+).*/\\1/') meterlake
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    ran = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", str(lake)],
        env=meterlake | NAMED_SHELL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout.split(), ran.stderr) == (["active_users", "api.calls", "seats"], "")
