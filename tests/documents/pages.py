"""The documents as the tests read them: pages, their blocks, and the command lines that the help shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import typer

from jobs.cli import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A comment before a block says what keeps it from being run: why at all, or which package it needs.
BLOCK = re.compile(
    r"(?:^<!-- (?P<kind>not run|needs): (?P<note>[^\n]+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$(?:\n\n^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A fenced block of a page, and the output right below it; `needs` is a package without which it can't be run."""

    language: str
    text: str
    output: str
    skipped: str | None
    needs: str | None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(
            match["language"],
            match["text"],
            match["output"] or "",
            match["note"] if match["kind"] == "not run" else None,
            match["note"] if match["kind"] == "needs" else None,
        )
        for match in BLOCK.finditer(page.read_text())
    ]


def commands(script: str) -> list[str]:
    """The commands of a script: each a line, however it was broken, or a here-document with the line above it."""
    script = re.sub(r"\\\n\s*", "", script)
    found = re.finditer(r"^[^\n]*<<'(\w+)'\n.*?^\1$|^[^\n#][^\n]*$", script, re.DOTALL | re.MULTILINE)
    return [match[0] for match in found]


def of_help() -> list[str]:
    """The command lines below every `--help`."""
    lines = []
    root: Any = typer.main.get_command(app.app)
    found = [root, *root.commands.values()]
    found += [inner for command in found[1:] for inner in getattr(command, "commands", {}).values()]
    for command in found:
        first, *examples = command.epilog.removeprefix("\b\n").splitlines()
        assert first in {"Example:", "Examples:"}, command.name
        lines += commands("\n".join(line.removeprefix("  ") for line in examples))
    return lines
