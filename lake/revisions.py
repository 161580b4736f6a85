"""Revisions of exports: list them, read their manifests, publish one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from lake import paths
from lake.decoding import decode
from lake.storage import Storage, StoredFile, not_regular_error
from schemas.errors import BrokenLakeError, RefusedError

FORMAT = 1


class ExportedFile(msgspec.Struct, kw_only=True, frozen=True):
    """One file in a manifest."""

    sha256: str
    size_bytes: int
    rows: int
    # Name and type of each column; for a CSV the type that its text is of.
    columns: dict[str, str]
    # Sums of the columns that add up, as exact decimal text.
    totals: dict[str, str]


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """The manifest of a revision. Nothing in it depends on when or where the export ran."""

    format: int = FORMAT
    meter: str
    period: str
    revision: int
    # `usage`, or after the period's close `adjustments`: such a revision has no usage files.
    kind: str
    unit: str
    aggregation: str
    # The dimensions that name a series, whose levels are added; absent for other meters.
    series: list[str] | msgspec.UnsetType = msgspec.UNSET
    group_by: list[str]
    columns: str
    csv_safe: bool
    meter_version: str
    # The sha256 of the manifest of the revision before, so that a change of that is noticed.
    previous_sha256: str | None
    # The fingerprint of the inputs of each date that has events.
    inputs: dict[str, str]
    files: dict[str, ExportedFile]
    # The keys of rows that `usage` lacks since one of their sums is too large, in order; absent if there are none.
    left_out: list[dict[str, str | float | bool | None]] | msgspec.UnsetType = msgspec.UNSET
    # Fingerprints of the events of these dates, which a new definition does not change: of their rows in `usage`, which
    # compacting or copying files does not change either, and of their files, nor do other reading rules change those.
    event_rows: str | msgspec.UnsetType = msgspec.UNSET
    event_files: str | msgspec.UnsetType = msgspec.UNSET
    # From how many dates before the month levels are carried; absent if from none.
    carry_days: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def keys(self) -> list[str]:
        """The columns that identify a row, besides those that are the same in all rows."""
        return ["subject", *self.group_by]

    def to_json(self) -> bytes:
        """Return the manifest as one indented JSON document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class Close(msgspec.Struct, kw_only=True, frozen=True):
    """The record that a period is closed: the revision that closed it."""

    revision: int
    manifest_sha256: str


def parse_manifest(body: bytes, where: str) -> Manifest:
    """Return a decoded manifest. Raises BrokenLakeError if it is not a manifest of this format."""
    manifest = decode(body, Manifest, "not a manifest of an export", where=where)
    if manifest.format != FORMAT:
        raise BrokenLakeError(
            "a manifest of another version", where=where, expected=str(FORMAT), found=str(manifest.format)
        )
    return manifest


class Revisions:
    """The revisions of one export, from one listing; each manifest is read once, when it is first used."""

    def __init__(self, storage: Storage, folder: str, listed: Sequence[StoredFile] | None = None) -> None:
        """Take the folder's files as `listed`, if nothing else can have changed them since; else list them."""
        self.storage, self.folder, self.is_listed = storage, folder, listed is not None
        self.files = {file.path: file for file in (storage.list(folder) if listed is None else listed)}
        for file in self.files.values():
            # A folder that can't be listed would seem to have no revision, so that it would be made again.
            if file.unreadable and "=" in file.path.rsplit("/", 1)[-1]:
                raise not_regular_error(file.path, file.unreadable)
        numbers = {paths.revision_number(folder, path) for path in self.files}
        self.numbers = sorted(
            number
            for number in numbers - {None}
            if number is not None and paths.revision(folder, number) + paths.MANIFEST in self.files
        )
        self._bodies: dict[int, bytes] = {}

    @property
    def last(self) -> int:
        """The number of the last revision; 0 without any. A folder without a manifest is no revision."""
        return self.numbers[-1] if self.numbers else 0

    @property
    def is_closed(self) -> bool:
        """Whether the period is closed."""
        return self.folder + paths.CLOSED in self.files

    def manifest(self, number: int) -> Manifest:
        """Return the manifest of a revision."""
        return parse_manifest(self._body(number), self._place(number) + paths.MANIFEST)

    def sha256(self, number: int) -> str:
        """Return the sha256 of a revision's manifest."""
        return hashlib.sha256(self._body(number)).hexdigest()

    def left_out(self, number: int) -> list[dict[str, Any]]:
        """Return the keys of the rows that a revision names and does not have."""
        return list(self.manifest(number).left_out or [])

    def kind(self, number: int) -> str:
        """Return the `kind` of a revision: only those after a close can be other than `usage`."""
        return self.manifest(number).kind if self.is_closed else "usage"

    def scan(self, number: int, name: str) -> pl.LazyFrame:
        """Return the rows of one Parquet file of a revision. Raises BrokenLakeError if it is missing."""
        file = self.files.get(self._place(number) + name)
        if file is None:
            raise BrokenLakeError(
                "a file of an exported revision is missing", where=self._place(number) + name
            )
        # Its columns are read first, and then its rows, once or twice.
        self.storage.prefetch([file])
        return self.storage.scan([file])

    def close(self) -> Close | None:
        """Return with which revision the period was closed; None for one that is open."""
        return load_close(self.storage, self.folder) if self.is_closed else None

    def publish(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """Publish the files of a new revision, the manifest last; files of an interrupted attempt are replaced.

        Removes the local files. Raises RefusedError if the revision exists already.
        """
        place = self._place(manifest.revision)
        existing = [*self.files] if self.is_listed else [file.path for file in self.storage.list(place)]
        if place + paths.MANIFEST in existing:
            raise _exists(place)
        for path in existing:
            if path.startswith(place) and path.removeprefix(place) not in files:
                self.storage.delete(path)
                self.files.pop(path, None)
        for name, local in files.items():
            self.files[place + name] = self.storage.publish_file(place + name, local)
        body = manifest.to_json()
        stored = self.storage.create(place + paths.MANIFEST, body)
        if not stored:
            raise _exists(place)
        self.files[stored.path] = stored
        self.numbers.append(manifest.revision)
        self._bodies[manifest.revision] = body

    def _place(self, number: int) -> str:
        return paths.revision(self.folder, number)

    def _body(self, number: int) -> bytes:
        if number not in self._bodies:
            self._bodies[number] = self.storage.read(self._place(number) + paths.MANIFEST) or b""
        return self._bodies[number]


def load_close(storage: Storage, folder: str) -> Close | None:
    """Return with which revision the period was closed; None for one that is open."""
    where = folder + paths.CLOSED
    body = storage.read(where)
    hint = (
        "restore the file from a backup: the period is closed, and the file names the revision that closed it"
    )
    return None if body is None else decode(body, Close, "not a record of a close", where=where, hint=hint)


def save_close(storage: Storage, folder: str, close: Close) -> bool:
    """Close a period; return False, with nothing changed, if it is closed already."""
    body = msgspec.json.format(msgspec.json.encode(close), indent=2) + b"\n"
    return storage.create(folder + paths.CLOSED, body) is not None


def _exists(place: str) -> RefusedError:
    return RefusedError(
        "another export has made this revision at the same time",
        where=place,
        hint="run the export again",
    )
