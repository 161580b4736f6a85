"""Check a delivered folder of exports with nothing else at hand: hashes, rows, totals, and that adjustments add up."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import polars as pl

from jobs.export.billing import ADDITIVE, adjusted, changes, stated_adjustments, stated_usage, with_left_out
from jobs.export.delivered_file import read_delivered
from jobs.export.files import ADJUSTMENTS, USAGE, column_names, describe, scan_file
from jobs.export.verify_latest import check_latest
from lake import paths
from lake.revisions import Manifest, parse_manifest
from schemas.columns import EARLIER_QUOTIENT
from schemas.errors import BadInputError, MeterlakeError

ADJUSTMENTS_FILE, USAGE_FILE = f"{ADJUSTMENTS}.parquet", f"{USAGE}.parquet"
# No manifest comes near: a name of a date takes 40 bytes, and of a column little more.
MAX_MANIFEST_BYTES = 64 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What reading a file may raise that is not what its manifest says; a panic inside Polars is no Exception.
_UNREADABLE = (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


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

    Of each: that its manifest fits its folder; that every file is there with its hash, size, columns, rows and totals,
    and no other file; and where the revision before is there too, that the manifest names it, and that its quantities
    and the adjustments make exactly those of this one. Of each export, that its `latest.json` names the last revision
    and is right of it, told of that revision. Whatever is wrong with one, all are checked. Links to folders
    are not followed. Raises BadInputError where there is no manifest at all.
    """
    found, named = [], []
    for inner, folders, files in os.walk(folder):
        if paths.MANIFEST in (*folders, *files):
            found.append(Path(inner))
        if paths.LATEST in (*folders, *files):
            named.append(Path(inner))
    if not found:
        raise BadInputError(
            "nothing to verify", where=str(folder), expected="a folder with a manifest.json in or below it"
        )
    checked = {each: _verify(each) for each in sorted(found)}
    # Only a revision that was not asked for alone has something beside it.
    exports: dict[Path, dict[int, Path]] = {each: {} for each in named if each not in checked}
    for each in checked:
        if each != folder and (number := _number(each)):
            exports.setdefault(each.parent, {})[number] = each
    for export, revisions in exports.items():
        _verify_latest(export, revisions, checked)
    return [checked[each] for each in sorted(checked)]


def _number(folder: Path) -> int:
    """The number of the revision that a folder is named after; 0 for any other folder."""
    return paths.revision_number("", f"{folder.name}/") or 0


def _verify_latest(
    export: Path, revisions: Mapping[int, Path], checked: dict[Path, VerifiedRevision]
) -> None:
    """Add what is wrong with what an export says of its last revision to what is told of that."""
    manifests = [(number, _readable_manifest(revisions[number])) for number in sorted(revisions)]
    problems = [error.to_dict() for error in check_latest(export, manifests)]
    if problems:
        last = revisions[max(revisions)] if revisions else export
        checked.setdefault(last, VerifiedRevision(folder=str(last))).problems += problems


def _readable_manifest(folder: Path) -> Manifest | None:
    try:
        return _manifest(folder)
    except MeterlakeError:
        return None


def _verify(folder: Path) -> VerifiedRevision:
    done = VerifiedRevision(folder=str(folder))
    try:
        manifest = _manifest(folder)
        done.meter, done.period = manifest.meter, manifest.period
        done.files = len(manifest.files)
        done.rows = max((file.rows for file in manifest.files.values()), default=0)
        problems = [*_contradictions(folder, manifest)]
        # Only what is itself as it was written can tell anything of its files, and these of another revision.
        problems = problems or [*_files(folder, manifest)]
        problems = problems or [*_chain(folder, manifest)]
    except MeterlakeError as error:
        problems = [error]
    except _UNREADABLE as error:
        problems = [
            _wrong(folder, "a revision can't be checked", "what its manifest says", _first_line(error))
        ]
    done.problems = [problem.to_dict() for problem in problems]
    return done


def _manifest(folder: Path) -> Manifest:
    file = folder / paths.MANIFEST
    return parse_manifest(read_delivered(file, "a manifest", MAX_MANIFEST_BYTES), str(file))


def _contradictions(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    """What a manifest says that no export would, or that is not what its folders are named after."""
    file, parts = folder / paths.MANIFEST, dict(part.split("=", 1) for part in folder.parts if "=" in part)
    named = {
        "revision": f"{manifest.revision:04d}",
        "period": manifest.period,
        "by": ",".join(manifest.group_by),
    }
    for name, expected in named.items():
        # A folder that was delivered may have any name; one that says what it holds must be right.
        if parts.get(name, expected) != expected:
            yield _wrong(file, f"the {name} is not that of its folder", parts[name], expected)
    if manifest.kind not in (USAGE, ADJUSTMENTS):
        yield _wrong(file, "an unknown kind of revision", f"{USAGE} or {ADJUSTMENTS}", repr(manifest.kind))
    first = manifest.revision == 1 and manifest.kind == USAGE
    previous = manifest.previous_sha256
    if manifest.revision < 1 or (previous is None) != first or not _SHA256.fullmatch(previous or "0" * 64):
        expected = "a first revision of usage, or the sha256 of the manifest before"
        yield _wrong(file, "the revision before is not named as it must be", expected, repr(previous))
    if len({*manifest.keys}) < len(manifest.keys):
        yield _wrong(file, "a dimension stands twice", "each once", ", ".join(manifest.group_by))
    for name in sorted(_needed(manifest) - manifest.files.keys()):
        yield _wrong(file, "a file is not named", name, ", ".join(manifest.files) or "no files")
    for name in manifest.files:
        if not (name and Path(name).name == name and "\0" not in name):
            yield _wrong(file, "not the name of a file", "a name in the revision's folder", repr(name))


def _needed(manifest: Manifest) -> set[str]:
    """The files that a revision of this kind has."""
    tables = ({USAGE} if manifest.kind == USAGE else set()) | (
        {ADJUSTMENTS} if manifest.revision > 1 else set()
    )
    return {f"{table}{suffix}" for table in tables for suffix in (".csv", ".parquet")}


def _files(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    for name, said in manifest.files.items():
        file = folder / name
        if not file.is_file():
            yield _wrong(file, "a file is missing", name, "no such file")
            continue
        if _sha256(file) != said.sha256:
            yield _wrong(file, "a file is not the one that was exported", said.sha256, _sha256(file))
            continue
        try:
            additive = manifest.aggregation in ADDITIVE or manifest.series is not msgspec.UNSET
            found = describe(file, said.columns, additive=additive)
            columns = column_names(scan_file(file))
        except _UNREADABLE as error:
            yield _wrong(file, "a file can't be read", "what its manifest says", _first_line(error))
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
    told = scan_file(folder / ADJUSTMENTS_FILE)
    # Earlier versions have taken the adjustments of avg and rate from doubles.
    exact = told.collect_schema().get("quantity_change") != EARLIER_QUOTIENT
    old = _quantities(before, _manifest(before), exact=exact)
    new = _quantities(folder, manifest, exact=exact)
    if old is None or new is None:
        return
    right = changes(old, new, manifest.keys)
    columns = right.collect_schema().names()
    told = told.select(columns)
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


def _quantities(folder: Path, manifest: Manifest, *, exact: bool) -> pl.LazyFrame | None:
    """What a revision says was used, what it leaves out as it was before; None where that takes a revision that is not there.

    With `exact` as decimals, whatever version has made it.
    """
    usage = None
    if manifest.kind == USAGE:
        stated = scan_file(folder / USAGE_FILE)
        stated = stated_usage(stated) if exact else stated
        usage = stated.select(*manifest.keys, "quantity")
    if usage is not None and not (manifest.left_out and manifest.revision > 1):
        return usage
    before = _before(folder, manifest)
    old = _quantities(before, _manifest(before), exact=exact) if before else None
    if usage is not None:
        return None if old is None else with_left_out(usage, manifest.left_out or [], old, manifest.keys)
    told = scan_file(folder / ADJUSTMENTS_FILE)
    told = stated_adjustments(told) if exact else told
    return None if old is None else adjusted(old, told, manifest.keys)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _wrong(file: Path, what: str, expected: str, found: str) -> MeterlakeError:
    return BadInputError(what, where=str(file), expected=expected, found=found)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
