"""Write the help of every command into docs/reference/commands.md: `make docs`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import typer

from jobs.cli.app import app, run
from jobs.cli.options import PROGRAM

PAGE = Path(__file__).parent / "reference" / "commands.md"
MARK = "<!-- below: make docs -->\n"


def page(text: str) -> str:
    """Return a page with the help of every command below the mark."""
    return text.partition(MARK)[0] + MARK + "".join(map(_section, commands()))


def commands() -> Iterator[str]:
    """Yield the words that call each command, in the order of the help; the program itself has none."""
    yield ""
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        yield name
        yield from (f"{name} {inner}" for inner in getattr(command, "commands", {}))


def _section(command: str) -> str:
    os.environ["COLUMNS"] = "80"
    with redirect_stdout(io.StringIO()) as shown:
        run([*command.split(), "--help"])
    return f"\n## {command or PROGRAM}\n\n```text\n{shown.getvalue().rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
