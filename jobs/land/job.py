"""Land events from files: what keeps the rules goes into partitions, what does not into quarantine."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Annotated, NamedTuple

import msgspec
import polars as pl

from jobs.land.earlier_attempt import DEFINITION_KEY, Earlier, find_earlier
from jobs.land.earlier_keys import keep_earlier_keys
from jobs.land.flush_bounds import NEWEST, VERSIONS
from jobs.land.parse.choose import parse
from jobs.land.parse.parsed import LINE, Parsed, Rejected
from jobs.land.read.byte_values import count_line_ends
from jobs.land.read.inputs import Input, open_input
from jobs.land.read.line_batches import Batch
from jobs.land.validate import validate
from jobs.land.waiting_rows import DatedRows, Waiting
from jobs.land.wide import cut_wide
from jobs.progress import track
from jobs.run_report import RunReport, now
from lake import Lake, paths
from lake.catalog import MeterCatalog
from lake.checksums import write_stamped
from lake.concurrency import ahead
from lake.decoding import Count, Moment, check_moments, decode
from lake.events.quarantine import publish_rejected
from lake.storage import Storage
from schemas.columns import INSTANT, QUARANTINE_TYPES
from schemas.errors import BrokenLakeError, MeterlakeError
from schemas.meter import MAX_ENCODED_NAME_BYTES, encode_name
from schemas.redaction import redacted

# The reason of a row whose meter is not defined, and of one whose meter can't be read.
UNKNOWN, UNREADABLE = "unknown_meter", "meter_unreadable"
# More would hold more batches in memory, and gain little.
THREADS = 2


class LandedInput(msgspec.Struct, kw_only=True):
    """The record of one input in the lake, by the hash of its content."""

    source: str
    landed_at: Moment
    # The version of its `FlushBounds`; absent in records of the first one.
    bounds: Annotated[int, msgspec.Meta(ge=0, le=NEWEST)] = 0
    # In the place of the second one, in records of a version that was never released.
    long_line_weight: Count | msgspec.UnsetType = msgspec.UNSET
    complete: bool = False
    events: Count = 0
    quarantined: dict[str, Count] = msgspec.field(default_factory=dict)
    files: list[str] = msgspec.field(default_factory=list)
    quarantine_files: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ValueError for a moment that no run has written."""
        check_moments(self.landed_at)
        if self.long_line_weight is not msgspec.UNSET:
            self.bounds = self.bounds or 1


def land(lake: Lake, inputs: Sequence[str], report: RunReport, file_format: str | None = None) -> None:
    """Land each input, a path or `-` for standard input; one that can't be read does not stop the others.

    An input that was landed before adds nothing. One that was interrupted is gone on with: names of files and the
    landing time are those of the first attempt, so that the end is the same. Invalid rows are kept in quarantine,
    and end the run with exit code 1. Only meters that an input names are read; rows of one that is broken are kept in
    quarantine until the input is landed again.
    """
    lake.upgrade()
    meters = MeterCatalog(lake.storage)
    for source in inputs:
        meters.refresh()
        try:
            with ExitStack() as stack:
                with report.stage("read"):
                    opened = stack.enter_context(open_input(source, lake.storage, file_format, meters))
                _land_input(lake.storage, opened, meters, report)
        except MeterlakeError as error:
            report.inputs.append({"source": redacted(source), "status": "rejected"})
            report.add_error(error)


def _land_input(storage: Storage, source: Input, meters: MeterCatalog, report: RunReport) -> None:
    record, is_new = _begun(storage, source)
    said = {"source": source.name, "sha256": source.sha256, "format": source.file_format}
    # An input of which nothing could be landed is tried again: its meter may be defined by now.
    if record.complete and (record.events or not record.quarantined):
        status = f"already landed at {record.landed_at:%Y-%m-%d %H:%M:%S} UTC"
        report.inputs.append(said | {"status": status, "events": 0, "quarantined": 0})
        return
    earlier = Earlier()
    if not is_new:
        # Until the end it is an interrupted one, whose files are not merged.
        record = _reopened(storage, source, record)
        earlier = find_earlier(storage, source.sha256)
        meters.pin(earlier.meters)
    landing = _Landing(storage, source, meters, record, report, earlier)
    read = partial(_read_batch, meters=meters, landed_at=landing.landed_at, earlier=earlier)
    rows = cut_wide(source.batches(meters), meters)
    with (
        closing(landing),
        closing(ahead(read, rows, threads=THREADS, small=_has_short_lines)) as batches,
    ):
        for batch in track(_waited_for(batches, report), f"land {source.name}"):
            landing.add(batch)
        landing.flush()
    landing.withdraw()
    done = msgspec.structs.replace(
        record,
        complete=not landing.unreadable,
        events=landing.events,
        quarantined=dict(landing.reasons),
        files=landing.files,
        quarantine_files=landing.quarantine_files,
    )
    storage.publish(paths.landed(source.sha256), msgspec.json.encode(done))
    quarantined = sum(landing.reasons.values())
    status = "landed in part" if landing.unreadable else "landed"
    report.inputs.append(said | {"status": status, "events": landing.events, "quarantined": quarantined})
    for name in sorted(landing.unreadable):
        report.add_error(_unread_meter(name, source, meters.broken[name]))
    report.events_landed += landing.events
    report.quarantine(landing.reasons)


def _unread_meter(name: str, source: Input, error: MeterlakeError) -> BrokenLakeError:
    hint = f"rows of meter {name!r} are in quarantine; mend the file, then land {source.name} again. {error.hint}"
    return BrokenLakeError(
        error.what, where=error.where, expected=error.expected, found=error.found, hint=hint.rstrip()
    )


def _begun(storage: Storage, source: Input) -> tuple[LandedInput, bool]:
    """Return the record of the input, made now if there is none, and whether it was."""
    path = paths.landed(source.sha256)
    record = LandedInput(source=source.name, landed_at=now(), bounds=NEWEST)
    if storage.create(path, msgspec.json.encode(record)):
        return record, True
    return decode_landed(storage.read(path) or b"", path), False


def _reopened(storage: Storage, source: Input, record: LandedInput) -> LandedInput:
    """Return the record as that of an input that is not landed to its end."""
    opened = msgspec.structs.replace(record, complete=False)
    if record.complete:
        storage.publish(paths.landed(source.sha256), msgspec.json.encode(opened))
    return opened


def decode_landed(body: bytes, path: str) -> LandedInput:
    """Return the record of an input. Raises BrokenLakeError if it is none, or names other files than the input's."""
    what, hint = (
        "not a record of a landed input",
        "remove it if the input was never landed; else its events would be landed twice",
    )
    record = decode(body, LandedInput, what, where=path, hint=hint)
    start = paths.landed_files(path.removeprefix(paths.LANDED))
    try:
        paths.check_stored_paths(record.files, paths.EVENTS, start)
        paths.check_stored_paths(record.quarantine_files, paths.QUARANTINE, start)
    except ValueError as error:
        raise BrokenLakeError(what, where=path, found=str(error), hint=hint) from error
    return record


class _Read(NamedTuple):
    """A batch that was parsed and judged: its lines as they were parsed, events by meter, and rejected lines."""

    batch: Batch
    lines: bytes
    events: list[tuple[str, pl.DataFrame]]
    rejected: pl.DataFrame


def _read_batch(batch: Batch, meters: MeterCatalog, landed_at: dt.datetime, earlier: Earlier) -> _Read:
    """Parse and validate a batch. It changes nothing, so that batches can be read at the same time."""
    # To replace takes long even where there is nothing to replace.
    lines = (batch.lines.replace(b"\r\n", b"\n") if b"\r" in batch.lines else batch.lines).rstrip(b"\r\n")
    parsed = _refused(batch) if batch.refused else parse(lines, meters)
    schema = {LINE: pl.UInt32, "meter": pl.String, "reason": pl.String, "detail": pl.String}
    refused = [_of_broken_meter(said, meters.broken) for said in parsed.rejected]
    events, rejected = [], [pl.DataFrame(refused, schema=schema, orient="row")]
    for meter, df in parsed.events:
        state = meters.states[meter.name]
        judged = validate(df, meter, landed_at, state.sealed - earlier.dates(meter.name, state))
        events.append((meter.name, judged.events.drop(LINE)))
        rejected.append(judged.rejected.with_columns(meter=pl.lit(meter.name)))
    return _Read(batch, lines, events, pl.concat(rejected, how="diagonal"))


def _of_broken_meter(said: Rejected, broken: Mapping[str, MeterlakeError]) -> Rejected:
    """The same, but that a meter which can't be read is not one that is not defined."""
    error = broken.get(said.meter or "")
    return said._replace(reason=UNREADABLE, detail=str(error)) if error and said.reason == UNKNOWN else said


def _has_short_lines(batch: Batch) -> bool:
    return not batch.has_long_line


def _waited_for(batches: Iterator[tuple[Batch, _Read]], report: RunReport) -> Iterator[_Read]:
    """The same batches, with the time until each is there as that of parsing."""
    while True:
        with report.stage("parse"):
            found = next(batches, None)
        if found is None:
            return
        yield found[1]


class _Landing:
    """One input on its way into the lake: what is held until it is written, and what was written."""

    def __init__(  # noqa: PLR0913, PLR0917 - what is landed, where, by what, and what is known of it
        self,
        storage: Storage,
        source: Input,
        meters: MeterCatalog,
        record: LandedInput,
        report: RunReport,
        earlier: Earlier,
    ) -> None:
        self.storage, self.source, self.meters = storage, source, meters
        self.landed_at, self.report, self._earlier = record.landed_at, report, earlier
        # Meters of which there are rows, and whose definition or state can't be read.
        self.unreadable: set[str] = set()
        self.events, self.files, self.quarantine_files = 0, list[str](), list[str]()
        self.reasons: Counter[str] = Counter()
        self._waiting = Waiting(storage, self._with_earlier_keys)
        self._rejected: dict[str | None, list[pl.DataFrame]] = {}
        self._lines, self._bytes, self._flushes = 0, 0, 0
        self._bounds = VERSIONS[record.bounds]

    def add(self, batch: _Read) -> None:
        """Hold what a batch gave; write what is held once it is much."""
        for name, df in batch.events:
            self._waiting.add(name, df)
        if batch.rejected.height:
            self._reject(batch.rejected, batch.batch.texts or batch.lines.split(b"\n"), batch.batch)
        self._lines += count_line_ends(batch.lines) + 1
        weight = self._bounds.long_line_weight if batch.batch.has_long_line else 1
        # A block has the same bytes in whatever pieces it comes, with the line ends between them.
        self._bytes += (len(batch.lines) + (not batch.batch.ends_block)) * weight
        if self._bounds.is_reached(batch.batch, self._lines, self._bytes):
            self.flush()

    def _reject(self, rejected: pl.DataFrame, lines: list[bytes], batch: Batch) -> None:
        """Hold rejected rows with their original text, by the meter they name."""
        numbers = rejected[LINE].to_list()
        self.unreadable.update(rejected.filter(pl.col("reason") == UNREADABLE)["meter"])
        rows = rejected.with_columns(
            pl.Series(
                "raw", [lines[number].decode(errors="backslashreplace") for number in numbers], pl.String
            ),
            pl.lit(self.source.name).alias("source"),
            pl.Series("position", [_position(batch, number) for number in numbers], pl.Int64),
            pl.lit(self.landed_at, INSTANT).alias("landed_at"),
        )
        for (name,), group in rows.partition_by("meter", as_dict=True).items():
            folder = name if name and len(encode_name(name).encode()) <= MAX_ENCODED_NAME_BYTES else None
            self._rejected.setdefault(folder, []).append(group.select(*QUARANTINE_TYPES))

    def flush(self) -> None:
        """Write what is held, one file a partition; event files that an earlier attempt wrote are left as they are."""
        file = f"{paths.landed_files(self.source.sha256)}{self._flushes:04}.parquet"
        with self.report.stage("write"):
            for part in self._waiting.take():
                self._write_events(part, file)
            for folder, frames in self._rejected.items():
                self._write_rejected(folder, pl.concat(frames).sort("position"), file)
        self._rejected = {}
        self._lines, self._bytes, self._flushes = 0, 0, self._flushes + 1

    def withdraw(self) -> None:
        """Empty the files of an earlier attempt whose rows are no longer rejected; landing may not delete."""
        for path in sorted(self._earlier.quarantine_files - set(self.quarantine_files)):
            publish_rejected(self.storage, path, pl.DataFrame(schema=QUARANTINE_TYPES))
            self.quarantine_files.append(path)

    def _write_rejected(self, meter: str | None, rows: pl.DataFrame, file: str) -> None:
        self.reasons.update(dict(rows["reason"].value_counts().iter_rows()))
        path = paths.quarantine(meter, self.landed_at.date()) + file
        self.quarantine_files.append(path)
        # What an earlier attempt has rejected was so under the definitions of then.
        if path in self._earlier.quarantine_files or not self.storage.exists(path):
            publish_rejected(self.storage, path, rows)
        else:
            self.storage.sync([path])

    def _with_earlier_keys(self, meter: str, events: pl.DataFrame) -> pl.DataFrame:
        return keep_earlier_keys(self.storage, meter, events, self.landed_at)

    def _write_events(self, part: DatedRows, file: str) -> None:
        self.events += part.height
        path = paths.events(part.meter, part.date) + file
        self.files.append(path)
        if path in self._earlier.counted(part.meter, self.meters.states[part.meter]):
            return
        if self.storage.exists(path):
            # By an attempt that was killed; soon the record will say that it is landed.
            self.storage.sync([path])
            return
        local = self.storage.scratch(".parquet")
        definition = {DEFINITION_KEY: msgspec.json.encode(self.meters[part.meter]).decode()}
        write_stamped(part.rows, local, definition, compression="zstd")
        self.report.rows_written += part.height
        self.report.bytes_written += local.stat().st_size
        self.storage.publish_file(path, local)

    def close(self) -> None:
        """Remove what was not written."""
        self._waiting.close()


def _refused(batch: Batch) -> Parsed:
    """Every line of a batch of which none is an event."""
    said = batch.refused
    lines = range(count_line_ends(batch.lines) + 1)
    return Parsed([], [Rejected(line, None, said.reason, said.detail) for line in lines] if said else [])


def _position(batch: Batch, line: int) -> int:
    return batch.positions[line] if batch.positions else batch.position + line
