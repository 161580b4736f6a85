"""The file that names the last revision of an export is right once a job has ended, and is checked where it is delivered."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from jobs.cli import app
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.export.verify import verify_exports
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.state.state_file import load_state
from lake.storage import LocalStorage, StoredFile
from schemas.meter import Meter
from support import METER, a_lake, content, event, put

NAME = METER["name"]
Result = TypeVar("Result")
AS_OF = dt.date(2026, 7, 20)
FOLDER = paths.exports(NAME, "2026-06")
FORM = paths.exports(NAME, "2026-06", "by=plan")


def night(lake: Lake, as_of: dt.date = AS_OF) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=as_of)
    return report


def exported(lake: Lake, **more: Any) -> None:
    with reported(lake, "export") as report:
        export(lake, report, parse_period("2026-06"), **more)


def latest(lake: Lake, folder: str = FOLDER) -> Any:
    return json.loads((Path(lake.url) / paths.latest(folder)).read_bytes())


def expected(lake: Lake, folder: str = FOLDER) -> dict[str, Any]:
    """What the file has to say, from the manifests that are there."""
    manifests = sorted((Path(lake.url) / folder).glob("revision=*/manifest.json"))
    kinds = [json.loads(each.read_bytes())["kind"] for each in manifests]
    return {
        "revision": int(manifests[-1].parent.name[-4:]),
        "kind": kinds[-1],
        "manifest_sha256": hashlib.sha256(manifests[-1].read_bytes()).hexdigest(),
        "usage_revision": max(number for number, kind in enumerate(kinds, 1) if kind == "usage"),
        "closed": (Path(lake.url) / folder / "closed.json").exists(),
    }


def problems(folder: Path) -> list[str]:
    return [problem["what"] for each in verify_exports(folder) for problem in each.problems]


@pytest.fixture
def billed(scratch: Path) -> tuple[Lake, Meter]:
    """A lake after a night, with two forms of June."""
    lake, meter = a_lake(scratch / "lake", event_retention_days=3650)
    put(lake, meter, "a.parquet", event("a"))
    night(lake)
    exported(lake, options=Options(by=("plan",)))
    return lake, meter


def test_it_follows_every_revision_and_the_close(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    steps = []
    for number in range(2, 5):
        put(lake, meter, f"{number}.parquet", event(f"late {number}"))
        night(lake)
        said = latest(lake)
        assert said == expected(lake)
        assert latest(lake, FORM) == expected(lake, FORM)
        steps.append(tuple(said[name] for name in ("revision", "kind", "usage_revision", "closed")))
        if number == 2:
            exported(lake, close=True)
            assert latest(lake) == expected(lake)
            assert latest(lake)["closed"]
    assert steps == [(2, "usage", 2, False), (3, "adjustments", 2, True), (4, "adjustments", 2, True)]
    assert latest(lake, FORM)["usage_revision"] == 4
    assert problems(Path(lake.url) / paths.EXPORTS) == []


def test_a_quiet_night_leaves_it_as_it_is(billed: tuple[Lake, Meter]) -> None:
    lake, _ = billed
    night(lake)
    before = (Path(lake.url) / paths.latest(FOLDER)).stat()
    night(lake)
    assert (Path(lake.url) / paths.latest(FOLDER)).stat() == before


def test_an_export_of_nothing_has_none(scratch: Path) -> None:
    lake, _ = a_lake(scratch)
    night(lake)
    exported(lake)
    assert not (scratch / paths.EXPORTS).exists()


# Whatever stands there


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.unlink()
        make(file)

    return spoil


def said_otherwise(**members: Any) -> Callable[[Path], None]:
    return lambda file: file.write_text(json.dumps(json.loads(file.read_bytes()) | members)) and None


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "latest.json can't be read"),
    "empty": (lambda file: file.write_bytes(b""), "not a latest.json"),
    "torn": (lambda file: file.write_bytes(file.read_bytes()[:40]), "not a latest.json"),
    "no JSON": (lambda file: file.write_bytes(b"\xff\x00"), "not a latest.json"),
    "deep": (lambda file: file.write_text("[" * 30_000), "not a latest.json"),
    "large": (lambda file: file.write_bytes(b" " * 2**17), "latest.json is too large"),
    "pipe": (replaced(os.mkfifo), "latest.json is no file"),
    "dangling link": (replaced(lambda file: file.symlink_to("nowhere")), "latest.json can't be read"),
    "looping link": (replaced(lambda file: file.symlink_to(file)), "latest.json can't be read"),
    "link to another": (
        replaced(lambda file: file.symlink_to("revision=0001/manifest.json")),
        "not a latest.json",
    ),
    "behind": (said_otherwise(revision=1), "revision of latest.json is not that of the revisions"),
    "none there": (said_otherwise(revision=9), "revision of latest.json is not that of the revisions"),
    "below one": (said_otherwise(revision=-1), "revision of latest.json is not that of the revisions"),
    "kind": (said_otherwise(kind="adjustments"), "kind of latest.json is not that of the revisions"),
    "sha256": (said_otherwise(manifest_sha256="0" * 64), "manifest_sha256 of latest.json is not that"),
    "usage": (said_otherwise(usage_revision=1), "usage_revision of latest.json is not that"),
    "closed": (said_otherwise(closed=True), "closed of latest.json is not that of the revisions"),
}


@pytest.fixture
def revised(billed: tuple[Lake, Meter]) -> Lake:
    lake, meter = billed
    put(lake, meter, "late.parquet", event("late"))
    night(lake)
    return lake


@pytest.mark.parametrize(("spoil", "what"), SPOILED.values(), ids=SPOILED)
def test_what_is_wrong_is_named_by_verification_and_repaired_by_the_next_night(
    revised: Lake, spoil: Callable[[Path], Any], what: str
) -> None:
    folder = Path(revised.url) / paths.EXPORTS
    before = content(folder, "")
    spoil(Path(revised.url) / paths.latest(FORM))
    (found,) = (each for each in verify_exports(folder) if each.problems)
    assert found.folder == str(Path(revised.url) / paths.revision(FORM, 2))
    assert found.problems[0]["what"].startswith(what)
    assert all(problem["where"].endswith("by=plan/latest.json") for problem in found.problems)
    assert app.run(["export", "--verify", str(folder)]) == 1
    assert night(revised).errors == []
    assert problems(folder) == []
    assert content(folder, "") == before


def test_it_is_repaired_where_a_night_knows_nothing_or_too_much(revised: Lake) -> None:
    """As a program of before leaves it, which makes revisions and does not know the file, with or without its state."""
    root = Path(revised.url)
    before = content(root, paths.EXPORTS)
    for file in root.rglob("latest.json"):
        file.unlink()
    state = load_state(revised.storage, NAME)
    night(revised)
    assert content(root, paths.EXPORTS) == before
    assert load_state(revised.storage, NAME).exported.keys() == state.exported.keys()
    for file in root.rglob("latest.json"):
        file.write_text("{}")
    (root / paths.state(NAME)).unlink()
    night(revised)
    assert content(root, paths.EXPORTS) == before


def test_an_export_repairs_it_too(revised: Lake) -> None:
    file = Path(revised.url) / paths.latest(FOLDER)
    before = file.read_bytes()
    file.unlink()
    exported(revised)
    assert file.read_bytes() == before


def test_a_folder_in_its_place_is_named_and_keeps_no_other_export(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    file = Path(lake.url) / paths.latest(FOLDER)
    file.unlink()
    file.mkdir()
    (file / "x").touch()
    put(lake, meter, "late.parquet", event("late"))
    report = night(lake)
    assert [problem["where"] for problem in report.errors] == [paths.latest(FOLDER)]
    assert [done.form for done in report.exports if done.action == "exported"] == ["2026-06/by=plan"]
    assert latest(lake, FORM) == expected(lake, FORM)
    assert problems(Path(lake.url) / paths.EXPORTS) == ["latest.json is no file"]


def test_of_a_revision_that_is_delivered_alone_nothing_is_asked(revised: Lake, scratch: Path) -> None:
    revision = Path(revised.url) / paths.revision(FOLDER, 2)
    assert problems(revision) == []
    shutil.copytree(revision, scratch / "invoice")
    assert problems(scratch / "invoice") == []
    # Beside no revision at all it names none.
    (scratch / "other").mkdir()
    shutil.copy(Path(revised.url) / paths.latest(FOLDER), scratch / "other")
    shutil.copytree(revision, scratch / "other/invoice")
    assert problems(scratch / "other") == ["revision of latest.json is not that of the revisions"]


# Interruptions


class KilledError(SystemExit):
    """The process is gone; a night handles what else is raised."""


class DyingStorage(LocalStorage):
    """Ends the process before or after one of its changes of exports, the one of the given number."""

    def __init__(self, root: Path, number: int, *, after: bool) -> None:
        super().__init__(root)
        self.done, self._number, self._after = 0, number, after

    def publish_file(self, path: str, local: Path, *, keep: bool = False) -> StoredFile:
        return self._counted(path, partial(super().publish_file, path, local, keep=keep))

    def create(self, path: str, content: bytes) -> StoredFile | None:
        return self._counted(path, partial(super().create, path, content))

    def _counted(self, path: str, change: Callable[[], Result]) -> Result:
        self.done += path.startswith(paths.EXPORTS)
        dies = self.done == self._number and path.startswith(paths.EXPORTS)
        if dies and not self._after:
            raise KilledError
        result = change()
        if dies:
            raise KilledError
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("close", [False, True])
def test_interrupted_anywhere_the_next_night_ends_with_the_same(
    scratch: Path, *, after: bool, close: bool
) -> None:
    lake, meter = a_lake(scratch / "lake", event_retention_days=3650)
    put(lake, meter, "a.parquet", event("a"))
    night(lake)
    put(lake, meter, "b.parquet", event("b"))

    def work(lake: Lake) -> None:
        with reported(lake, "job") as report:
            nightly(lake, report, as_of=AS_OF)
        if close:
            exported(lake, close=True)

    undisturbed = linked(scratch / "lake", scratch / "undisturbed")
    counting = DyingStorage(undisturbed, 0, after=after)
    work(Lake(str(undisturbed)).over(counting))
    wanted = content(undisturbed, paths.EXPORTS)
    for number in range(1, counting.done + 1):
        disturbed = linked(scratch / "lake", scratch / "disturbed")
        faulty = DyingStorage(disturbed, number, after=after)
        with pytest.raises(KilledError):
            work(Lake(str(disturbed)).over(faulty))
        night(Lake(str(disturbed)))
        if close:
            exported(Lake(str(disturbed)), close=True)
        assert content(disturbed, paths.EXPORTS) == wanted, number
        shutil.rmtree(disturbed)
    # The files of a revision, its manifest, the close, and what names it.
    assert counting.done == (8 if close else 6)


def linked(source: Path, target: Path) -> Path:
    """The same lake once more, of the same files: jobs change none in its place."""
    shutil.copytree(source, target, copy_function=os.link)
    return target
