"""The newest exports of a lake, from their manifests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from jobs.status import Status
from lake import paths
from lake.revisions import Manifest, parse_manifest
from lake.storage import Storage
from schemas.errors import MeterlakeError

# Of each way to export a meter, the newest periods; and so many exports in all.
PERIODS, MAX_EXPORTS = 6, 60
_EXPORT = re.compile(
    r"exports/(?P<meter>[^/]+)/period=(?P<period>[^/]+)/(?P<form>(?:(?!revision=)[^/]+/)*)"
    r"(?:revision=(?P<revision>\d+)/)?(?P<file>[^/]+)"
)


class ExportFigures(msgspec.Struct, kw_only=True, frozen=True):
    """The newest revision of one period in one form."""

    meter: str
    period: str
    form: str
    revision: int
    closed: bool
    rows: int
    total: str


class Exports(msgspec.Struct, kw_only=True, frozen=True):
    """The newest exports, by meter, form and period, the newest period first, and how many others there are."""

    shown: list[ExportFigures]
    left_out: int


class _Place(NamedTuple):
    """Where the revisions of one period in one form lie, the newest of them, and whether it is closed."""

    meter: str
    form: str
    period: str
    revision: int
    closed: bool


def newest_exports(storage: Storage, status: Status) -> Exports:
    """Return the newest exports. A manifest that can't be read is noted among the status' problems."""
    places = _places(file.path for file in storage.list(paths.EXPORTS))
    chosen = _newest(places)
    figures = [_figures(storage, place, status) for place in sorted(chosen, key=lambda each: each[:2])]
    return Exports(shown=[each for each in figures if each], left_out=len(places) - len(chosen))


def _places(listed: Iterable[str]) -> list[_Place]:
    matches = [match for match in map(_EXPORT.fullmatch, listed) if match]
    revisions: dict[tuple[str, str, str], int] = {}
    for match in matches:
        if match["file"] == paths.MANIFEST:
            key = unquote(match["meter"]), match["form"], match["period"]
            revisions[key] = max(revisions.get(key, 0), int(match["revision"] or 0))
    closed = {
        (unquote(match["meter"]), match["form"], match["period"])
        for match in matches
        if match["file"] == paths.CLOSED
    }
    return [_Place(*key, revision, key in closed) for key, revision in revisions.items()]


def _newest(places: Iterable[_Place]) -> list[_Place]:
    """Return the newest periods of each meter and form, and of all these the newest, the newest first."""
    by_period = sorted(places, key=lambda place: (place.period, place.meter, place.form), reverse=True)
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for place in by_period:
        seen[place.meter, place.form] += 1
        if seen[place.meter, place.form] <= PERIODS:
            chosen.append(place)
    return chosen[:MAX_EXPORTS]


def _figures(storage: Storage, place: _Place, status: Status) -> ExportFigures | None:
    folder = paths.exports(place.meter, place.period, *place.form.split("/")[:-1])
    path = paths.revision(folder, place.revision) + paths.MANIFEST
    try:
        manifest = parse_manifest(storage.read(path) or b"", path)
    except MeterlakeError as error:
        status.add_error(error)
        return None
    return _export(manifest, place.form, closed=place.closed)


def _export(manifest: Manifest, form: str, *, closed: bool) -> ExportFigures:
    file = manifest.files.get("usage.parquet") or manifest.files.get("adjustments.csv")
    return ExportFigures(
        meter=manifest.meter,
        period=manifest.period,
        form=form.rstrip("/").replace("/", ", ") or "usual",
        revision=manifest.revision,
        closed=closed,
        rows=file.rows if file else 0,
        total=file.totals.get("quantity", "") if file else "",
    )
