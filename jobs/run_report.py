"""The report of one run: what it read, decided, wrote and could not do, kept in the lake as JSON."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import msgspec

from lake import Lake, paths
from lake.decoding import Moment, check_moments
from lake.storage.errors import storage_failures
from schemas.errors import LeaseLostError, MeterlakeError, PathRefusedError, StorageError
from schemas.redaction import redacted

EXIT_FAILED = 3
LOG = logging.getLogger("meterlake")
Item = TypeVar("Item")
# How many partitions a report has, and the counts of them all.
Mark = tuple[int, tuple[int, int, int, int, int]]


class PartitionReport(msgspec.Struct, kw_only=True):
    """What a run did to one partition, and why."""

    meter: str
    date: dt.date
    action: str
    why: str
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    # Of the raw events that retention has dropped, or with a dry run would.
    bytes_dropped: int = 0
    # Of the files whose rows were merged into others, or with a dry run would be.
    bytes_merged: int = 0


class ExportReport(msgspec.Struct, kw_only=True):
    """What a run did to one period of one meter's exports."""

    meter: str
    period: str
    # `exported`, `unchanged`, or `nothing used`.
    action: str
    folder: str
    # The newest revision there is now, 0 for none, and whether the period is final.
    revision: int = 0
    closed: bool = False
    rows: int = 0
    adjustments: int = 0
    bytes_written: int = 0
    # Rows of a closed month that differ since the definition or the program changed, and that only a request adjusts.
    pending_adjustments: int = 0
    # The keys of rows that are not billed, since one of their sums is too large.
    left_out: list[dict[str, Any]] = msgspec.field(default_factory=list)
    # Dates whose files differ from those that were aggregated, and exported, last; and why.
    out_of_date: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def form(self) -> str:
        """The month and what makes the form another than the usual, like `2026-06/by=plan`."""
        return self.folder.partition("period=")[2].rstrip("/")

    @property
    def is_news(self) -> bool:
        """Whether something was done, or is left to do."""
        return self.action == "exported" or bool(
            self.pending_adjustments or self.left_out or self.out_of_date
        )


class RunReport(msgspec.Struct, kw_only=True):
    """Everything a run tells. Counts are of this run alone; `seconds` are by stage, of the wall clock."""

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
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    problems: list[dict[str, str]] = msgspec.field(default_factory=list)
    # What somebody should decide; it changes no exit code.
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
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, the seconds that it takes to get them added to a stage."""
        waiting = iter(items)
        while True:
            with self.stage(name):
                found = list(islice(waiting, 1))
            if not found:
                return
            yield found.pop()

    def add_partition(self, partition: PartitionReport) -> None:
        """Note a partition, and add its counts to the run's."""
        self.partitions.append(partition)
        self.duplicates += partition.duplicates
        self.conflicts += partition.conflicts
        self.rows_written += partition.rows_written
        self.bytes_written += partition.bytes_written

    def mark(self) -> Mark:
        """Return how far the report is, for `rewind`."""
        counts = (self.duplicates, self.conflicts, self.rows_written, self.bytes_written, self.events_read)
        return len(self.partitions), counts

    def rewind(self, mark: Mark) -> None:
        """Forget the partitions since a mark, and their counts: they are done once more. What is in quarantine stays."""
        done, counts = mark
        del self.partitions[done:]
        self.duplicates, self.conflicts, self.rows_written, self.bytes_written, self.events_read = counts

    def quarantine(self, counts: dict[str, int]) -> None:
        """Add rejected rows by reason; the run then ends with exit code 1."""
        self.quarantined = dict(sorted((Counter(self.quarantined) + Counter(counts)).items()))
        if any(counts.values()):
            self.exit_code = max(self.exit_code, 1)

    def add_error(self, error: MeterlakeError) -> None:
        """Note something that could not be done while the rest went on."""
        self.problems.append(error.to_dict())
        self.exit_code = max(self.exit_code, error.exit_code)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def keep_going(self, meters: Iterable[Item], work: Callable[[Item], None]) -> None:
        """Work on one meter after the other; what is wrong with one is noted, and the others go on.

        Raises it where there is no other that could be worked on. A lost lease or a failing storage concerns all, and
        is raised at once.
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
        """Note a failure that nobody has foreseen."""
        said = {"kind": "failure", "what": redacted(f"{type(error).__name__}: {error}"), "where": where}
        self.problems.append({part: text for part, text in said.items() if text})
        self.exit_code = EXIT_FAILED

    def to_json(self) -> bytes:
        """The report as one indented JSON document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@contextmanager
def reported(lake: Lake, job: str, *, dry_run: bool = False) -> Iterator[RunReport]:
    """Run a job with a report that is kept in `runs/` however the job ends; a dry run keeps none."""
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
            _keep(lake, report)
        except StorageError as second:
            # What the job failed of is what must be told.
            LOG.warning("the report of this run could not be kept: %s", second)
        raise
    _keep(lake, report)


def _keep(lake: Lake, report: RunReport) -> None:
    report.finished_at = now()
    if not report.dry_run:
        lake.storage.publish(paths.run(report.started_at, report.job), report.to_json())


def now() -> dt.datetime:
    """The present moment, UTC."""
    return dt.datetime.now(dt.UTC)
