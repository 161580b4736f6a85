"""A lake's paths stay inside it, links are not written through, and only regular files are opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lake.storage import LocalStorage, Storage, StoredFile, open_storage
from schemas.errors import BrokenLakeError, StorageError

OUTSIDE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "runs/../../x",
    "runs/..",
    "./runs/a",
    "runs//a",
    "runs/a/",
    "a\0b",
]
OPERATIONS: dict[str, Callable[[Storage, str], object]] = {
    "read": lambda storage, path: storage.read(path),
    "read_all": lambda storage, path: storage.read_all(["runs/a.json", path]),
    "publish": lambda storage, path: storage.publish(path, b"x"),
    "publish_file": lambda storage, path: storage.publish_file(path, a_file(storage)),
    "create": lambda storage, path: storage.create(path, b"x"),
    "delete": lambda storage, path: storage.delete(path),
    "delete_all": lambda storage, path: storage.delete_all(["runs/none", path]),
    "exists": lambda storage, path: storage.exists(path),
    "schema": lambda storage, path: storage.schema(StoredFile(path, 1, "1")),
    "metadata": lambda storage, path: storage.metadata(StoredFile(path, 1, "1")),
    "scan": lambda storage, path: storage.scan([StoredFile(path, 2**30, "1")]).collect(),
}


def a_file(storage: Storage) -> Path:
    local = storage.scratch("")
    local.write_bytes(b"x")
    return local


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and ".tmp" not in file.parts
    }


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_leaves_the_root(url: str, tmp_path: Path, operation: str, path: str) -> None:
    storage = open_storage(url)
    storage.publish("runs/a.json", b"1")
    (tmp_path / "x").write_bytes(b"kept")
    before = everything(tmp_path)
    with pytest.raises(StorageError, match="not a path inside a lake"):
        OPERATIONS[operation](storage, path)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("prefix", ["/", "../", "runs/../..", "/etc/", "runs//", "a\0b/"])
def test_no_listing_leaves_the_root(url: str, prefix: str) -> None:
    with pytest.raises(StorageError, match="not a path inside a lake"):
        open_storage(url).list(prefix)


def test_a_name_that_is_no_unicode_is_no_path(url: str) -> None:
    with pytest.raises(StorageError, match="not a path inside a lake"):
        open_storage(url).read("runs/\udcff")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


@pytest.fixture
def outside(storage: LocalStorage, tmp_path: Path) -> Path:
    """A folder with a file, to which `runs/here` in the lake is a link."""
    storage.publish("runs/a.json", b"1")
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (tmp_path / "outside" / "b").write_bytes(b"kept")
    (tmp_path / "outside" / "inner" / "b").write_bytes(b"kept")
    (storage.root / "runs" / "date=here").symlink_to(tmp_path / "outside")
    return tmp_path / "outside"


@pytest.mark.parametrize("operation", ["publish", "publish_file", "create", "delete", "delete_all"])
@pytest.mark.parametrize("name", ["b", "new", "inner/b", "inner/new", "new/new"])
def test_nothing_is_written_or_removed_behind_a_link(
    storage: LocalStorage, outside: Path, operation: str, name: str
) -> None:
    before = everything(outside)
    with pytest.raises(StorageError, match=r"runs/date=here: nothing is written through a link"):
        OPERATIONS[operation](storage, f"runs/date=here/{name}")
    assert everything(outside) == before
    assert storage.read("runs/date=here/b") == b"kept"


def test_no_temporary_file_is_written_behind_a_link(storage: LocalStorage, outside: Path) -> None:
    (storage.root / ".tmp").rmdir()
    (storage.root / ".tmp").symlink_to(outside)
    with pytest.raises(StorageError, match=r"\.tmp/: the folder of temporary files is a link"):
        storage.publish("runs/a.json", b"2")
    assert sorted(file.name for file in outside.iterdir()) == ["b", "inner"]


def test_the_root_and_what_is_above_it_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "disk" / "lake").mkdir(parents=True)
    (tmp_path / "above").symlink_to(tmp_path / "disk")
    (tmp_path / "root").symlink_to(tmp_path / "above" / "lake")
    storage = LocalStorage(tmp_path / "root")
    storage.publish("runs/a.json", b"1")
    assert (tmp_path / "disk" / "lake" / "runs" / "a.json").read_bytes() == b"1"
    assert [(file.path, file.linked) for file in storage.list("runs/")] == [("runs/a.json", False)]
    storage.delete("runs/a.json")
    assert storage.list("runs/") == []


def test_files_behind_links_are_listed_as_such(storage: LocalStorage, outside: Path) -> None:
    (storage.root / "runs" / "link").symlink_to(outside / "b")
    found = {file.path: (file.linked, file.unreadable) for file in storage.list("runs/")}
    assert found == {
        "runs/a.json": (False, ""),
        "runs/date=here/b": (True, ""),
        "runs/date=here/inner/b": (True, ""),
        "runs/link": (True, ""),
    }
    assert {file.linked for file in storage.list("runs/date=here/inner/")} == {True}


def irregular(folder: Path) -> dict[str, str]:
    """Put into a folder what can't be read as a file; gives the reasons by name."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        # The path of a socket may have some hundred bytes only.
        here = Path.cwd()
        os.chdir(folder)
        listening.bind("socket")
        os.chdir(here)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "to_pipe").symlink_to("pipe")
    (folder / "to_null").symlink_to(os.devnull)
    (folder / "to_root").symlink_to("/")
    (folder / "date=up").symlink_to("..")
    (folder / "date=here").symlink_to(".")
    return {
        "pipe": "a named pipe",
        "socket": "a socket",
        "dangling": "a link that leads nowhere",
        "loop": "a link that leads in a circle",
        "to_pipe": "a named pipe",
        "to_null": "a device",
        "to_root": "a link to a folder",
        "date=up": "a link that leads in a circle",
        "date=here": "a link that leads in a circle",
    }


def test_what_is_no_regular_file_is_listed_with_the_reason(storage: LocalStorage) -> None:
    storage.publish("runs/a.json", b"1")
    expected = irregular(storage.root / "runs")
    found = {file.path.removeprefix("runs/"): file.unreadable for file in storage.list("runs/")}
    assert found == {"a.json": ""} | expected


def test_what_is_no_regular_file_is_never_opened(storage: LocalStorage) -> None:
    storage.publish("runs/a.json", b"1")
    for name, reason in irregular(storage.root / "runs").items():
        if "folder" in reason or name.startswith("date="):
            continue
        listed = next(file for file in storage.list("runs/") if file.path == f"runs/{name}")
        for read in (storage.schema, storage.metadata, lambda file: storage.scan([file])):
            with pytest.raises(BrokenLakeError, match=reason):
                read(listed)
        with pytest.raises(BrokenLakeError, match=f"runs/{name}: .*{reason}"):
            storage.read(f"runs/{name}")


def test_links_in_each_others_folders_end(storage: LocalStorage) -> None:
    for name, other in (("date=a", "date=b"), ("date=b", "date=a")):
        (storage.root / "runs" / name).mkdir(parents=True)
        (storage.root / "runs" / name / "date=link").symlink_to(f"../{other}")
    assert {file.unreadable for file in storage.list("runs/")} == {"a link that leads in a circle"}


def test_a_folder_that_is_a_link_to_nowhere_is_not_an_empty_one(storage: LocalStorage) -> None:
    storage.root.mkdir()
    (storage.root / "events").symlink_to("/none/such")
    for prefix in ("events", "events/", "events/meter=m/"):
        with pytest.raises(StorageError, match=r"events: could not list .* link that leads nowhere"):
            storage.list(prefix)


def test_names_that_are_not_utf_8_are_listed_escaped(storage: LocalStorage) -> None:
    storage.publish("runs/date=1/a.json", b"1")
    folder = os.fsencode(storage.root / "runs")
    for name in (b"b\xff.json", b"\xfe/c.json"):
        path = os.path.join(folder, name)  # noqa: PTH118 - bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb"):  # noqa: PTH123
            pass
    found = [(file.path, file.unreadable) for file in storage.list("runs/")]
    assert found == [
        ("runs/\\xfe", "a name that is not UTF-8"),
        ("runs/b\\xff.json", "a name that is not UTF-8"),
        ("runs/date=1/a.json", ""),
    ]


def test_what_goes_away_while_it_is_listed_is_passed_over(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x", "b/x", "c"):
        storage.publish(f"runs/{name}", b"1")
    scandir = os.scandir

    def late(path: str) -> list[os.DirEntry[str]]:
        entries = list(scandir(path))
        if path.endswith("/runs"):
            storage.delete_all(["runs/a/x", "runs/c"])
        return entries

    monkeypatch.setattr(os, "scandir", late)
    assert [file.path for file in storage.list("runs/")] == ["runs/b/x"]
