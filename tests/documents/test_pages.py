"""Every snippet of the documents runs, page by page, and prints what the page says; so do the examples of every help."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from demo_lake import demo_folder
from documents.pages import PAGES, README, blocks, name_of, of_help
from documents.running import Reader
from support import METER, a_lake, aggregated, event, put

RUN = {"sh", "python", "sql"}
NOT_RUN = {
    "meterlake --lake s3://our-bucket/usage nightly": "tests/storage/test_command_line.py runs it on a server",
    "meterlake demo": "makes the lake of every page, and what it prints is compared with the README",
    "meterlake demo /tmp/try-meterlake": "the same elsewhere",
    "meterlake --lake /srv/usage-lake nightly --wait --json": "the same as `nightly`, on a folder of another machine",
}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program, a demo lake, and what the demo printed."""
    return demo_folder(tmp_path_factory)


@pytest.fixture
def reader(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader in a folder with a demo lake: links to one, since jobs replace files and know them by their inodes."""
    subprocess.run(["cp", "-al", demo / "demo-lake", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("METERLAKE_LAKE", "")  # so that what a page exports is taken back
    monkeypatch.delenv("METERLAKE_LAKE")
    return Reader(tmp_path, demo / "meterlake")


def test_the_demo_prints_what_the_readme_shows(demo: Path) -> None:
    shown = README.read_text().split("<!-- demo -->\n")[1].split("<!-- /demo -->")[0]
    printed = (demo / "printed").read_text()
    for part in re.split(r"(?m)^…\n", shown.removeprefix("```text\n").removesuffix("```\n")):
        assert part in printed


def test_the_commands_that_the_demo_prints_run_and_do_not_age(demo: Path, reader: Reader) -> None:
    found = re.findall(r"(?m)^  (.+ --lake demo-lake .+)$", (demo / "printed").read_text())
    program, _, _ = found[0].partition(" --lake")
    first, *others = found
    assert "error" not in reader.paste("sh", first)
    for command in others:  # in this process, which is faster
        assert "error" not in reader.paste("sh", command.replace(program, "meterlake", 1))
    assert [command.endswith(" --as-of 2026-06-30") for command in found] == [True] * 3


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in RUN for b in blocks(page))], ids=name_of
)
def test_a_page_runs_and_prints_what_it_says(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        if block.language not in RUN or block.skipped or (block.needs and not find_spec(block.needs)):
            continue
        printed = reader.steady(reader.paste(block.language, block.text))
        for part in re.split(r"(?m)^…$", block.output):
            assert reader.steady(part) in printed, f"{block.text}\nprints now:\n{printed}"


def test_the_command_lines_of_every_help_run(reader: Reader, tmp_path: Path) -> None:
    dimensions = [{"name": name, "type": "string"} for name in ("plan", "workspace", "role", "source")]
    active_users = METER | {"dimensions": dimensions, "event_retention_days": 180}
    (tmp_path / "active_users.json").write_text(json.dumps(active_users))
    (tmp_path / "seats.json").write_text(json.dumps(METER | {"name": "seats"}))
    usage = {
        "subject": "org_123",
        "meter": "active_users",
        "quantity": 1,
        "timestamp": "2026-06-19T10:00:00Z",
    }
    metadata = {name["name"]: "x" for name in dimensions}
    (tmp_path / "usage.jsonl").write_text(json.dumps(usage | {"idempotency_key": "a", "metadata": metadata}))
    subprocess.run(["gzip", "-k", "usage.jsonl"], check=True)
    pl.DataFrame([usage | metadata]).write_parquet(tmp_path / "more.parquet")
    lake, meter = a_lake(tmp_path / "usage-lake", **active_users)
    put(lake, meter, "a.parquet", event("b", workspace="w", role="admin", source="api"))
    aggregated(lake)
    lines = of_help()
    assert len(lines) >= 20
    assert NOT_RUN.keys() <= set(lines)
    reader.paste("sh", "export METERLAKE_LAKE=usage-lake")
    for line in lines:
        if line not in NOT_RUN:
            reader.paste("sh", line)
