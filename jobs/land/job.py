"""Land events from files: valid rows go into partitions, invalid ones into quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial

import msgspec

from jobs.land.earlier_attempt import Earlier, find_earlier
from jobs.land.landed_input import find_or_create, reopen, save
from jobs.land.read.inputs import Input, open_input
from jobs.land.read.line_batches import Batch
from jobs.land.read_batch import ReadBatch, read_batch
from jobs.land.wide import cut_wide
from jobs.land.write import InputWriter
from jobs.progress import track
from jobs.run_report import RunReport
from lake import Lake
from lake.catalog import MeterCatalog
from lake.concurrency import map_ahead
from lake.storage import Storage
from schemas.errors import BrokenLakeError, MeterlakeError
from schemas.redaction import redacted

# More threads would need memory for more batches, and gain little.
THREADS = 2


def land(lake: Lake, inputs: Sequence[str], report: RunReport, file_format: str | None = None) -> None:
    """Land each input, a path or `-` for standard input; one that can't be read does not stop the others.

    An input that was landed before adds nothing. An interrupted input is resumed, with the file names and the landing
    time of the first attempt, so that the result is the same. Invalid rows go to quarantine, and the run ends with
    exit code 1. Only meters that an input names are read; rows of a meter that can't be read go to quarantine until
    the input is landed again.
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
    record, is_new = find_or_create(storage, source.sha256, source.name)
    summary = {"source": source.name, "sha256": source.sha256, "format": source.file_format}
    # An input of which nothing could be landed is tried again: its meter may be defined by now.
    if record.complete and (record.events or not record.quarantined):
        status = f"already landed at {record.landed_at:%Y-%m-%d %H:%M:%S} UTC"
        report.inputs.append(summary | {"status": status, "events": 0, "quarantined": 0})
        return
    earlier = Earlier()
    if not is_new:
        record = reopen(storage, source.sha256, record)
        earlier = find_earlier(storage, source.sha256)
        meters.pin(earlier.meters)
    writer = InputWriter(storage, source, meters, record, report, earlier)
    _write_all(writer, earlier)
    done = msgspec.structs.replace(
        record,
        complete=not writer.unreadable,
        events=writer.events,
        quarantined=dict(writer.reasons),
        files=writer.files,
        quarantine_files=writer.quarantine_files,
    )
    save(storage, source.sha256, done)
    quarantined = sum(writer.reasons.values())
    status = "landed in part" if writer.unreadable else "landed"
    report.inputs.append(summary | {"status": status, "events": writer.events, "quarantined": quarantined})
    for name in sorted(writer.unreadable):
        report.add_error(_unreadable_meter(name, source, meters.broken[name]))
    report.events_landed += writer.events
    report.quarantine(writer.reasons)


def _write_all(writer: InputWriter, earlier: Earlier) -> None:
    """Read the input's batches in parallel, and write their rows in order."""
    source, meters, report = writer.source, writer.meters, writer.report
    read = partial(read_batch, meters=meters, landed_at=writer.landed_at, earlier=earlier)
    pieces = cut_wide(source.batches(meters), meters)
    with (
        closing(writer),
        closing(map_ahead(read, pieces, threads=THREADS, small=_has_short_lines)) as batches,
    ):
        for batch in track(_timed(batches, report), f"land {source.name}"):
            writer.add(batch)
        writer.flush()
    writer.empty_obsolete_quarantine()


def _unreadable_meter(name: str, source: Input, error: MeterlakeError) -> BrokenLakeError:
    hint = f"rows of meter {name!r} are in quarantine; repair the file, then land {source.name} again. {error.hint}"
    return BrokenLakeError(
        error.what, where=error.where, expected=error.expected, found=error.found, hint=hint.rstrip()
    )


def _has_short_lines(batch: Batch) -> bool:
    return not batch.has_long_line


def _timed(batches: Iterator[tuple[Batch, ReadBatch]], report: RunReport) -> Iterator[ReadBatch]:
    """Yield the batches, and add the time spent waiting for each to the stage `parse`."""
    while True:
        with report.stage("parse"):
            following = next(batches, None)
        if following is None:
            return
        yield following[1]
