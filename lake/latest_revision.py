"""The file beside an export's revisions that names the last of them, for programs that bill; replaced atomically."""

from __future__ import annotations

import msgspec

from lake import paths
from lake.revisions import Revisions
from lake.storage import StoredFile
from lake.storage.errors import writing


class Latest(msgspec.Struct, kw_only=True, frozen=True):
    """The last revision of an export, the last that has `usage`, and whether the month is final."""

    revision: int
    kind: str
    manifest_sha256: str
    usage_revision: int
    closed: bool

    def to_json(self) -> bytes:
        """Return it as one indented JSON document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def latest_of(revisions: Revisions, *, closed: bool) -> Latest:
    """Return the content of the file for an export that has a revision."""
    last = revisions.last
    usage = next(number for number in reversed(revisions.numbers) if revisions.kind(number) == "usage")
    return Latest(
        revision=last,
        kind=revisions.kind(last),
        manifest_sha256=revisions.sha256(last),
        usage_revision=usage,
        closed=closed,
    )


def publish_latest(revisions: Revisions, *, closed: bool) -> None:
    """Replace the file, after all that it names."""
    path, local = paths.latest(revisions.folder), revisions.storage.scratch(".json")
    body = latest_of(revisions, closed=closed).to_json()
    try:
        with writing(local):
            local.write_bytes(body)
        revisions.files[path] = revisions.storage.publish_file(path, local)
    finally:
        local.unlink(missing_ok=True)


def repair_latest(revisions: Revisions, *, closed: bool) -> None:
    """Replace the file if it is missing, can't be read, or has wrong content."""
    published = revisions.files.get(paths.latest(revisions.folder))
    if published is None or _body(revisions, published) != latest_of(revisions, closed=closed).to_json():
        publish_latest(revisions, closed=closed)


def _body(revisions: Revisions, file: StoredFile) -> bytes | None:
    return None if file.unreadable else revisions.storage.read(file.path)
