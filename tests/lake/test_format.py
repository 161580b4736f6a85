"""The format of a lake: jobs that write bring it up to this version's before anything else, and readers leave it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli import app
from lake import Lake, paths
from lake.lake import FORMAT
from lake.storage import LocalStorage, StoredFile
from lake.storage.leased_storage import leased
from schemas.errors import BrokenLakeError
from support import DAY, METER, a_lake, aggregated, event, put

EARLIER = b'{"meterlake": 1}\n'
CURRENT = b'{"meterlake": 2}\n'
WRITING = [
    "aggregate",
    "retain",
    "nightly",
    "compact",
    "export --period 2026-06",
    "land {file}",
    "meter add {meter}",
]
READING = [
    "status",
    "verify",
    "query --meter active_users --from 2026-06-01 --to 2026-07-01",
    "values --meter active_users --dimension plan",
    "report --out {page}",
    "meter list",
    "meter show active_users",
    "retain --dry-run",
    "compact --dry-run",
    "init",
]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake of format 1 with an event that is aggregated, and one that is not."""
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    put(lake, meter, "b.parquet", event("b"))
    lake.storage.publish(paths.MARKER, EARLIER)
    return Lake(lake.url)


@pytest.fixture
def run(lake: Lake, tmp_path: Path) -> Callable[[str], int]:
    line = {"idempotency_key": "c", "subject": "org_1", "meter": METER["name"], "quantity": 1}
    (tmp_path / "events.jsonl").write_text(json.dumps(line | {"timestamp": f"{DAY}T12:00:00Z"}) + "\n")
    (tmp_path / "meter.json").write_text(json.dumps(METER | {"name": "seats"}))

    def command(line: str) -> int:
        words = line.format(
            file=tmp_path / "events.jsonl", meter=tmp_path / "meter.json", page=tmp_path / "page.html"
        )
        return app.run(["--lake", lake.url, *words.split()])

    return command


def marker(lake: Lake) -> bytes | None:
    return lake.storage.read(paths.MARKER)


def test_init_makes_this_versions_format(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    assert (marker(lake), lake.format) == (CURRENT, FORMAT)


@pytest.mark.parametrize("command", WRITING)
def test_every_job_that_writes_brings_the_format_up(
    lake: Lake, run: Callable[[str], int], command: str
) -> None:
    assert run(command) in {0, 1}
    assert marker(lake) == CURRENT


@pytest.mark.parametrize("command", READING)
def test_what_only_reads_leaves_the_format(lake: Lake, run: Callable[[str], int], command: str) -> None:
    run(command)
    assert marker(lake) == EARLIER


@pytest.mark.parametrize("command", WRITING[:5])
def test_a_job_that_does_not_get_the_lease_leaves_the_format(
    lake: Lake, run: Callable[[str], int], command: str
) -> None:
    with leased(lake.storage, "another"):
        assert run(command) == 1
    assert marker(lake) == EARLIER


@pytest.mark.parametrize("command", [*WRITING, *READING])
@pytest.mark.parametrize("later", [b'{"meterlake": 3}\n', b'{"meterlake": 3, "more": []}'])
def test_a_later_format_is_refused_and_nothing_written(
    lake: Lake, run: Callable[[str], int], command: str, later: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.storage.publish(paths.MARKER, later)
    before = lake.storage.list("")
    assert run(command) == 3
    assert "upgrade meterlake" in capsys.readouterr().err
    assert lake.storage.list("") == before


def test_a_newer_program_that_was_faster_is_not_undone(lake: Lake) -> None:
    lake.storage.publish(paths.MARKER, b'{"meterlake": 3}\n')
    with pytest.raises(BrokenLakeError, match="found format 3"):
        lake.upgrade()
    assert marker(lake) == b'{"meterlake": 3}\n'


class _Recording(LocalStorage):
    """A storage that notes the paths that are written, in their order."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.written: list[str] = []

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        self.written.append(path)
        return super().publish_file(path, local, keep=keep)

    def delete(self, path: str) -> None:
        self.written.append(path)
        super().delete(path)


def test_nothing_is_written_before_the_format(lake: Lake) -> None:
    storage = _Recording(lake.url)
    aggregated(lake.over(storage))
    assert storage.written[0] == paths.MARKER
    assert storage.written.count(paths.MARKER) == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"meterlake": true}', b'{"meterlake": 0}', b"\xff", b"[" * 99_999]
)
def test_what_is_no_marker_is_refused(lake: Lake, body: bytes) -> None:
    lake.storage.publish(paths.MARKER, body)
    with pytest.raises(BrokenLakeError, match="another program or version"):
        Lake(lake.url)
