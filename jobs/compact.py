"""Merge the small event files of closed dates into fewer, without changing any aggregate."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from jobs.aggregate.job import aggregate
from jobs.clock import check_as_of
from jobs.land.landed_input import decode_landed
from jobs.progress import track
from jobs.run_report import LOG, PartitionAction, PartitionReport, RunReport, now
from lake import Lake, paths
from lake.calendar import days_before
from lake.checksums import SHA256_KEY, ZERO_SHA256, embed_sha256
from lake.events.listing import (
    METADATA_KEY,
    Compacted,
    compacted_name,
    is_compacted,
    read_compacted,
    remove_replaced,
)
from lake.events.partition import Partition
from lake.snapshot import MeterSnapshot, scan_meters
from lake.state.changes import file_name, stale_partitions, why_immovable
from lake.storage import Storage, StoredFile, body_of, read_each
from lake.storage.changed_files import FilesChangedError, is_missing_file, watch_for_changes
from lake.storage.errors import is_storage_failure, storage_failures, writing
from schemas.columns import event_columns
from schemas.errors import BadInputError, BrokenLakeError, RefusedError, StorageError
from schemas.validation import check_merged_events

# A good size for readers of Parquet. Of the merged files: the resulting file is a little smaller.
TARGET_BYTES = 128 * 2**20
# Files of today still arrive, and those of yesterday may.
OPEN_DAYS = 2
# A file is merged once the others have a quarter of its size, so that a late event does not rewrite all of its rows.
GROWTH = 4


class _Due(NamedTuple):
    """A partition, and the groups of its files that are to be merged into one file each."""

    partition: Partition
    groups: list[list[StoredFile]]


def compact(  # noqa: PLR0913 - what to compact, and how
    lake: Lake,
    report: RunReport,
    *,
    meter: str | None = None,
    as_of: dt.date | None = None,
    dry_run: bool = False,
    target_bytes: int = TARGET_BYTES,
) -> None:
    """Merge the small files of every date before the day before `as_of` (default today, UTC), of one meter or all.

    Skips partitions that are sealed or out of date, and files that are still being landed. Merged files are not counted
    any more, and a later run deletes them, once no reader can miss them. With `dry_run` the report is the same, and
    nothing is changed. Files that can't be merged are reported, and the run ends with exit code 1.
    """
    if not dry_run:
        lake.upgrade()
        check_as_of(as_of, report.started_at)
    until = days_before(as_of or report.started_at.date(), OPEN_DAYS - 1)

    def work(snapshot: MeterSnapshot) -> None:
        with storage_failures(lake.url):
            due = _due(lake.storage, snapshot, until, target_bytes, report)
            if dry_run:
                for each in due:
                    report.add_partition(_report_of(each))
            else:
                _compact_meter(lake, snapshot, due, report)

    report.keep_going(report.each("plan", scan_meters(lake.storage, meter, report.add_error)), work)
    if not dry_run:
        lake.storage.sweep()
        _remove_recent(lake.storage)


def _remove_recent(storage: Storage) -> None:
    """Delete the rows that earlier versions cached for exports; files that can't be deleted stay."""
    obsolete = [file.path for file in storage.list(paths.RECENT) if not (file.unreadable or file.linked)]
    try:
        storage.delete_all(obsolete)
    except StorageError as error:
        LOG.info("could not delete files of an earlier version in %s: %s", paths.RECENT, error)


def small_files(files: Iterable[StoredFile], target_bytes: int) -> list[list[StoredFile]]:
    """Return the files that are worth merging, in groups that become one file each; pure.

    A small file has less than half of `target_bytes`. Groups are in order of the files' names, and all but the last
    have at least `target_bytes`.
    """
    small = sorted(
        (file for file in files if 2 * file.size_bytes < target_bytes), key=lambda file: file.size_bytes
    )
    while small and small[-1].size_bytes > GROWTH * _size_bytes(small[:-1]):
        small.pop()
    groups: list[list[StoredFile]] = [[]]
    for file in sorted(small, key=file_name):
        if _size_bytes(groups[-1]) >= target_bytes:
            groups.append([])
        groups[-1].append(file)
    return [group for group in groups if len(group) > 1]


def _compact_meter(lake: Lake, snapshot: MeterSnapshot, due: Iterable[_Due], report: RunReport) -> None:
    with report.stage("drop"):
        remove_replaced(lake.storage, snapshot.replaced, now())
    merged = False
    for each in track(due, f"compact {snapshot.meter.name}"):
        done = _report_of(each)
        try:
            with (
                report.stage("merge"),
                watch_for_changes(lake.storage, snapshot.meter.name, each.partition.files),
            ):
                for group in each.groups:
                    done.bytes_written += _merge(each.partition.with_files(group))
                    merged = True
        except FilesChangedError as error:
            _log_skipped(error)
        except (BadInputError, BrokenLakeError) as error:
            report.add_error(error)
        else:
            report.add_partition(done)
    if merged:
        # Records and index must name the new files of the same rows.
        aggregate(lake, report, meter=snapshot.meter.name)


def _due(
    storage: Storage, snapshot: MeterSnapshot, until: dt.date, target_bytes: int, report: RunReport
) -> Iterator[_Due]:
    """Yield the closed partitions with files that are worth merging, by date."""
    changed = stale_partitions(
        snapshot.files, snapshot.state, snapshot.meter.version, snapshot.meter.earlier_version
    )
    dates = [
        date for date in snapshot.files if date < until and date not in changed.keys() | snapshot.state.sealed
    ]
    candidates = {}
    for date in sorted(dates):
        record = snapshot.state.partitions[date]
        counted = record.files.keys() - set(record.converted)
        files = [file for file in snapshot.files[date] if file_name(file) in counted]
        if small_files(files, target_bytes):
            if reason := why_immovable(snapshot.files[date]):
                report.add_error(_behind_link(paths.events(snapshot.meter.name, date), reason))
            else:
                candidates[date] = files
    landing = _still_landing(storage, [file for files in candidates.values() for file in files])
    for date, files in candidates.items():
        partition = Partition(
            storage, snapshot.meter, date, tuple(file for file in files if file not in landing)
        )
        groups = []
        try:
            with watch_for_changes(storage, snapshot.meter.name, partition.files):
                groups = [group for alike in _alike(partition) for group in small_files(alike, target_bytes)]
        except FilesChangedError as error:
            _log_skipped(error)
        if groups:
            yield _Due(partition, groups)


def _log_skipped(error: FilesChangedError) -> None:
    """Log that the files of a date changed while they were read: it is out of date, and left to a later run."""
    LOG.info("skipped: %s", error)


def _behind_link(where: str, found: str) -> RefusedError:
    return RefusedError(
        "the partition's files can't be merged",
        where=where,
        expected="files in the lake itself",
        found=found,
        hint="put the files themselves there: nothing is written or removed behind a link",
    )


def _still_landing(storage: Storage, files: Sequence[StoredFile]) -> set[StoredFile]:
    """Return the files of inputs that may be incomplete: to resume one, `land` looks for its files."""
    inputs = {file: sha256 for file in files if (sha256 := paths.landed_input(file_name(file)))}
    wanted = set(inputs.values())
    records = (
        [file.path for file in storage.list(paths.LANDED) if _start_of_hash(file) in wanted] if wanted else []
    )
    complete = set()
    for path, body in zip(records, read_each(storage, records), strict=True):
        try:
            if decode_landed(body_of(body) or b"", path).complete:
                complete.add(path.removeprefix(paths.LANDED)[:16])
        except (BrokenLakeError, StorageError):
            # `verify` reports the broken record; here the input only counts as incomplete.
            continue
    return {file for file, start in inputs.items() if start not in complete}


def _start_of_hash(file: StoredFile) -> str:
    return file.path.removeprefix(paths.LANDED)[:16]


def _alike(partition: Partition) -> list[list[StoredFile]]:
    """Return the files in groups with the same further columns, which merging preserves: they may be declared later."""
    partition.storage.prefetch(partition.files)
    groups: dict[frozenset[tuple[str, str]], list[StoredFile]] = {}
    for file in partition.files:
        schema = partition.storage.schema(file)
        more = {
            (name, str(dtype)) for name, dtype in schema.items() if name not in event_columns(partition.meter)
        }
        groups.setdefault(frozenset(more), []).append(file)
    return list(groups.values())


def _merge(group: Partition) -> int:
    """Publish the rows of some files as one file that replaces them; return its size in bytes."""
    storage = group.storage
    within = [read_compacted(storage, file).replaces for file in group.files if is_compacted(file)]
    replaces = {
        name: identity for of_file in [*within, group.file_identities] for name, identity in of_file.items()
    }
    metadata = {
        METADATA_KEY: msgspec.json.encode(Compacted(now(), replaces)).decode(),
        SHA256_KEY: ZERO_SHA256,
    }
    local = storage.scratch(".parquet")
    try:
        _write(group, local, metadata)
        embed_sha256(local)
        size_bytes = local.stat().st_size
        storage.publish_file(paths.events(group.meter.name, group.date) + compacted_name(replaces), local)
    finally:
        local.unlink(missing_ok=True)
    return size_bytes


def _write(group: Partition, local: Path, metadata: dict[str, str]) -> None:
    """Write the rows of the files unchanged, and read them back: soon there is no other copy."""
    first = group.storage.schema(group.files[0])
    columns = {**first, **event_columns(group.meter)}
    rows = group.storage.scan(group.files, schema=columns, missing_columns="insert")
    where = paths.events(group.meter.name, group.date)
    try:
        with writing(local):
            rows.sink_parquet(local, metadata=metadata, engine="streaming")
        expected, written = pl.collect_all(
            [_fingerprint(rows), _fingerprint(pl.scan_parquet(local))], engine="streaming"
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if is_storage_failure(error) or is_missing_file(error):
            raise
        raise BadInputError(
            "files can't be merged",
            where=where,
            expected="files that can be read to their end",
            found=str(error).splitlines()[0],
            hint="`meterlake verify` names the damaged file; no file was changed",
        ) from error
    check_merged_events(pl.scan_parquet(local), group.meter, where)
    if not written.equals(expected):
        raise BrokenLakeError(
            "the written rows differ from those that were read",
            where=where,
            expected=str(expected.row(0)),
            found=str(written.row(0)),
            hint="check disk and memory of this machine; nothing was published, no file was changed",
        )


def _fingerprint(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row with the number of rows, and the sum of their hashes, which holds in any order of rows."""
    return rows.select(pl.len(), pl.struct(pl.all()).hash().sum().alias("sum"))


def _report_of(due: _Due) -> PartitionReport:
    merged = [file for group in due.groups for file in group]
    return PartitionReport(
        meter=due.partition.meter.name,
        date=due.partition.date,
        action=PartitionAction.COMPACTED,
        reason=f"{len(merged)} files into {len(due.groups)}",
        bytes_merged=_size_bytes(merged),
    )


def _size_bytes(files: Iterable[StoredFile]) -> int:
    return sum(file.size_bytes for file in files)
