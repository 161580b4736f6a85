"""Revisions of exports as they lie in the lake: which there are, what they say of themselves, and publishing one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import polars as pl

from lake import paths
from lake.storage import Storage
from schemas.errors import BrokenLakeError, RefusedError

FORMAT = 1


class ExportedFile(msgspec.Struct, kw_only=True, frozen=True):
    """What a manifest says of one file."""

    sha256: str
    size_bytes: int
    rows: int
    # Name and type of each column, of a CSV that of what its text says.
    columns: dict[str, str]
    # Sums of the columns that add up, as exact decimal text.
    totals: dict[str, str]


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """What a revision says of itself. Nothing in it depends on when or where the export ran."""

    format: int = FORMAT
    meter: str
    period: str
    revision: int
    # `usage`, or after the period's close `adjustments`: such a revision has no usage files.
    kind: str
    unit: str
    aggregation: str
    group_by: list[str]
    columns: str
    csv_safe: bool
    meter_version: str
    # The sha256 of the manifest of the revision before, by which nobody can change it unseen.
    previous_sha256: str | None
    # The fingerprint of the inputs of each date that has events.
    inputs: dict[str, str]
    files: dict[str, ExportedFile]

    @property
    def keys(self) -> list[str]:
        """The columns that name a row, beside those that are the same in all rows."""
        return ["subject", *self.group_by]

    def to_json(self) -> bytes:
        """The manifest as one indented JSON document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class Close(msgspec.Struct, kw_only=True, frozen=True):
    """That a period is final, and with which revision it became so."""

    revision: int
    manifest_sha256: str


def parse_manifest(body: bytes, where: str) -> Manifest:
    """Raises BrokenLakeError if it is not a manifest of this format."""
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenLakeError("not a manifest of an export", where=where, found=str(error)) from error
    if manifest.format != FORMAT:
        raise BrokenLakeError(
            "a manifest of another version", where=where, expected=str(FORMAT), found=str(manifest.format)
        )
    return manifest


def load_manifests(storage: Storage, folder: str) -> dict[int, Manifest]:
    """The manifests of all revisions below a folder, by number, in order. What has none is no revision."""
    found = {}
    for file in storage.list(folder):
        number = paths.revision_number(folder, file.path)
        if number is not None and file.path == paths.revision(folder, number) + paths.MANIFEST:
            body = storage.read(file.path)
            if body is not None:
                found[number] = parse_manifest(body, file.path)
    return dict(sorted(found.items()))


def manifest_sha256(storage: Storage, folder: str, number: int) -> str:
    """The sha256 of a revision's manifest."""
    return hashlib.sha256(storage.read(paths.revision(folder, number) + paths.MANIFEST) or b"").hexdigest()


def scan_revision(storage: Storage, folder: str, number: int, name: str) -> pl.LazyFrame:
    """The rows of one Parquet file of a revision."""
    place = paths.revision(folder, number)
    for file in storage.list(place):
        if file.path == place + name:
            return storage.scan([file])
    raise BrokenLakeError("a file of an exported revision is missing", where=place + name)


def publish_revision(storage: Storage, folder: str, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Publish the files of a new revision, the manifest last; what an interrupted attempt has left is replaced.

    Takes the local files away. Raises RefusedError if the revision exists already.
    """
    place = paths.revision(folder, manifest.revision)
    if storage.exists(place + paths.MANIFEST):
        raise _exists(place)
    for file in storage.list(place):
        if file.path.removeprefix(place) not in files:
            storage.delete(file.path)
    for name, local in files.items():
        storage.publish_file(place + name, local)
    if not storage.create(place + paths.MANIFEST, manifest.to_json()):
        raise _exists(place)


def load_close(storage: Storage, folder: str) -> Close | None:
    """With which revision the period was closed; None for one that is open."""
    body = storage.read(folder + paths.CLOSED)
    try:
        return None if body is None else msgspec.json.decode(body, type=Close)
    except msgspec.DecodeError as error:
        raise BrokenLakeError(
            "not a record of a close", where=folder + paths.CLOSED, found=str(error)
        ) from error


def save_close(storage: Storage, folder: str, close: Close) -> bool:
    """Close a period; False, with nothing changed, if it is closed already."""
    body = msgspec.json.format(msgspec.json.encode(close), indent=2) + b"\n"
    return storage.create(folder + paths.CLOSED, body)


def _exists(place: str) -> RefusedError:
    return RefusedError(
        "another export has made this revision at the same time",
        where=place,
        hint="run the export again",
    )
