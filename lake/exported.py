"""Exported revisions of a meter's months as frames; each file is checked by the sha256 in its manifest."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping

import polars as pl

from lake import paths
from lake.revisions import Manifest, Revisions
from lake.storage import Storage
from schemas.errors import BadInputError, BrokenLakeError

REVISION_TYPES: dict[str, pl.DataType] = {
    "period": pl.String(),
    "revision": pl.Int64(),
    "kind": pl.String(),
    "rows": pl.Int64(),
    "changed_dates": pl.List(pl.Date()),
    "meter_version": pl.String(),
    "closed": pl.Boolean(),
}


def revisions(storage: Storage, meter: str, period: str | None) -> pl.DataFrame:
    """Return a row for each revision of a meter's months in the usual form, with REVISION_TYPES; sorted by month and number.

    Reads the manifests. Raises BrokenLakeError for one that is not the one that the next revision names.
    """
    if period is None:
        places = map(paths.split_export, (file.path for file in storage.list(paths.meter_exports(meter))))
        periods = sorted({place.period for place in places if place and not place.variant})
    else:
        periods = [period]
    months = (Revisions(storage, paths.exports(meter, each)) for each in periods)
    return pl.DataFrame(
        [row for month in months for row in _rows(month)], schema=REVISION_TYPES, orient="row"
    )


def exported(
    storage: Storage, meter: str, period: str, number: int | None = None, table: str | None = None
) -> pl.LazyFrame:
    """Return the rows of a revision, by default the last one, as they were exported.

    `table` is `usage` or `adjustments`; by default the kind of the revision. Raises BadInputError where no
    such export exists, and BrokenLakeError naming a file of the revision that is not the one that was exported.
    """
    month = Revisions(storage, paths.exports(meter, period))
    number = month.last if number is None else number
    if number not in month.numbers:
        raise BadInputError(
            "no such revision",
            where=f"exports of meter {meter!r}, {period}",
            expected=f"one of {', '.join(map(str, month.numbers))}" if month.numbers else "an exported month",
            found=f"revision {number}" if month.numbers else "no export",
            hint="" if month.numbers else f"meterlake export --period {period}",
        )
    manifest = month.manifest(number)
    _check_files(month, manifest)
    name = f"{table or manifest.kind}.parquet"
    if name not in manifest.files:
        raise BadInputError(
            f"revision {number} has no {name}",
            where=month.folder,
            expected=f"one of {', '.join(each for each in manifest.files if each.endswith('.parquet'))}",
            found=name,
        )
    return month.scan(number, name)


def _rows(month: Revisions) -> Iterable[tuple[object, ...]]:
    closed = month.close()
    inputs: Mapping[str, str] = {}
    for position, number in enumerate(month.numbers):
        manifest = month.manifest(number)
        if position and month.sha256(month.numbers[position - 1]) != manifest.previous_sha256:
            raise _changed(paths.revision(month.folder, month.numbers[position - 1]) + paths.MANIFEST)
        changed = [
            dt.date.fromisoformat(date)
            for date in sorted(inputs.keys() | manifest.inputs.keys())
            if inputs.get(date) != manifest.inputs.get(date)
        ]
        rows = manifest.files[f"{manifest.kind}.parquet"].rows
        is_closed = closed is not None and number >= closed.revision
        yield manifest.period, number, manifest.kind, rows, changed, manifest.meter_version, is_closed
        inputs = manifest.inputs


def _check_files(month: Revisions, manifest: Manifest) -> None:
    for name, stated in manifest.files.items():
        path = paths.revision(month.folder, manifest.revision) + name
        if path not in month.files:
            raise BrokenLakeError("a file of an exported revision is missing", where=path)
        with month.storage.local(month.files[path]).open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != stated.sha256:
                raise _changed(path)


def _changed(path: str) -> BrokenLakeError:
    return BrokenLakeError(
        "a file of an exported revision was changed",
        where=path,
        expected="the sha256 in the manifest",
        found="another",
        hint="restore it from a backup: a revision is never rewritten",
    )
