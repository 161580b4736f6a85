"""What a lake needs of its storage, on a local disk."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lake.storage import LocalStorage, open_storage
from schemas.errors import StorageError
from support import ROOT


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


@pytest.fixture
def locked(storage: LocalStorage) -> LocalStorage:
    """A lake whose events are below a file instead of a folder, so that every write there fails."""
    storage.publish("events", b"")
    return storage


def names(storage: LocalStorage, prefix: str) -> list[str]:
    return [file.path for file in storage.list(prefix)]


def left_over(storage: LocalStorage) -> list[str]:
    return names(storage, ".tmp/")


def test_what_is_published_is_read(storage: LocalStorage) -> None:
    storage.publish("runs/a.json", b"1")
    assert storage.read("runs/a.json") == b"1"
    assert storage.exists("runs/a.json")
    assert Path(storage.uri("runs/a.json")).read_bytes() == b"1"
    storage.publish("runs/a.json", b"22")
    assert storage.read("runs/a.json") == b"22"
    assert left_over(storage) == []


def test_what_is_not_there(storage: LocalStorage) -> None:
    assert storage.read("runs/a.json") is None
    assert not storage.exists("runs/a.json")
    assert storage.list("runs/") == []
    storage.delete("runs/a.json")


def test_a_folder_is_no_file(storage: LocalStorage) -> None:
    storage.publish("runs/a.json", b"1")
    assert not storage.exists("runs")
    with pytest.raises(StorageError, match=r"runs: could not read .*directory"):
        storage.read("runs")


def test_listing_is_recursive_and_sorted(storage: LocalStorage) -> None:
    for path in ("events/b", "events/a/z", "events/a/y/x", "events2/a", "a"):
        storage.publish(path, b"123")
    assert names(storage, "events/") == names(storage, "events") == ["events/a/y/x", "events/a/z", "events/b"]
    assert names(storage, "events/a/") == ["events/a/y/x", "events/a/z"]
    assert storage.list("events/b") == []
    assert {file.size_bytes for file in storage.list("events/")} == {3}


def test_an_identity_changes_with_the_content_and_only_then(storage: LocalStorage) -> None:
    storage.publish("events/a", b"1")
    before = storage.list("events/")
    assert storage.list("events/") == before
    # The same size, and within the same moment.
    storage.publish("events/a", b"2")
    assert storage.list("events/") != before


def test_a_local_file_is_published_and_taken_away(storage: LocalStorage) -> None:
    local = storage.scratch(".parquet")
    local.write_bytes(b"1")
    storage.publish_file("aggregates/a/part.parquet", local)
    assert storage.read("aggregates/a/part.parquet") == b"1"
    assert not local.exists()


def test_scratch_names_differ_and_are_on_the_lakes_disk(storage: LocalStorage) -> None:
    one, other = storage.scratch(".parquet"), storage.scratch(".parquet")
    assert one != other
    assert one.suffix == ".parquet"
    assert one.is_relative_to(storage.root)


def test_create_never_replaces(storage: LocalStorage) -> None:
    assert storage.create("meters/a.json", b"1") == storage.list("meters/")[0]
    assert storage.create("meters/a.json", b"2") is None
    assert storage.read("meters/a.json") == b"1"
    assert left_over(storage) == []


def test_of_many_creators_one_wins(storage: LocalStorage) -> None:
    contents = [str(number).encode() for number in range(32)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda content: LocalStorage(storage.root).create("a", content), contents))
    (winner,) = (number for number, file in enumerate(made) if file)
    assert storage.read("a") == contents[winner]
    assert left_over(storage) == []


def test_readers_see_the_old_or_the_new_content_never_a_part(storage: LocalStorage) -> None:
    small, large = b"s" * 10, b"l" * 3_000_000

    def publish_all(contents: list[bytes]) -> None:
        for content in contents:
            storage.publish("a", content)

    storage.publish("a", small)
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(publish_all, [large, small] * 20)
        seen = set()
        while not writing.done():
            seen.add(storage.read("a"))
        writing.result()
    assert seen <= {small, large}


def test_deleting_takes_empty_folders_along(storage: LocalStorage) -> None:
    storage.publish("events/meter=m/date=2026-06-19/a", b"")
    storage.publish("events/meter=m/date=2026-06-19/b", b"")
    storage.delete("events/meter=m/date=2026-06-19/a")
    assert names(storage, "events/") == ["events/meter=m/date=2026-06-19/b"]
    storage.delete("events/meter=m/date=2026-06-19/b")
    assert [path.name for path in (storage.root / "events").iterdir()] == []


PUBLISHER = """
import sys
from lake.storage import LocalStorage
storage, path = LocalStorage(sys.argv[1]), "events/meter=m/date=2026-06-19/"
for number in range(1_500):
    storage.publish(f"{path}{number}", b"1")
    assert storage.create(f"{path}created {number}", b"1")
"""


def test_a_file_is_published_while_another_process_removes_the_last_one_beside_it(scratch: Path) -> None:
    storage = LocalStorage(scratch)
    program = [sys.executable, "-c", PUBLISHER, str(scratch)]
    publisher = subprocess.Popen(program, cwd=ROOT, text=True, stderr=subprocess.PIPE)
    removed = set()
    while publisher.poll() is None:
        found = names(storage, "events/")
        storage.delete_all(found)
        removed |= set(found)
    assert publisher.communicate()[1] == ""
    assert len(removed | set(names(storage, "events/"))) == 3_000


def test_a_failure_names_the_path(locked: LocalStorage, tmp_path: Path) -> None:
    local = tmp_path / "x"
    local.write_bytes(b"")
    attempts: list[tuple[Callable[[], object], str]] = [
        (lambda: locked.publish("events/a", b""), "write"),
        (lambda: locked.publish_file("events/a", local), "write"),
        (lambda: locked.create("events/a", b""), "create"),
    ]
    for attempt, action in attempts:
        with pytest.raises(StorageError) as caught:
            attempt()
        assert caught.value.where == "events/a"
        assert caught.value.what == f"could not {action} this file of the lake"
        assert caught.value.exit_code == 3
    assert locked.list("events/a") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
def test_a_denied_write_names_the_path(storage: LocalStorage) -> None:
    storage.root.mkdir()
    storage.root.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        storage.publish("a", b"")


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_storage("lake").url == str(tmp_path / "lake")
    assert open_storage(f"file://{tmp_path}/lake").url == str(tmp_path / "lake")
    assert open_storage("~/lake").url == str(tmp_path / "home" / "lake")


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(StorageError, match="gopher://: this kind of lake URL is not supported"):
        open_storage("gopher://bucket/lake")
