"""Check a delivered folder of exports with nothing else at hand: hashes, rows, totals, and that adjustments add up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl

from jobs.billing import ADDITIVE, adjusted, changes
from jobs.export_files import ADJUSTMENTS, USAGE, column_names, describe, scan_file
from lake import paths
from lake.exports import Manifest, parse_manifest
from schemas.errors import BadInputError, MeterlakeError

ADJUSTMENTS_FILE, USAGE_FILE = f"{ADJUSTMENTS}.parquet", f"{USAGE}.parquet"


class VerifiedRevision(msgspec.Struct, kw_only=True):
    """What was checked of one revision, and what is wrong with it."""

    folder: str
    meter: str = ""
    period: str = ""
    files: int = 0
    rows: int = 0
    problems: list[dict[str, str]] = msgspec.field(default_factory=list)


def verify_exports(folder: Path) -> list[VerifiedRevision]:
    """Check every revision in a folder or below it, in order of their paths.

    Of each: that every file is there with its hash, size, columns, rows and totals, and no other file; and where the
    revision before is there too, that the manifest names it, and that its quantities and the adjustments make
    exactly those of this one. Raises BadInputError where there is no manifest at all.
    """
    manifests = sorted(folder.rglob(paths.MANIFEST))
    if not manifests:
        raise BadInputError(
            "nothing to verify", where=str(folder), expected="a folder with a manifest.json in or below it"
        )
    return [_verify(file.parent) for file in manifests]


def _verify(folder: Path) -> VerifiedRevision:
    done = VerifiedRevision(folder=str(folder))
    try:
        manifest = _manifest(folder)
        done.meter, done.period = manifest.meter, manifest.period
        done.files = len(manifest.files)
        done.rows = max((file.rows for file in manifest.files.values()), default=0)
        problems = [*_files(folder, manifest)]
        # Only what is itself as it was written can tell anything of another revision.
        problems = problems or [*_chain(folder, manifest)]
    except MeterlakeError as error:
        problems = [error]
    done.problems = [problem.to_dict() for problem in problems]
    return done


def _manifest(folder: Path) -> Manifest:
    file = folder / paths.MANIFEST
    return parse_manifest(file.read_bytes(), str(file))


def _files(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    for name, said in manifest.files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            yield _wrong(file, "a file is missing", name, "no such file")
            continue
        if _sha256(file) != said.sha256:
            yield _wrong(file, "a file is not the one that was exported", said.sha256, _sha256(file))
            continue
        try:
            found = describe(file, said.columns, additive=manifest.aggregation in ADDITIVE)
            columns = column_names(scan_file(file))
        except pl.exceptions.PolarsError as error:
            yield _wrong(file, "a file can't be read", "what its manifest says", str(error).splitlines()[0])
            continue
        if file.suffix == ".csv":
            # Text tells no types.
            columns = {**said.columns} if list(columns) == list(said.columns) else columns
        if found != said or columns != said.columns:
            differs = [
                part
                for part in ("size_bytes", "rows", "totals")
                if getattr(found, part) != getattr(said, part)
            ]
            yield _wrong(
                file, "the manifest says otherwise", "what is in the file", ", ".join(differs or ["columns"])
            )
    for file in sorted(folder.iterdir()):
        if file.name not in manifest.files and file.name != paths.MANIFEST:
            yield _wrong(file, "a file that the manifest does not name", "only its files", file.name)


def _chain(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    """Whether the revision before, where it is there, and the adjustments make this revision."""
    before = _before(folder, manifest)
    if before is None:
        return
    sha256 = _sha256(before / paths.MANIFEST)
    if sha256 != manifest.previous_sha256:
        yield _wrong(before, "not the revision that was there before", str(manifest.previous_sha256), sha256)
        return
    old, new = _quantities(before, _manifest(before)), _quantities(folder, manifest)
    if old is None or new is None:
        return
    right = changes(old, new, manifest.keys)
    columns = right.collect_schema().names()
    told = scan_file(folder / ADJUSTMENTS_FILE).select(columns)
    wrong = sum(
        one.join(other, on=columns, how="anti", nulls_equal=True).select(pl.len()).collect().item()
        for one, other in ((right, told), (told, right))
    )
    if wrong:
        yield _wrong(
            folder, "the adjustments do not add up", "the rows of this revision", f"{wrong} other rows"
        )


def _before(folder: Path, manifest: Manifest) -> Path | None:
    """The folder of the revision before, if it is there."""
    if manifest.revision == 1 or folder.name != f"revision={manifest.revision:04d}":
        return None
    before = folder.with_name(f"revision={manifest.revision - 1:04d}")
    return before if (before / paths.MANIFEST).is_file() else None


def _quantities(folder: Path, manifest: Manifest) -> pl.LazyFrame | None:
    """What a revision says was used; None where that takes a revision that is not there."""
    if manifest.kind == USAGE:
        return scan_file(folder / USAGE_FILE).select(*manifest.keys, "quantity")
    before = _before(folder, manifest)
    old = _quantities(before, _manifest(before)) if before else None
    return None if old is None else adjusted(old, scan_file(folder / ADJUSTMENTS_FILE), manifest.keys)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _wrong(file: Path, what: str, expected: str, found: str) -> MeterlakeError:
    return BadInputError(what, where=str(file), expected=expected, found=found)
