"""Every command line that the README and the help show: each is run, and what the README says it prints is what it prints."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from jobs.cli import app
from lake.checksums import write_stamped
from lake.state.records import METADATA_KEY
from shown import TEXT, blocks, indented, of_help, of_readme
from support import METER, a_lake, aggregated, event, put

ROOT = Path(__file__).parents[1]
# The lake that the blocks of a section are about: the one made under "Five minutes", or that of the demo.
LAKES = {
    "Install": "usage-lake",
    "Five minutes": "usage-lake",
    "Asking": "demo-lake",
    "A page to look at": "demo-lake",
    "Billing": "demo-lake",
    "Small files": "demo-lake",
    "Queries": "demo-lake",
    "Levels of series": "demo-lake",
    "Verification": "usage-lake",
}
NOT_RUN = {
    "python3 -m pip install -r requirements.lock": "`make setup` does it, and a test reaches no index",
    "python3 -m pip install --no-deps .": "`make setup` does it",
    "make demo": "makes an environment first; what it then runs is `meterlake demo`, which is",
    "make test": "is what runs this",
    "make notebooks": "needs the extra `notebooks`; their own tests run them",
    "meterlake --lake s3://our-bucket/usage nightly": "tests/storage/test_command_line.py runs it on a server",
    "meterlake demo": "runs once for this module, and is compared with the README",
    "meterlake demo /tmp/try-meterlake": "the same elsewhere",
    "meterlake --lake /srv/usage-lake nightly --wait --json": "the same as `nightly`, on a folder of another machine",
}
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
USAGE = {
    "idempotency_key": "active_org_123_user_456_2026_06_19",
    "subject": "org_123",
    "meter": "active_users",
    "quantity": 1,
    "timestamp": "2026-06-19T10:00:00Z",
    "metadata": {"plan": "enterprise", "workspace": "workspace_456", "role": "admin", "source": "dashboard"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the command lines name, and a demo lake."""
    folder = tmp_path_factory.mktemp("shown")
    dimensions = [{"name": name, "type": "string"} for name in ("plan", "workspace", "role", "source")]
    block = next(block for _, block in blocks("console") if "cat active_users.json" in block)
    (folder / "active_users.json").write_text(block.split("$ cat active_users.json\n")[1].split("$ ")[0])
    assert json.loads((folder / "active_users.json").read_text())["dimensions"] == dimensions
    (folder / "seats.json").write_text(json.dumps(METER | {"name": "seats"}))
    next_day = {"idempotency_key": "b", "timestamp": "2026-06-20T10:00:00Z"}
    events = [USAGE, USAGE, USAGE | next_day, USAGE | {"idempotency_key": "c", "subject": "org 123"}]
    lines = "".join(json.dumps(said) + "\n" for said in events)
    (folder / "usage.jsonl").write_text(lines)
    late = {"idempotency_key": "late", "subject": "org_acme", "timestamp": "2026-06-29T10:00:00Z"}
    (folder / "late.jsonl").write_text(json.dumps(USAGE | late))
    subprocess.run(["gzip", "-k", "usage.jsonl"], cwd=folder, check=True)
    more = [USAGE["metadata"] | {name: USAGE[name] for name in ("subject", "meter", "quantity", "timestamp")}]
    pl.DataFrame(more).write_parquet(folder / "more.parquet")
    program = folder / "bin" / "meterlake"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jobs.cli "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def demo(folder: Path) -> str:
    """What the demo prints; its lake is in the folder."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as environment:
        environment.setenv("COLUMNS", "80")
        return run("meterlake demo", folder)


def run(command: str, folder: Path) -> str:
    """Run a command line as a shell does; gives what a terminal then shows."""
    words = shlex.split(command, comments=False)
    if words[0] == "meterlake" and not set(command) & set("|<>;"):
        screen = io.BytesIO()
        both = io.TextIOWrapper(screen, encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
            code = app.run(words[1:])
        said = screen.getvalue().decode()
    else:
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        code, said = ran.returncode, ran.stdout
    told = "error: " in said or ": incomplete" in said
    assert code in ({1} if told else {0}), f"{command} ended with {code}: {said}"
    return PROGRESS.sub("", said)


def steady(said: str, folder: Path | None = None) -> str:
    said = said.replace(str(folder), "/home/you") if folder else said
    for pattern, text in VARYING:
        said = re.sub(pattern, text, said)
    return "\n".join(line.rstrip() for line in said.strip().splitlines())


def test_the_demo_prints_what_the_readme_shows(demo: str) -> None:
    shown = TEXT.split("<!-- demo -->\n")[1].split("<!-- /demo -->")[0]
    assert shown == f"```text\n{demo}```\n"


@pytest.mark.usefixtures("demo")
def test_the_readmes_command_lines_print_what_it_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("METERLAKE_LAKE", raising=False)
    found = of_readme()
    assert {shown.section for shown in found} == LAKES.keys()
    for section, command, output in found:
        if command in NOT_RUN:
            continue
        if command.startswith("export "):
            assert command == f"export METERLAKE_LAKE={LAKES[section]}"
            continue
        monkeypatch.setenv("METERLAKE_LAKE", LAKES[section])
        if section == "Verification":
            edit_a_row(folder)
        said = steady(run(command, folder), folder)
        for part in re.split(r"(?m)^…$", output):
            assert steady(part) in said, f"README, {section}: {command}\nprints now:\n{said}"


def edit_a_row(folder: Path) -> None:
    """Do what `verify` is to find: change a number in a table, as a program would that also signs the file."""
    file = folder / "usage-lake/aggregates/usage/meter=active_users/date=2026-06-20/part.parquet"
    metadata = {name: text for name, text in pl.read_parquet_metadata(file).items() if name == METADATA_KEY}
    df = pl.read_parquet(file, hive_partitioning=False)
    write_stamped(df.with_columns(pl.col("quantity") + 1), file, metadata)


def test_the_command_lines_of_every_help_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    definition = json.loads((folder / "active_users.json").read_bytes())
    lake, meter = a_lake(tmp_path / "usage-lake", **definition)
    put(lake, meter, "a.parquet", event("a", workspace="w", role="admin", source="api"))
    aggregated(lake)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METERLAKE_LAKE", "usage-lake")
    lines = of_help()
    assert len(lines) >= 20
    for line in lines:
        if line not in NOT_RUN:
            run(line, folder)


def test_what_is_not_run_is_shown_somewhere() -> None:
    shown = {*of_help(), *indented(), *(shown.command for shown in of_readme())}
    assert NOT_RUN.keys() <= shown
    assert set(indented()) <= NOT_RUN.keys()
