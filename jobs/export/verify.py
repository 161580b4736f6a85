"""Verify a delivered folder of exports by itself: hashes, rows, totals, and that the adjustments add up."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import polars as pl

from jobs.export.billing import (
    ADDITIVE,
    adjustments_as_decimals,
    adjustments_between,
    apply_adjustments,
    usage_as_decimals,
    with_omitted_rows,
)
from jobs.export.delivered_file import read_delivered
from jobs.export.files import ADJUSTMENTS, USAGE, column_names, describe, scan_file
from jobs.export.verify_latest import check_latest
from lake import paths
from lake.revisions import ExportedFile, Manifest, parse_manifest
from schemas.columns import EARLIER_QUOTIENT
from schemas.errors import BadInputError, MeterlakeError

ADJUSTMENTS_FILE, USAGE_FILE = f"{ADJUSTMENTS}.parquet", f"{USAGE}.parquet"
# No manifest is that large: a date takes 40 bytes, and a column little more.
MAX_MANIFEST_BYTES = 64 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Errors of reading a file that is not as described; a panic inside Polars is no Exception.
_UNREADABLE = (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


class VerifiedRevision(msgspec.Struct, kw_only=True):
    """The result for one revision: what was checked, and its errors."""

    folder: str
    meter: str = ""
    period: str = ""
    files: int = 0
    rows: int = 0
    problems: list[dict[str, str]] = msgspec.field(default_factory=list)


def verify_exports(folder: Path) -> list[VerifiedRevision]:
    """Verify every revision in a folder or below it, in order of their paths.

    Checks that each manifest fits its folder; that each file has the hash, size, columns, rows and totals of the
    manifest, and that there are no others; and if the revision before is in the folder too, that the manifest names it
    and that its quantities and the adjustments add up to those of this one. Checks too that the `latest.json` of each
    export describes the last revision, which has the error if not. All revisions are verified, whatever is wrong with
    one. Links to folders are not followed. Raises BadInputError if there is no manifest at all.
    """
    revision_folders, latest_folders = [], []
    for inner, folders, files in os.walk(folder):
        if paths.MANIFEST in (*folders, *files):
            revision_folders.append(Path(inner))
        if paths.LATEST in (*folders, *files):
            latest_folders.append(Path(inner))
    if not revision_folders:
        raise BadInputError(
            "nothing to verify", where=str(folder), expected="a folder with a manifest.json in or below it"
        )
    checked = {each: _verify(each) for each in sorted(revision_folders)}
    # A single revision as `folder` has no export around it.
    exports: dict[Path, dict[int, Path]] = {each: {} for each in latest_folders if each not in checked}
    for each in checked:
        if each != folder and (number := _number(each)):
            exports.setdefault(each.parent, {})[number] = each
    for export, revisions in exports.items():
        _verify_latest(export, revisions, checked)
    return [checked[each] for each in sorted(checked)]


def _number(folder: Path) -> int:
    """Return the number of the revision in the name of a folder; 0 for any other folder."""
    return paths.revision_number("", f"{folder.name}/") or 0


def _verify_latest(
    export: Path, revisions: Mapping[int, Path], checked: dict[Path, VerifiedRevision]
) -> None:
    """Add the errors of an export's `latest.json` to those of its last revision."""
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
        # Files are compared with a right manifest only, and revisions only if all files are right.
        problems = problems or [*_files(folder, manifest)]
        problems = problems or [*_chain(folder, manifest)]
    except MeterlakeError as error:
        problems = [error]
    except _UNREADABLE as error:
        problems = [
            _wrong(folder, "a revision can't be checked", "files as in the manifest", _first_line(error))
        ]
    done.problems = [problem.to_dict() for problem in problems]
    return done


def _manifest(folder: Path) -> Manifest:
    file = folder / paths.MANIFEST
    return parse_manifest(read_delivered(file, "a manifest", MAX_MANIFEST_BYTES), str(file))


def _contradictions(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    """Yield an error for each member of a manifest that no export writes, or that differs from its folders' names."""
    file, parts = folder / paths.MANIFEST, dict(part.split("=", 1) for part in folder.parts if "=" in part)
    named = {
        "revision": f"{manifest.revision:04d}",
        "period": manifest.period,
        "by": ",".join(manifest.group_by),
    }
    for name, expected in named.items():
        # A delivered folder may have any name, but one like those of a lake must be right.
        if parts.get(name, expected) != expected:
            yield _wrong(file, f"the {name} is not that of its folder", parts[name], expected)
    if manifest.kind not in (USAGE, ADJUSTMENTS):
        yield _wrong(file, "an unknown kind of revision", f"{USAGE} or {ADJUSTMENTS}", repr(manifest.kind))
    first = manifest.revision == 1 and manifest.kind == USAGE
    previous = manifest.previous_sha256
    if manifest.revision < 1 or (previous is None) != first or not _SHA256.fullmatch(previous or "0" * 64):
        expected = "a first revision of usage, or the sha256 of the manifest before"
        yield _wrong(file, "the revision before is not named correctly", expected, repr(previous))
    if len({*manifest.keys}) < len(manifest.keys):
        yield _wrong(file, "a dimension is duplicated", "each once", ", ".join(manifest.group_by))
    for name in sorted(_needed(manifest) - manifest.files.keys()):
        yield _wrong(file, "a file is not named", name, ", ".join(manifest.files) or "no files")
    for name in manifest.files:
        if not (name and Path(name).name == name and "\0" not in name):
            yield _wrong(file, "not the name of a file", "a name in the revision's folder", repr(name))


def _needed(manifest: Manifest) -> set[str]:
    """Return the names of the files that a revision of this kind has."""
    tables = ({USAGE} if manifest.kind == USAGE else set()) | (
        {ADJUSTMENTS} if manifest.revision > 1 else set()
    )
    return {f"{table}{suffix}" for table in tables for suffix in (".csv", ".parquet")}


def _files(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    additive = manifest.aggregation in ADDITIVE or manifest.series is not msgspec.UNSET
    for name, expected in manifest.files.items():
        yield from _file(folder / name, expected, additive=additive)
    for file in sorted(folder.iterdir()):
        if file.name not in manifest.files and file.name != paths.MANIFEST:
            yield _wrong(file, "a file that the manifest does not name", "only its files", file.name)


def _file(file: Path, expected: ExportedFile, *, additive: bool) -> Iterator[MeterlakeError]:
    if not file.is_file():
        yield _wrong(file, "a file is missing", file.name, "no such file")
        return
    if _sha256(file) != expected.sha256:
        yield _wrong(file, "a file is not the one that was exported", expected.sha256, _sha256(file))
        return
    try:
        actual = describe(file, expected.columns, additive=additive)
        columns = column_names(scan_file(file))
    except _UNREADABLE as error:
        yield _wrong(file, "a file can't be read", "a file as in the manifest", _first_line(error))
        return
    if file.suffix == ".csv":
        # A CSV has no types.
        columns = {**expected.columns} if list(columns) == list(expected.columns) else columns
    if actual != expected or columns != expected.columns:
        differs = [
            part
            for part in ("size_bytes", "rows", "totals")
            if getattr(actual, part) != getattr(expected, part)
        ]
        yield _wrong(
            file,
            "the manifest differs from the file",
            "what is in the file",
            ", ".join(differs or ["columns"]),
        )


def _chain(folder: Path, manifest: Manifest) -> Iterator[MeterlakeError]:
    """Yield an error unless the revision before, if it was delivered, and the adjustments add up to this revision."""
    before = _before(folder, manifest)
    if before is None:
        return
    sha256 = _sha256(before / paths.MANIFEST)
    if sha256 != manifest.previous_sha256:
        yield _wrong(before, "not the revision before", str(manifest.previous_sha256), sha256)
        return
    actual = scan_file(folder / ADJUSTMENTS_FILE)
    # Earlier versions computed the adjustments of avg and rate from doubles.
    exact = actual.collect_schema().get("quantity_change") != EARLIER_QUOTIENT
    old = _quantities(before, _manifest(before), exact=exact)
    new = _quantities(folder, manifest, exact=exact)
    if old is None or new is None:
        return
    expected = adjustments_between(old, new, manifest.keys)
    columns = expected.collect_schema().names()
    actual = actual.select(columns)
    differing = sum(
        one.join(other, on=columns, how="anti", nulls_equal=True).select(pl.len()).collect().item()
        for one, other in ((expected, actual), (actual, expected))
    )
    if differing:
        yield _wrong(
            folder, "the adjustments do not add up", "the rows of this revision", f"{differing} other rows"
        )


def _before(folder: Path, manifest: Manifest) -> Path | None:
    """Return the folder of the revision before; None if it was not delivered."""
    if manifest.revision == 1 or folder.name != paths.revision_name(manifest.revision):
        return None
    before = folder.with_name(paths.revision_name(manifest.revision - 1))
    return before if (before / paths.MANIFEST).is_file() else None


def _quantities(folder: Path, manifest: Manifest, *, exact: bool) -> pl.LazyFrame | None:
    """Return keys and quantities of a revision, with omitted rows as in the revisions before.

    None if one of those is needed and was not delivered. With `exact`, quantities are decimals, whatever version made
    the revision.
    """
    usage = None
    if manifest.kind == USAGE:
        rows = scan_file(folder / USAGE_FILE)
        rows = usage_as_decimals(rows) if exact else rows
        usage = rows.select(*manifest.keys, "quantity")
    if usage is not None and not (manifest.left_out and manifest.revision > 1):
        return usage
    before = _before(folder, manifest)
    old = _quantities(before, _manifest(before), exact=exact) if before else None
    if old is None:
        return None
    if usage is not None:
        return with_omitted_rows(usage, manifest.left_out or [], old, manifest.keys)
    adjustments = scan_file(folder / ADJUSTMENTS_FILE)
    adjustments = adjustments_as_decimals(adjustments) if exact else adjustments
    return apply_adjustments(old, adjustments, manifest.keys)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _wrong(file: Path, what: str, expected: str, found: str) -> MeterlakeError:
    return BadInputError(what, where=str(file), expected=expected, found=found)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
