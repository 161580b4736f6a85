"""Which partitions of a meter are stale, and why. Pure: it only compares a listing with the state."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lake import paths
from lake.state.records import INTERRUPTED_VERSION, READING_RULES, MeterState, PartitionState

if TYPE_CHECKING:
    from lake.storage import StoredFile

NEW = "new"
VANISHED = "vanished"
INTERRUPTED = "interrupted before"
DEFINITION_CHANGED = "definition changed"
RULES_CHANGED = "reading rules changed"
# Aggregated by a version of this program whose `quantity` had another type.
EARLIER_QUANTITY = "quantity of an earlier version"
FILES_ADDED = "files added"
FILES_REMOVED = "files removed"
FILES_REPLACED = "files replaced"
FILES_COMPACTED = "files compacted"
LATE_IN_SEALED = "late files in sealed partition"


class Change(NamedTuple):
    """Why a partition is stale, and the files that differ from its last aggregation.

    `why` joins several causes with a comma. A replaced file is in both lists: `added` as it is now, `removed`
    by its name. In a sealed partition `added` are the late files, and `removed` is empty.
    """

    why: str
    added: tuple[StoredFile, ...] = ()
    removed: tuple[str, ...] = ()


def stale_partitions(
    files: Mapping[dt.date, Sequence[StoredFile]],
    state: MeterState,
    meter_version: str,
    earlier_version: str | None = None,
) -> dict[dt.date, Change]:
    """Return the partitions that must be aggregated again, by date in order.

    A partition is stale when its listed files or the meter version differ from its record, or when the reading rules
    have changed since it rejected files or rows. `earlier_version` is the version that earlier programs gave the same
    definition. Sealed partitions are returned only for files that arrived after sealing: other files there are left by
    an interrupted retention. A file that was rejected before and is unchanged does not make a partition stale. Pure.
    """
    stale: dict[dt.date, Change] = {}
    for date in sorted(files.keys() | state.partitions.keys()):
        record = state.partitions.get(date)
        is_earlier = record is not None and record.meter_version == earlier_version != meter_version
        change = _change(files.get(date, ()), record, meter_version, is_earlier=is_earlier)
        if change:
            stale[date] = change
    return stale


def known_files(record: PartitionState) -> dict[str, str]:
    """Return the identity of every file in a partition's record, counted or rejected, by name."""
    return record.files | {name: file.identity for name, file in record.rejected.items()}


def file_name(file: StoredFile) -> str:
    """Return the name of a file in its partition's folder."""
    return file.path.rsplit("/", 1)[-1]


def why_immovable(files: Iterable[StoredFile]) -> str:
    """Return why the files of a partition may be neither merged nor removed; empty if they may."""
    for file in files:
        if file.unreadable:
            return f"{file.path.rpartition('/')[0]} is {file.unreadable}"
        if file.linked:
            return f"{file.path} is a link, or is reached through one"
    return ""


def _change(
    listed: Sequence[StoredFile], record: PartitionState | None, meter_version: str, *, is_earlier: bool
) -> Change | None:
    if record is None:
        return Change(NEW, tuple(listed)) if listed else None
    if _same(listed, record, meter_version):
        return None
    known = known_files(record)
    added = tuple(file for file in listed if known.get(file_name(file)) != file.identity)
    if record.sealed_at:
        return Change(LATE_IN_SEALED, added) if added else None
    listed_names = {file_name(file) for file in listed}
    replaced = {file_name(file) for file in added} & known.keys()
    missing = known.keys() - listed_names
    removed = tuple(sorted(replaced | missing))
    if listed and record.meter_version == INTERRUPTED_VERSION:
        return Change(INTERRUPTED, added, removed)
    if not listed:
        return Change(VANISHED, (), removed) if removed else None
    compacted = bool(added and missing) and all(file_name(file).startswith(paths.COMPACTED) for file in added)
    causes = {
        DEFINITION_CHANGED: record.meter_version != meter_version and not is_earlier,
        EARLIER_QUANTITY: is_earlier,
        RULES_CHANGED: _rejected_by_earlier_rules(record),
        FILES_COMPACTED: compacted,
        FILES_ADDED: len(added) > len(replaced) and not compacted,
        FILES_REMOVED: bool(missing) and not compacted,
        FILES_REPLACED: bool(replaced),
    }
    why = ", ".join(cause for cause, applies in causes.items() if applies)
    return Change(why, added, removed) if why else None


def _same(listed: Sequence[StoredFile], record: PartitionState, meter_version: str) -> bool:
    """Return whether an open partition is unchanged; a fast check, since nearly all are."""
    if record.sealed_at or record.rejected or not listed or record.meter_version != meter_version:
        return False
    if _rejected_by_earlier_rules(record):
        return False
    files = record.files
    return len(listed) == len(files) and all(files.get(file_name(file)) == file.identity for file in listed)


def _rejected_by_earlier_rules(record: PartitionState) -> bool:
    """Return whether earlier reading rules rejected files or rows of the partition, which may count now."""
    return bool(record.rejected or record.invalid) and record.rules < READING_RULES
