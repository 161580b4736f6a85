"""The command lines that the README and the help show, for the tests that run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from jobs.cli import app

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


class Shown(NamedTuple):
    """A command line of the README, where it stands, and the output below it."""

    section: str
    command: str
    output: str


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The README's blocks of a language, each with the heading above it."""
    section = ""
    pattern = rf"^#+ (?P<heading>[^\n]+)$|^```{language}\n(?P<block>.*?)^```$|^```.*?^```$"
    for match in re.finditer(pattern, TEXT, re.DOTALL | re.MULTILINE):
        section = match["heading"] or section
        if match["block"]:
            yield section, match["block"]


def of_readme() -> list[Shown]:
    return [
        Shown(section, re.sub(r"\\\n\s*", "", command), output)
        for section, block in blocks("console")
        for command, output in re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def of_help() -> list[str]:
    root: Any = typer.main.get_command(app.app)
    commands = [root, *root.commands.values()]
    commands += [sub for command in commands[1:] for sub in getattr(command, "commands", {}).values()]
    found = []
    for command in commands:
        first, *lines = command.epilog.removeprefix("\b\n").splitlines()
        assert first in {"Example:", "Examples:"}, command.name
        found += re.sub(r"\\\n\s*", "", "\n".join(line.removeprefix("  ") for line in lines)).splitlines()
    return found


def indented() -> list[str]:
    """The commands in the README's blocks without a language, without their comments."""
    lines = re.findall(r"(?m)^    (make .+|meterlake .+)$", TEXT)
    return [line.partition("#")[0].strip() for line in lines]
