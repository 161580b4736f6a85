"""Verify the file of a delivered export that names its last revision, `latest.json`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from jobs.export.delivered_file import read_delivered
from lake import paths
from lake.decoding import decode
from lake.latest_revision import Latest
from lake.revisions import Manifest
from schemas.errors import BadInputError, MeterlakeError

MAX_BYTES = 2**16
HINT = "in a lake run: meterlake nightly; a delivered folder needs all its files"


def check_latest(folder: Path, manifests: Sequence[tuple[int, Manifest | None]]) -> Iterator[MeterlakeError]:
    """Yield an error for each difference between the file and the revisions beside it.

    `manifests` are in order of their numbers; None for one that can't be read, which is an error of its revision. The
    file may be missing if an earlier version, without such files, made the last revision: the next night makes it.
    """
    file = folder / paths.LATEST
    if _is_earlier(manifests) and not os.path.lexists(file):
        return
    try:
        latest = decode(
            read_delivered(file, paths.LATEST, MAX_BYTES), Latest, f"not a {paths.LATEST}", where=str(file)
        )
    except MeterlakeError as error:
        yield BadInputError(
            error.what, where=error.where, expected=error.expected, found=error.found, hint=HINT
        )
        return
    for name, (expected, found) in _contradictions(folder, latest, manifests).items():
        what = f"{name} of {paths.LATEST} is not that of the revisions"
        yield BadInputError(what, where=str(file), expected=str(expected), found=str(found), hint=HINT)


def _is_earlier(manifests: Sequence[tuple[int, Manifest | None]]) -> bool:
    last = manifests[-1][1] if manifests else None
    return last is not None and last.event_rows is msgspec.UNSET


def _contradictions(
    folder: Path, latest: Latest, manifests: Sequence[tuple[int, Manifest | None]]
) -> dict[str, tuple[object, object]]:
    """Return the expected and the actual value of each member that differs."""
    number, manifest = manifests[-1] if manifests else (0, None)
    expected: dict[str, object] = {"revision": number, "closed": (folder / paths.CLOSED).is_file()}
    usage = [number for number, each in manifests if each and each.kind == "usage"]
    if usage and all(each for _, each in manifests):
        expected["usage_revision"] = usage[-1]
    if manifest:
        body = (folder / paths.revision_name(number) / paths.MANIFEST).read_bytes()
        expected |= {"kind": manifest.kind, "manifest_sha256": hashlib.sha256(body).hexdigest()}
    if latest.revision != number:
        # It describes another revision, so its other members can't be compared.
        expected = {"revision": number}
    actual = {name: getattr(latest, name) for name in expected}
    return {name: (value, actual[name]) for name, value in expected.items() if actual[name] != value}
