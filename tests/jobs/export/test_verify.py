"""A delivered folder is checked with nothing else at hand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from exporting import exported, manifest
from jobs.export.verify import verify_exports
from schemas.errors import BadInputError
from support import a_lake, aggregated, event, put


def delivered(tmp_path: Path) -> Path:
    """Two revisions of a period in a folder that no lake is near to."""
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("x", plan="=1"), event("y", subject="b"))
    aggregated(lake)
    exported(lake, csv_safe=True, by=("plan",))
    put(lake, meter, "b.parquet", event("z", plan=None))
    aggregated(lake)
    exported(lake, csv_safe=True, by=("plan",))
    shutil.move(
        tmp_path / "lake/exports/active_users/period=2026-06/by=plan/csv=safe", tmp_path / "delivered"
    )
    shutil.rmtree(tmp_path / "lake")
    return tmp_path / "delivered"


def restated(folder: Path, name: str) -> None:
    """Make a manifest's hash and size those of a file that was tampered with."""
    said = manifest(folder)
    body = (folder / name).read_bytes()
    said["files"][name] |= {"sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}
    (folder / "manifest.json").write_text(json.dumps(said))


def latest_restated(folder: Path, revision: str) -> None:
    """Make the file beside revisions name one of them."""
    number, sha256 = (
        int(revision[-4:]),
        hashlib.sha256((folder / revision / "manifest.json").read_bytes()).hexdigest(),
    )
    said = {"revision": number, "kind": "usage", "manifest_sha256": sha256, "usage_revision": number}
    (folder / "latest.json").write_text(json.dumps(said | {"closed": False}))


def more_usage(folder: Path) -> None:
    rows = pl.read_parquet(folder / "usage.parquet")
    one = pl.lit(1, rows.schema["quantity"])
    rows.with_columns(quantity=pl.col("quantity") + one).write_parquet(folder / "usage.parquet")
    restated(folder, "usage.parquet")


def less_change(folder: Path) -> None:
    rows = pl.read_parquet(folder / "adjustments.parquet")
    rows.clear().write_parquet(folder / "adjustments.parquet")
    said = manifest(folder)
    zero = dict.fromkeys(("quantity_before", "quantity_after", "quantity_change"), "0")
    said["files"]["adjustments.parquet"] |= {"rows": 0, "totals": zero}
    (folder / "manifest.json").write_text(json.dumps(said))
    restated(folder, "adjustments.parquet")


def other_change(folder: Path) -> None:
    rows = pl.read_parquet(folder / "adjustments.parquet")
    swapped = rows.with_columns(quantity_before="quantity_after", quantity_after="quantity_before")
    swapped.write_parquet(folder / "adjustments.parquet")
    said = manifest(folder)
    totals = said["files"]["adjustments.parquet"]["totals"]
    totals |= {"quantity_before": totals["quantity_after"], "quantity_after": totals["quantity_before"]}
    (folder / "manifest.json").write_text(json.dumps(said))
    restated(folder, "adjustments.parquet")


def shorter_csv(folder: Path) -> None:
    lines = (folder / "usage.csv").read_bytes().splitlines(keepends=True)
    (folder / "usage.csv").write_bytes(b"".join(lines[:-1]))
    restated(folder, "usage.csv")


def renamed_column(folder: Path) -> None:
    file = folder / "usage.csv"
    file.write_bytes(file.read_bytes().replace(b"subject", b"account", 1))
    restated(folder, "usage.csv")


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (lambda folder: (folder / "usage.csv").unlink(), "a file is missing"),
        (lambda folder: (folder / "usage.csv").write_text("x"), "a file is not the one that was exported"),
        (lambda folder: (folder / "extra.csv").write_text("x"), "a file that the manifest does not name"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "not a manifest of an export"),
        (more_usage, "the manifest differs from the file"),
        (shorter_csv, "the manifest differs from the file"),
        (renamed_column, "the manifest differs from the file"),
        (less_change, "the adjustments do not add up"),
        (other_change, "the adjustments do not add up"),
        (
            lambda folder: restated(folder.with_name("revision=0001"), "usage.csv"),
            "not the revision before",
        ),
    ],
    ids=[
        "missing",
        "other",
        "extra",
        "manifest",
        "usage",
        "rows",
        "columns",
        "adjustments",
        "swapped",
        "before",
    ],
)
def test_verification_finds_what_was_tampered_with(
    tmp_path: Path, tamper: Callable[[Path], Any], wrong: str
) -> None:
    folder = delivered(tmp_path)
    found = verify_exports(folder)
    assert [(each.files, each.rows, each.problems) for each in found] == [(2, 2, []), (4, 3, [])]
    assert verify_exports(folder / "revision=0002")[0].problems == []
    tamper(folder / "revision=0002")
    first, second = verify_exports(folder)
    assert first.problems == []
    assert second.problems[0]["what"].startswith(wrong)


def told_otherwise(**members: Any) -> Callable[[Path], None]:
    """Change members of a manifest."""

    def tamper(folder: Path) -> None:
        (folder / "manifest.json").write_text(json.dumps(manifest(folder) | members))

    return tamper


def named_otherwise(name: str) -> Callable[[Path], None]:
    """Give the file of a manifest another name."""

    def tamper(folder: Path) -> None:
        said = manifest(folder)
        said["files"][name] = said["files"].pop("usage.csv")
        (folder / "manifest.json").write_text(json.dumps(said))

    return tamper


def replaced_manifest(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Put something else in a manifest's place."""

    def tamper(folder: Path) -> None:
        (folder / "manifest.json").unlink()
        make(folder / "manifest.json")

    return tamper


ODD_REVISIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "number of another folder": (told_otherwise(revision=7), "the revision is not that of its folder"),
    "period of another folder": (
        lambda folder: (
            shutil.move(folder, folder.with_name("period=2026-01") / folder.name),
            latest_restated(folder.parent, "revision=0001"),
        ),
        "the period is not that of its folder",
    ),
    "unknown kind": (told_otherwise(kind="guess"), "an unknown kind of revision"),
    "no revision before": (told_otherwise(previous_sha256=None), "the revision before is not named"),
    "no sha256": (told_otherwise(previous_sha256="../x"), "the revision before is not named"),
    "dimension that is no column": (told_otherwise(group_by=["nowhere"]), "a revision can't be checked"),
    "dimension twice": (told_otherwise(group_by=["plan", "plan"]), "a dimension is duplicated"),
    "subject as dimension": (told_otherwise(group_by=["subject"]), "a dimension is duplicated"),
    "very long name": (named_otherwise("x" * 5000), "a file is not named"),
    "name with a path": (named_otherwise("../usage.csv"), "a file is not named"),
    "name with a null": (named_otherwise("a\0b"), "a file is not named"),
    "no files": (told_otherwise(files={}), "a file is not named"),
    "folder": (replaced_manifest(Path.mkdir), "a manifest is no file"),
    "pipe": (replaced_manifest(os.mkfifo), "a manifest is no file"),
    "dangling link": (replaced_manifest(lambda file: file.symlink_to("nowhere")), "a manifest can't be read"),
    "looping link": (replaced_manifest(lambda file: file.symlink_to(file)), "a manifest can't be read"),
    "no UTF-8": (replaced_manifest(lambda file: file.write_bytes(b'{"meter": "\xff"}')), "not a manifest"),
    "deep nesting": (replaced_manifest(lambda file: file.write_text("[" * 100_000)), "not a manifest"),
    "empty": (replaced_manifest(Path.touch), "not a manifest"),
    "pipe for a file": (
        lambda folder: ((folder / "usage.csv").unlink(), os.mkfifo(folder / "usage.csv")),
        "a file is missing",
    ),
    "another type": (
        lambda folder: (
            pl.DataFrame(
                {"subject": ["a"], "quantity": [1.5]}, schema_overrides={"quantity": pl.Float32}
            ).write_parquet(folder / "usage.parquet"),
            restated(folder, "usage.parquet"),
        ),
        "a file can't be read",
    ),
}


@pytest.mark.parametrize(("tamper", "wrong"), ODD_REVISIONS.values(), ids=ODD_REVISIONS)
def test_an_odd_revision_is_named_and_keeps_no_other_from_being_checked(
    tmp_path: Path, tamper: Callable[[Path], Any], wrong: str
) -> None:
    folder = delivered(tmp_path)
    shutil.copytree(folder, tmp_path / "others")
    (folder.with_name("period=2026-01")).mkdir()
    tamper(folder / "revision=0002")
    checked = {each.folder.removeprefix(f"{tmp_path}/"): each.problems for each in verify_exports(tmp_path)}
    assert len(checked) == 4
    (odd,) = checked.keys() - {
        f"{name}/revision={n:04d}" for name, n in [("delivered", 1), ("others", 1), ("others", 2)]
    }
    assert checked.pop(odd)[0]["what"].startswith(wrong)
    assert [*checked.values()] == [[], [], []]


def test_there_must_be_something_to_verify(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to verify"):
        verify_exports(tmp_path)
