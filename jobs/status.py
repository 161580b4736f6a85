"""The status of a lake: events by meter, what is out of date, sealed, rejected or to be exported, and the last runs.

Reads listings, states, run reports, the reasons of quarantined rows, and manifests that are not in a state yet; reads no
event data, and writes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import polars as pl

from jobs.export.again import MeterExports
from jobs.export.billing import Period, month_of
from jobs.export.due import MonthDue, months_due
from jobs.export.listing import ExportListing
from jobs.run_report import RunReport, decode_report, now
from lake import Lake, paths
from lake.aggregates.ambiguity import most_ambiguous
from lake.events.listing import list_events
from lake.meters import load_meter, meter_names
from lake.partition_files import by_meter_folder, unexpected_files
from lake.state.changes import file_name, stale_partitions
from lake.state.lateness import Lateness, merge_lateness
from lake.state.records import MeterState
from lake.state.state_file import load_state
from lake.storage import Storage, StoredFile, body_of, read_each
from lake.storage.errors import without_secrets
from lake.storage.lease import current_holder
from schemas.errors import BrokenLakeError, MeterlakeError, StorageError
from schemas.meter import Meter

Dates = Mapping[dt.date, Sequence[StoredFile]]


class Late(msgspec.Struct, kw_only=True):
    """How long after their timestamps the winning events of all dates arrive.

    The median and the 95th percentile are exact to a tenth, or to a second if that is more: each date has counts by
    classes of that width, since percentiles of dates can't be merged. The maximum is exact.
    """

    median_seconds: float
    p95_seconds: float
    max_seconds: float


class MeterStatus(msgspec.Struct, kw_only=True):
    """One meter as of its last aggregation, and the changes since."""

    meter: str
    events: int = 0
    newest: dt.date | None = None
    partitions: int = 0
    out_of_date: dict[dt.date, str] = msgspec.field(default_factory=dict)
    sealed: int = 0
    quarantined: dict[str, int] = msgspec.field(default_factory=dict)
    duplicates: int = 0
    conflicts: int = 0
    late: Late | None = None
    # For an ambiguous gauge: the greatest number of subjects with several levels on one date.
    ambiguous_subjects: int = 0
    # Months that have usage and no revision, or whose rows differ from their last revision.
    exports_due: list[MonthDue] = msgspec.field(default_factory=list)
    rejected_files: list[dict[str, str]] = msgspec.field(default_factory=list)


class Undefined(msgspec.Struct, kw_only=True):
    """Files under the name of a meter that is not defined; null is the name of rows that name no meter."""

    meter: str | None
    event_files: int = 0
    quarantined: dict[str, int] = msgspec.field(default_factory=dict)


class RunStatus(msgspec.Struct, kw_only=True):
    """One run, from its report; `outcome` is `done`, `incomplete`, `failed` or `unreadable report`."""

    file: str
    started_at: dt.datetime
    job: str
    outcome: str
    seconds: float | None = None
    partitions: int = 0
    quarantined: int = 0


class Status(msgspec.Struct, kw_only=True):
    """The whole lake. `problems` are the errors of parts that can't be read; `working` is the job that has the lease."""

    lake: str
    meters: list[MeterStatus] = msgspec.field(default_factory=list)
    undefined: list[Undefined] = msgspec.field(default_factory=list)
    runs: list[RunStatus] = msgspec.field(default_factory=list)
    problems: list[dict[str, str]] = msgspec.field(default_factory=list)
    working: str | None = None
    exit_code: int = 0

    @property
    def all_problems(self) -> list[dict[str, str]]:
        """The errors of rejected files of every meter, then those of parts that can't be read."""
        return [error for each in self.meters for error in each.rejected_files] + self.problems

    def add_error(self, error: MeterlakeError) -> None:
        """Add the error of a part that can't be read; the exit code becomes its, if that is greater."""
        self.problems.append(error.to_dict())
        self.exit_code = max(self.exit_code, error.exit_code)


def status(lake: Lake, runs: int) -> Status:
    """Return the lake's status with its last `runs` runs, the newest first."""
    return status_with_days(lake, runs)[0]


def status_with_days(
    lake: Lake, runs: int, as_of: dt.date | None = None
) -> tuple[Status, dict[str, dict[dt.date, int]]]:
    """Return what `status` returns, and each meter's winning events by date.

    No month after that of `as_of` (default today, UTC) is due for export.
    """
    last_month = month_of(as_of or now().date())
    result = Status(lake=lake.url)
    daily: dict[str, dict[dt.date, int]] = {}
    _add_holder(lake.storage, result)
    quarantine = _by_meter(lake.storage.list(paths.QUARANTINE))
    names = meter_names(lake.storage)
    exports = ExportListing(lake.storage.list(paths.EXPORTS))
    for name in names:
        try:
            meter = load_meter(lake.storage, name)
            state = load_state(lake.storage, name)
            listed = list_events(lake.storage, name, state)
            result.meters.append(meter_status(meter, listed.files, state, listed.unexpected))
            result.meters[-1].exports_due = _exports_due(
                lake.storage, meter, state, exports, last_month, result
            )
            daily[name] = {date: record.events for date, record in state.partitions.items()}
        except MeterlakeError as error:
            result.meters.append(MeterStatus(meter=name))
            result.add_error(error)
        result.meters[-1].quarantined = _reasons(lake.storage, quarantine.pop(name, []), result)
    result.undefined = _undefined(lake.storage, names, quarantine, result)
    # Listed in order of their paths, which begin with the start time.
    started = [(file.path, paths.split_run(file.path)) for file in lake.storage.list(paths.RUNS)]
    reports = [(path, *split) for path, split in started if split]
    result.runs = [_run_status(lake.storage, *run) for run in reversed(reports[-runs:] if runs else [])]
    return result, daily


def meter_status(
    meter: Meter, files: Dates, state: MeterState, unexpected: Iterable[MeterlakeError] = ()
) -> MeterStatus:
    """Return the status of one meter from its listed files and its state; pure."""
    records = state.partitions
    with_events = [date for date, record in records.items() if record.events]
    names = {date: {file_name(file) for file in listed} for date, listed in files.items()}
    rejected_files = [
        rejected.error_parts()
        for date, record in sorted(records.items())
        for name, rejected in sorted(record.rejected.items())
        if name in names.get(date, ())
    ]
    return MeterStatus(
        meter=meter.name,
        events=sum(record.events for record in records.values()),
        newest=max(with_events, default=None),
        partitions=len(records.keys() | files.keys()),
        out_of_date={
            date: change.why
            for date, change in stale_partitions(files, state, meter.version, meter.earlier_version).items()
        },
        sealed=len(state.sealed),
        duplicates=sum(record.duplicates for record in records.values()),
        conflicts=sum(record.conflicts for record in records.values()),
        late=_late(record.late for record in records.values() if record.late),
        ambiguous_subjects=most_ambiguous(meter, state),
        rejected_files=rejected_files + [error.to_dict() for error in unexpected],
    )


def _exports_due(  # noqa: PLR0913, PLR0917 - what is known of the meter, and what of the lake
    storage: Storage,
    meter: Meter,
    state: MeterState,
    exports: ExportListing,
    last_month: Period,
    result: Status,
) -> list[MonthDue]:
    stale = result.meters[-1].out_of_date
    try:
        of_meter = MeterExports(storage, meter, state, stale, exports.of(meter.name))
    except BrokenLakeError as error:
        result.add_error(error)
        return []
    return list(months_due(storage, of_meter, last_month, result.add_error))


def _add_holder(storage: Storage, result: Status) -> None:
    try:
        holder = current_holder(storage)
        result.working = str(holder) if holder else None
    except MeterlakeError as error:
        result.add_error(error)


def _late(dates: Iterable[Lateness]) -> Late | None:
    late = merge_lateness(dates)
    if late is None:
        return None
    return Late(
        median_seconds=late.percentile(0.5),
        p95_seconds=late.percentile(0.95),
        max_seconds=late.longest_seconds,
    )


def _by_meter(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    by_meter: dict[str, list[StoredFile]] = {}
    for file in files:
        place = paths.split_partition(file.path)
        if place and place.file.endswith(".parquet"):
            by_meter.setdefault(place.meter, []).append(file)
    return by_meter


def _reasons(storage: Storage, files: Sequence[StoredFile], result: Status) -> dict[str, int]:
    """Return the number of quarantined rows by reason, the most frequent first; adds the error of an unreadable file."""
    counts: Counter[str] = Counter()
    for file in files:
        try:
            counts.update(_count_reasons(storage, file))
        except BrokenLakeError as error:
            result.add_error(error)
        except (pl.exceptions.PolarsError, OSError) as error:
            result.add_error(
                BrokenLakeError(
                    "unreadable quarantine file",
                    where=file.path,
                    found=without_secrets(str(error).splitlines()[0]),
                )
            )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _count_reasons(storage: Storage, file: StoredFile) -> dict[str, int]:
    rows = storage.scan([file]).group_by("reason").len().collect()
    return dict(rows.iter_rows())


def _undefined(
    storage: Storage,
    defined: Iterable[str],
    quarantine: Mapping[str, Sequence[StoredFile]],
    result: Status,
) -> list[Undefined]:
    listed = storage.list(paths.EVENTS)
    events = _by_meter(listed)
    known = {paths.events(name) for name in {*defined, *events}}
    others = {folder: files for folder, files in by_meter_folder(listed).items() if folder not in known}
    # Like those in a meter's folder, they are named, and do not change the exit code.
    result.problems += [error.to_dict() for error in unexpected_files(others)]
    return [
        Undefined(
            meter=None if name == paths.NO_METER else name,
            event_files=len(events.get(name, [])),
            quarantined=_reasons(storage, quarantine.get(name, []), result),
        )
        for name in sorted((events.keys() | quarantine.keys()) - set(defined))
    ]


def _run_status(storage: Storage, path: str, started_at: dt.datetime, job: str) -> RunStatus:
    (body,) = read_each(storage, [path])
    try:
        report = decode_report(body_of(body) or b"", path)
    except (BrokenLakeError, StorageError):
        return RunStatus(file=path, started_at=started_at, job=job, outcome="unreadable report")
    seconds = (report.finished_at - report.started_at).total_seconds() if report.finished_at else None
    return RunStatus(
        file=path,
        started_at=started_at,
        job=job,
        outcome=outcome(report),
        seconds=seconds,
        partitions=len(report.partitions),
        quarantined=sum(report.quarantined.values()),
    )


def outcome(report: RunReport) -> str:
    """Return `done`, `failed`, or `incomplete`: done, but with rejected input or a refused step."""
    if report.exit_code == 0:
        return "done"
    return "incomplete" if report.exit_code == 1 else "failed"
