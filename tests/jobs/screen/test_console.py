"""The command line on screens of every kind: narrow and wide, without colour, without Unicode, with hostile names."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from jobs.cli import app
from lake import Lake
from support import ROOT, a_lake, aggregated, event, put

# All 38 digits, and room for a little more in their sum.
# Of one event; a sum may have nine digits more.
LARGEST = "1" + "2" * 19 + "." + "3" * 9
RIGHT_TO_LEFT = "שלום"
NAMES = {
    "a" * 230,
    "日本語メーター",
    RIGHT_TO_LEFT,
    "\x1b[31mred\x07",
    "e" + "\u0301" * 60,
    "👩‍🚀🇩🇪",
}
JUNE = ("--from", "2026-06-01", "--to", "2026-07-01")
COMMANDS = [
    ["status"],
    ["meter", "list"],
    ["retain", "--dry-run", "--as-of", "2026-12-31"],
    ["values", "--meter", "a" * 230, "--dimension", "plan"],
    ["query", "--meter", "a" * 230, *JUNE, "--group-by", "plan,subject"],
    ["query", "--meter", "a" * 230, *JUNE, "--bucket", "none", "--measures"],
    ["nightly", "--as-of", "2026-06-30"],
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of names and numbers that would break a careless table."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in sorted(NAMES):
        lake, meter = a_lake(folder, name=name, aggregation="max")
        put(
            lake,
            meter,
            "a.parquet",
            event("a", quantity=LARGEST, plan="\x1b]0;title\x07" + "p" * 400),
            event("b", subject="s" * 128, quantity="0.000000001", plan="שלום"),
        )
    lake = Lake(str(folder))
    aggregated(lake)
    return lake


@pytest.fixture
def meterlake(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    def run(width: int, *arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        assert app.run(["--lake", lake.url, *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2])[:20])
def test_every_answer_fits(meterlake: Callable[..., str], width: int, command: list[str]) -> None:
    out = meterlake(width, *command)
    lines = [
        line for line in out.splitlines() if not line.startswith(("lake /", "report: ", "wrote exports/"))
    ]
    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in out
    assert "\x07" not in out
    if command[0] == "query":
        assert LARGEST in out
    if "subject" in command[-1]:
        assert "0.000000001" in out


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}],
    ids=str,
)
def test_a_locale_of_ascii_alone(lake: Lake, environment: dict[str, str]) -> None:
    def run(*arguments: str) -> bytes:
        command = [sys.executable, "-m", "jobs.cli", "--lake", lake.url, *arguments]
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        said = {**inherited, "COLUMNS": "80", "PYTHONPATH": str(ROOT), **environment}
        ran = subprocess.run(command, env=said, capture_output=True, check=True)
        assert ran.stderr == b""
        return ran.stdout

    status = run("status").decode("ascii")
    assert max(map(len, status.splitlines()[1:])) <= 80
    assert re.search(r"\\u65e5\S*  +#", status)
    # JSON is UTF-8 wherever it goes.
    names = {each["meter"] for each in json.loads(run("status", "--json").decode())["meters"]}
    assert names == NAMES


def on_a_terminal(arguments: list[str], **environment: str) -> str:
    """What a command writes to a terminal of 80 columns."""
    screen, terminal = pty.openpty()
    said = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm", **environment}
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    with subprocess.Popen(command, env=said, stdout=terminal, stderr=terminal, stdin=terminal) as process:
        os.close(terminal)
        parts = []
        # The end of a terminal is told as an error.
        try:
            while part := os.read(screen, 65536):
                parts.append(part)
        except OSError:
            pass
    os.close(screen)
    assert process.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_a_terminal_gets_bold_headings_and_nothing_that_names_bring_along(lake: Lake) -> None:
    shown = on_a_terminal(["--lake", lake.url, "status"])
    assert "\x1b[1mmeter " in shown
    assert set(re.findall(r"\x1b[^m]*m", shown)) == {"\x1b[1m", "\x1b[0m"}
    assert f"\u2068{RIGHT_TO_LEFT}\u2069" in shown
    dumb = on_a_terminal(["--lake", lake.url, "status"], TERM="dumb")
    assert "\x1b" not in dumb
    colours = re.findall(r"\x1b\[[34]\d", on_a_terminal(["--lake", lake.url, "status"], NO_COLOR="1"))
    assert colours == []


def test_what_is_written_to_a_file_has_no_codes_of_a_terminal(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    asked = ["query", "--meter", "日本語メーター", *JUNE, "--output", str(file)]
    on_a_terminal(["--lake", lake.url, *asked])
    assert "日本語メーター: max of user\n" in file.read_text()
    assert "\x1b" not in file.read_text()
