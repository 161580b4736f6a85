"""Every help reads as a person would write it: no notation of the library's types and ranges, no line over the screen."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from docs.generate import commands
from jobs.cli import lake
from jobs.cli.app import run

COMMANDS = list(commands())


def shown(*arguments: str) -> tuple[int, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
        return run(arguments), out.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_notation_of_types_and_ranges(command: str) -> None:
    code, text = shown(*command.split(), "--help")
    assert code == 0
    described = text.split("Example")[0]
    assert re.findall(r"<[a-z|]+|[{}]|x[<>]=|\blist\[", described) == []
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "usage", "argument"),
    [
        ("land", "land [OPTIONS] FILE...", "  FILE...  Files of events"),
        ("meter show", "meter show [OPTIONS] NAME", "  NAME  The meter's name."),
        ("demo", "demo [OPTIONS] [FOLDER]", "  [FOLDER]  Where to make the lake"),
    ],
)
def test_help_names_arguments_as_manuals_do(command: str, usage: str, argument: str) -> None:
    _, text = shown(*command.split(), "--help")
    assert text.startswith(f"Usage: meterlake {usage}\n")
    assert argument in text


@pytest.mark.parametrize(
    ("arguments", "span"),
    [
        (["status", "--runs", "-1"], "of at least 0"),
        (["query", "--rolling", "367"], "from 1 to 366"),
        (["query", "--top", "1.5"], "of at least 1"),
        (["report", "--days", "many"], "from 1 to 3660"),
    ],
)
def test_a_number_out_of_range_is_wrong_usage_said_in_words(arguments: list[str], span: str) -> None:
    code, text = shown(*arguments)
    assert code == 2
    assert f"expected a whole number {span}, found '{arguments[-1]}'" in text


@pytest.mark.parametrize(
    ("called", "on_path", "printed"),
    [
        (".venv/bin/meterlake", False, ".venv/bin/meterlake"),
        ("{here}/.venv/bin/meterlake", False, ".venv/bin/meterlake"),
        ("{here}/.venv/bin/meterlake", True, "meterlake"),
        ("{here}/jobs/cli/__main__.py", False, f"{sys.executable} -m jobs.cli"),
    ],
)
def test_the_demo_names_the_program_as_the_shell_can_call_it(
    called: str, on_path: bool, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "meterlake"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [called.format(here=tmp_path), "demo"])
    monkeypatch.setenv("PATH", str(program.parent) if on_path else "/usr/bin")
    assert lake._called() == printed
