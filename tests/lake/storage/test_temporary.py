"""Temporary files: those of dead processes are swept, and nothing else is, wherever a name or a link leads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lake.storage import LocalStorage, Storage, open_storage
from lake.storage.disk.temporary import Owner, this_process
from schemas.errors import StorageError
from support import ROOT, a_lake, aggregated, event, put

DAY_SECONDS = 24 * 60 * 60
# Makes a temporary file and a copy's folder, says where, and waits to be ended.
HOLDER = """
import sys, time
from lake.storage import open_storage
storages = [open_storage(url) for url in (sys.argv[1], "memory://lake")]
for storage in storages:
    file = storage.scratch(".parquet")
    file.write_bytes(b"1")
    print(file, flush=True)
time.sleep(600)
"""
INSIDE = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder, of this test alone."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


def remote() -> Storage:
    return open_storage("memory://lake")


class Process:
    """Another process with a temporary file in the lake, and one in a folder of its own."""

    def __init__(self, storage: LocalStorage, *before: str) -> None:
        command = [*before, sys.executable, "-c", HOLDER, storage.url]
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
        assert self._process.stdout
        self.local, self.copy = (Path(self._process.stdout.readline().strip()) for _ in range(2))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * DAY_SECONDS
    os.utime(path, (then, then))
    return path


def in_lake(storage: LocalStorage, name: str, days: float = 0) -> Path:
    file = storage.scratch("").with_name(name)
    file.write_bytes(b"1")
    return aged(file, days)


def in_temporary(folder: Path, name: str, days: float = 0, *files: str) -> Path:
    for file in files or ("0.parquet",):
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_bytes(b"1")
    return aged(folder / name, days)


def test_what_a_live_process_holds_stays_and_goes_once_it_is_dead(storage: LocalStorage) -> None:
    other = Process(storage)
    mine = storage.scratch("")
    mine.write_bytes(b"1")
    try:
        assert (storage.sweep(), remote().sweep()) == (0, 0)
        assert other.local.exists()
        assert other.copy.exists()
    finally:
        other.kill()
    assert (storage.sweep(), remote().sweep()) == (1, 1)
    assert not other.local.exists()
    assert not other.copy.parent.exists()
    assert mine.exists()


def test_a_process_number_that_was_given_again_is_not_the_owner(storage: LocalStorage) -> None:
    earlier = this_process()._replace(started=str(int(this_process().started) - 1))
    file = in_lake(storage, f"{earlier}-{uuid.uuid4().hex}.parquet")
    assert storage.sweep() == 1
    assert not file.exists()


@pytest.mark.parametrize(
    "owner",
    [
        this_process()._replace(boot="f" * 32),
        this_process()._replace(namespace="7", process="999999"),
        Owner("999999", "0", "0", "0"),
    ],
    ids=["another machine or boot", "another container", "a system that tells nothing"],
)
def test_of_a_process_that_can_not_be_asked_for_age_decides(
    storage: LocalStorage, temporary: Path, owner: Owner
) -> None:
    file = in_lake(storage, f"{owner}-{uuid.uuid4().hex}.parquet", 6.9)
    folder = in_temporary(temporary, f"meterlake-{owner}-abcd_123", 6.9)
    assert (storage.sweep(), remote().sweep()) == (0, 0)
    aged(file, 7.1)
    aged(folder, 7.1)
    assert (storage.sweep(), remote().sweep()) == (1, 1)
    assert not file.exists()
    assert not folder.exists()


def test_names_of_earlier_versions_go_after_seven_days(storage: LocalStorage, temporary: Path) -> None:
    random, dead = uuid.uuid4().hex, 999999
    new = in_lake(storage, f"{dead}-{random}.parquet", 1)
    old = [in_lake(storage, f"{dead}-{random}{suffix}", 8) for suffix in ("", ".csv", ".input")]
    new_folder = in_temporary(temporary, f"meterlake-{dead}-abcd1234", 1)
    old_folder = in_temporary(temporary, f"meterlake-{dead}-abcd_23x", 8, f"{random}.parquet")
    assert (storage.sweep(), remote().sweep()) == (3, 1)
    assert [path.exists() for path in (new, new_folder, *old, old_folder)] == [True, True] + 4 * [False]


def test_what_has_another_name_is_left_alone(storage: LocalStorage, temporary: Path) -> None:
    random = uuid.uuid4().hex
    files = [
        in_lake(storage, name, 800)
        for name in ("foreign", "999999-x", f"0-{random}", f"999999-{random}-more", f"x-{random}")
    ]
    folders = [
        in_temporary(temporary, name, 800, *inside)
        for name, *inside in [
            ("meterlake-prod-eu", "lake.json", "events/a.parquet"),
            # These have the name of a temporary one, and are a lake.
            ("meterlake-2024-archives", "lake.json"),
            ("meterlake-2024-archived", "events/a.parquet"),
            ("meterlake-2024-x",),
            ("other-999999-abcd1234",),
        ]
    ]
    (temporary / "meterlake-999999-abcd1234").write_bytes(b"a file")
    assert (storage.sweep(), remote().sweep()) == (0, 0)
    assert all(path.exists() for path in (*files, *folders))


def test_no_link_is_followed(storage: LocalStorage, temporary: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    names = [f"999999-{uuid.uuid4().hex}", "meterlake-999999-abcd1234"]
    for name in names:
        in_temporary(outside, name, 800, "precious")
    file = aged(outside / names[0] / "precious", 800)
    storage.scratch("").with_name(names[0]).symlink_to(file)
    (temporary / names[1]).symlink_to(outside / names[1])
    assert (storage.sweep(), remote().sweep()) == (0, 0)
    shutil.rmtree(storage.root / ".tmp")
    file.rename(outside / f"999999-{uuid.uuid4().hex}")
    (storage.root / ".tmp").symlink_to(outside)
    before = sorted(outside.rglob("*"))
    assert storage.sweep() == 0
    with pytest.raises(StorageError, match="is a link"):
        storage.publish("a", b"1")
    assert sorted(outside.rglob("*")) == before


def test_what_can_not_be_removed_fails_no_job(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"))
    folder = in_lake(LocalStorage(lake.url), "x").parent
    (folder / f"999999-{uuid.uuid4().hex}").mkdir()
    (folder / f"999999-{uuid.uuid4().hex}" / "inside").mkdir(parents=True)
    (folder / f"999999-{uuid.uuid4().hex}").symlink_to("nothing")
    os.mkfifo(folder / f"999998-{uuid.uuid4().hex}")
    for path in folder.iterdir():
        if not path.is_symlink():
            aged(path, 800)
    assert aggregated(lake).exit_code == 0
    assert len(list(folder.iterdir())) == 5


def test_sweeping_where_there_is_nothing(storage: LocalStorage) -> None:
    assert storage.sweep() == 0
    storage.root.mkdir()
    (storage.root / ".tmp").write_bytes(b"")
    assert storage.sweep() == 0


@pytest.mark.skipif(
    subprocess.run([*INSIDE, "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="may make no namespace of processes",
)
@pytest.mark.parametrize("command", [INSIDE, INSIDE[:-1]], ids=["its own /proc", "the machine's /proc"])
def test_what_a_live_process_of_another_container_holds_stays(
    storage: LocalStorage, command: list[str]
) -> None:
    """Also where one sweeps within the same container, whose /proc tells of other processes."""
    sweep = "import sys; from lake.storage import open_storage; print(open_storage(sys.argv[1]).sweep())"
    both = f"{HOLDER.replace('time.sleep(600)', '')}\nexec(sys.stdin.read())"
    inside = subprocess.Popen(
        [*command, sys.executable, "-c", both, storage.url],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert inside.stdin
    assert inside.stdout
    files = [Path(inside.stdout.readline().strip()) for _ in range(2)]
    assert (storage.sweep(), remote().sweep()) == (0, 0)
    again = f"import subprocess; subprocess.run([sys.executable, '-c', {sweep!r}, sys.argv[1]])"
    swept, _ = inside.communicate(again, timeout=60)
    assert swept == "0\n"
    assert files[0].exists()
