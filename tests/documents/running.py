"""Blocks of the documents are run here as a reader runs them, and what they print is made comparable."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb

from documents.pages import ROOT, commands
from jobs.cli import app

# What needs no shell: most of all, and much faster in this process.
SIMPLE = re.compile(r"(meterlake|export) [^|<>;&$]*")
PROGRAM = re.compile(r"python - <<'EOF'\n(.*)\nEOF", re.DOTALL)
# What is different each time, or on another machine.
VARYING = [
    (r"\d{8}T\d{6}\.\d{6}Z", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"[\d.]+ (kB|bytes)\b", "SIZE"),
    (r"\b[\d.]+ (s|d|h|min)\b", "SPAN"),
    (r"(?m)^(TIME +\w+ +\w+ +)[\d.]+", r"\1SECONDS"),
    (r"[ ]+", " "),
]
# Progress of what takes longer than two seconds, which depends on the machine.
PROGRESS = re.compile(r"(?m)^\S+Z (aggregate|verify|compact) .* after \d+ s\n")


class Reader:
    """Somebody who pastes the blocks of one page, one after the other, in one folder."""

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder = folder
        self._path = os.pathsep.join(
            [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        self._names: dict[str, Any] = {}

    def paste(self, language: str, text: str) -> str:
        """Run a block; returns what is then on the screen."""
        run = {
            "sh": self._shell,
            "python": lambda snippet: run_python(snippet, self._names),
            "sql": lambda sql: f"{duckdb.sql(sql)}\n",
        }[language]
        return PROGRESS.sub("", run(text))

    def _shell(self, script: str) -> str:
        return "".join(map(self._statement, commands(script)))

    def _statement(self, statement: str) -> str:
        if SIMPLE.fullmatch(statement):
            return self._command(statement)
        program = PROGRAM.fullmatch(statement)
        return run_python(program[1], {}) if program else self._bash(statement)

    def _bash(self, script: str) -> str:
        ran = subprocess.run(
            ["bash", "-c", f"set -o pipefail\n{script}"],
            env={**os.environ, "PATH": self._path, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode in ({0, 1} if _refused(ran.stdout) else {0}), f"{script}\n{ran.stdout}"
        return ran.stdout

    def _command(self, line: str) -> str:
        program, *words = shlex.split(line)
        if program == "export":
            os.environ.update(word.split("=", 1) for word in words)
            return ""
        screen = io.BytesIO()
        both = io.TextIOWrapper(screen, encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
            code = app.run(words)
        printed = screen.getvalue().decode()
        assert code == (1 if _refused(printed) else 0), f"{line} ended with {code}: {printed}"
        return printed

    def steady(self, printed: str) -> str:
        """Return what is printed with a sign for each thing that differs from run to run."""
        printed = printed.replace(str(self._folder), "/home/you")
        for pattern, sign in VARYING:
            printed = re.sub(pattern, sign, printed)
        return "\n".join(line.rstrip() for line in printed.strip().splitlines())


def run_python(snippet: str, names: dict[str, Any]) -> str:
    """Run a snippet; returns what it prints. A last line that is an expression is shown, as a prompt or a notebook does."""
    body = ast.parse(snippet).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        exec(compile(ast.Module(body, []), "snippet", "exec"), names)  # noqa: S102
        shown = eval(ast.unparse(last), names) if last else None  # noqa: S307
    return screen.getvalue() + (f"{shown}\n" if shown is not None else "")


def program(folder: Path) -> Path:
    """Write the program `meterlake` into a folder, of this source."""
    file = folder / "meterlake"
    file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jobs.cli "$@"\n')
    file.chmod(0o755)
    return file


def _refused(printed: str) -> bool:
    return "error: " in printed or re.search(r"(?m)^quarantined \d", printed) is not None
