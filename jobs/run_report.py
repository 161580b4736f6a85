"""The report of one run: what it read, decided and wrote, and its errors; stored in the lake as JSON."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import Any, Literal, TypeVar

import msgspec

from lake import Lake, paths
from lake.decoding import Moment, check_moments, decode
from lake.storage.errors import storage_failures
from schemas.errors import LeaseLostError, MeterlakeError, PathRefusedError, StorageError
from schemas.redaction import redacted

EXIT_FAILED = 3
LOG = logging.getLogger("meterlake")
Item = TypeVar("Item")
# The number of partitions in a report, and its counts.
Mark = tuple[int, tuple[int, int, int, int, int]]
NewNames = dict[str, str]
# Members of version 1 that have another name in version 2: of the report, of its partitions, of its exports.
NEW_NAMES: NewNames = {"problems": "errors", "seconds": "stage_seconds"}
NEW_PARTITION_NAMES: NewNames = {"why": "reason"}
NEW_EXPORT_NAMES: NewNames = {"left_out": "omitted_rows"}
# An action of version 1 with another name in version 2.
NEW_ACTIONS: NewNames = {"withdrawn": "deleted"}


class PartitionAction(StrEnum):
    """What a run did to a partition, as run reports name it."""

    AGGREGATED = "aggregated"
    RECOMPUTED = "recomputed"
    DELETED = "deleted"
    COMPACTED = "compacted"
    QUARANTINED = "quarantined"
    DROPPED = "dropped"


class ExportAction(StrEnum):
    """What a run did to a month's export, as run reports name it."""

    EXPORTED = "exported"
    UNCHANGED = "unchanged"
    NOTHING_USED = "nothing used"


class PartitionReport(msgspec.Struct, kw_only=True):
    """What a run did to one partition, and the reason. `events` are the winning ones, after deduplication."""

    meter: str
    date: dt.date
    action: PartitionAction
    reason: str
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    # The size of the raw events that retention dropped, or in a dry run would drop.
    bytes_dropped: int = 0
    # The size of the files whose rows were merged into others, or in a dry run would be.
    bytes_merged: int = 0


class ExportReport(msgspec.Struct, kw_only=True):
    """What a run did to one period of one meter's exports."""

    meter: str
    period: str
    action: ExportAction
    folder: str
    # The newest revision after the run (0: none), and whether the period is final.
    revision: int = 0
    closed: bool = False
    rows: int = 0
    adjustments: int = 0
    bytes_written: int = 0
    # Rows of a closed month that differ since the definition or the program changed; only a request adjusts them.
    pending_adjustments: int = 0
    # The keys of rows that are not billed, since one of their sums is too large.
    omitted_rows: list[dict[str, Any]] = msgspec.field(default_factory=list)
    # Dates whose files differ from those of the last aggregation, with the reason.
    out_of_date: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def form(self) -> str:
        """The month and, unless it is the usual form, its options: `2026-06/by=plan`."""
        return paths.export_form(self.folder)

    @property
    def is_news(self) -> bool:
        """Whether a revision was made, or something is left to do."""
        return self.action == ExportAction.EXPORTED or bool(
            self.pending_adjustments or self.omitted_rows or self.out_of_date
        )


class RunReport(msgspec.Struct, kw_only=True):
    """What one run did. Counts are of this run alone; `stage_seconds` is wall-clock time by stage."""

    schema_version: Literal[2] = 2
    job: str
    started_at: Moment
    finished_at: Moment | None = None
    exit_code: int = 0
    dry_run: bool = False
    inputs: list[dict[str, Any]] = msgspec.field(default_factory=list)
    partitions: list[PartitionReport] = msgspec.field(default_factory=list)
    exports: list[ExportReport] = msgspec.field(default_factory=list)
    events_read: int = 0
    events_landed: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: dict[str, int] = msgspec.field(default_factory=dict)
    rows_written: int = 0
    bytes_written: int = 0
    stage_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    errors: list[dict[str, str]] = msgspec.field(default_factory=list)
    # Decisions that somebody should take; they change no exit code.
    notes: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ValueError for moments that no run has written."""
        check_moments(self.started_at, self.finished_at)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds that the body takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds[name] = round(
                self.stage_seconds.get(name, 0.0) + time.perf_counter() - start, 3
            )

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and add the seconds that producing them takes to a stage."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                following = list(islice(iterator, 1))
            if not following:
                return
            yield following.pop()

    def add_partition(self, partition: PartitionReport) -> None:
        """Add a partition, and its counts to those of the run."""
        self.partitions.append(partition)
        self.duplicates += partition.duplicates
        self.conflicts += partition.conflicts
        self.rows_written += partition.rows_written
        self.bytes_written += partition.bytes_written

    def mark(self) -> Mark:
        """Return the current position of the report, for `rewind`."""
        counts = (self.duplicates, self.conflicts, self.rows_written, self.bytes_written, self.events_read)
        return len(self.partitions), counts

    def rewind(self, mark: Mark) -> None:
        """Remove partitions and counts since a mark, before they are done again. Quarantined rows stay counted."""
        number, counts = mark
        del self.partitions[number:]
        self.duplicates, self.conflicts, self.rows_written, self.bytes_written, self.events_read = counts

    def quarantine(self, counts: dict[str, int]) -> None:
        """Add rejected rows by reason; if there are any, the run ends with exit code 1."""
        self.quarantined = dict(sorted((Counter(self.quarantined) + Counter(counts)).items()))
        if any(counts.values()):
            self.exit_code = max(self.exit_code, 1)

    def add_error(self, error: MeterlakeError) -> None:
        """Add an error that did not stop the run; its exit code becomes the run's if it is greater."""
        self.errors.append(error.to_dict())
        self.exit_code = max(self.exit_code, error.exit_code)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def keep_going(self, meters: Iterable[Item], work: Callable[[Item], None]) -> None:
        """Call `work` for each meter; the error of one is added to the report, and does not stop the others.

        If `work` fails for all meters, raises the first error. A lost lease or a failing storage concerns all meters,
        and is raised at once.
        """
        failed: list[MeterlakeError] = []
        done = 0
        for meter in meters:
            try:
                work(meter)
                done += 1
            except PathRefusedError as error:
                failed.append(error)
            except (LeaseLostError, StorageError):
                raise
            except MeterlakeError as error:
                failed.append(error)
        for each in failed if done else failed[1:]:
            self.add_error(each)
        if failed and not done:
            raise failed[0]

    def fail(self, error: BaseException, where: str = "") -> None:
        """Add an unexpected failure; the run ends with exit code 3."""
        parts = {"kind": "failure", "what": redacted(f"{type(error).__name__}: {error}"), "where": where}
        self.errors.append({part: text for part, text in parts.items() if text})
        self.exit_code = EXIT_FAILED

    def to_json(self) -> bytes:
        """Return the report as one indented JSON document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@contextmanager
def reported(lake: Lake, job: str, *, dry_run: bool = False) -> Iterator[RunReport]:
    """Run the body with a new report, and store it in `runs/` however the body ends; a dry run stores none."""
    report = RunReport(job=job, started_at=now(), dry_run=dry_run)
    try:
        with storage_failures(lake.url):
            yield report
    except BaseException as error:
        if isinstance(error, MeterlakeError):
            report.add_error(error)
            report.exit_code = error.exit_code
        else:
            report.fail(error)
        try:
            _store(lake, report)
        except StorageError as second:
            # The error of the job is the one to raise.
            LOG.warning("could not store the report of this run: %s", second)
        raise
    _store(lake, report)


def _store(lake: Lake, report: RunReport) -> None:
    report.finished_at = now()
    if not report.dry_run:
        lake.storage.publish(paths.run(report.started_at, report.job), report.to_json())


def decode_report(body: bytes, path: str) -> RunReport:
    """Return a run report of either version, in the form of version 2.

    Raises BrokenLakeError if the file at `path` contains none.
    """
    what = "not a run report"
    document = decode(body, dict[str, Any], what, where=path)
    if "schema_version" not in document:
        document = _from_version_1(document)
    return decode(msgspec.json.encode(document), RunReport, what, where=path)


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    upgraded: dict[str, Any] = _rename(document, NEW_NAMES)
    for name, names in (("partitions", NEW_PARTITION_NAMES), ("exports", NEW_EXPORT_NAMES)):
        # Any other value is left for the decoder to refuse.
        if isinstance(upgraded.get(name), list):
            upgraded[name] = [_rename(each, names) for each in upgraded[name]]
    return upgraded


def _rename(members: Any, names: NewNames) -> Any:
    if not isinstance(members, dict):
        return members
    renamed = {names.get(name, name): value for name, value in members.items()}
    if (action := NEW_ACTIONS.get(str(renamed.get("action")))) is not None:
        renamed["action"] = action
    return renamed


def now() -> dt.datetime:
    """Return the current time, UTC."""
    return dt.datetime.now(dt.UTC)
