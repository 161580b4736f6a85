"""Write the rows of one input into partitions and quarantine, in files whose names depend on the input alone."""

from __future__ import annotations

from collections import Counter

import msgspec
import polars as pl

from jobs.land.earlier_attempt import DEFINITION_KEY, Earlier
from jobs.land.earlier_keys import keep_earlier_keys
from jobs.land.flush_bounds import VERSIONS
from jobs.land.landed_input import LandedInput
from jobs.land.parse.parsed import LINE
from jobs.land.read.byte_values import count_line_ends
from jobs.land.read.inputs import Input
from jobs.land.read.line_batches import Batch
from jobs.land.read_batch import UNREADABLE, ReadBatch
from jobs.land.waiting_rows import DatedRows, WaitingRows
from jobs.run_report import RunReport
from lake import paths
from lake.catalog import MeterCatalog
from lake.checksums import write_with_sha256
from lake.events.quarantine import publish_rejected
from lake.storage import Storage
from schemas.columns import INSTANT, QUARANTINE_TYPES
from schemas.meter import MAX_ENCODED_NAME_BYTES, encode_name
from schemas.validation import check_landed_events


class InputWriter:
    """Buffers the rows of one input, and writes them once there are many.

    `events`, `reasons` (rejected rows by reason), `files` and `quarantine_files` are of all that was written, and
    `unreadable` are the meters of rejected rows whose definition or state can't be read.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what is landed, where, by what, and what is known of it
        self,
        storage: Storage,
        source: Input,
        meters: MeterCatalog,
        record: LandedInput,
        report: RunReport,
        earlier: Earlier,
    ) -> None:
        """Start with no rows; `record` has the landing time and the version of the flush bounds."""
        self.storage, self.source, self.meters = storage, source, meters
        self.landed_at, self.report, self._earlier = record.landed_at, report, earlier
        self.unreadable: set[str] = set()
        self.events, self.files, self.quarantine_files = 0, list[str](), list[str]()
        self.reasons: Counter[str] = Counter()
        self._waiting = WaitingRows(storage, self._ready)
        self._rejected: dict[str | None, list[pl.DataFrame]] = {}
        self._lines, self._bytes, self._flushes = 0, 0, 0
        self._bounds = VERSIONS[record.bounds]

    def add(self, batch: ReadBatch) -> None:
        """Add the rows of a batch; write all that wait once the flush bounds are reached."""
        for name, df in batch.events:
            self._waiting.add(name, df)
        if batch.rejected.height:
            self._reject(batch.rejected, batch.batch.texts or batch.lines.split(b"\n"), batch.batch)
        self._lines += count_line_ends(batch.lines) + 1
        weight = self._bounds.long_line_weight if batch.batch.has_long_line else 1
        # A block counts the same bytes in however many pieces it comes: the line ends between them count too.
        self._bytes += (len(batch.lines) + (not batch.batch.ends_block)) * weight
        if self._bounds.is_reached(batch.batch, self._lines, self._bytes):
            self.flush()

    def _reject(self, rejected: pl.DataFrame, lines: list[bytes], batch: Batch) -> None:
        """Add rejected rows with their original text, by the meter they name."""
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
        """Write all rows that wait, one file a partition; files that an earlier attempt wrote stay as they are."""
        file = paths.landed_file(self.source.sha256, self._flushes)
        with self.report.stage("write"):
            for part in self._waiting.take():
                self._write_events(part, file)
            for folder, frames in self._rejected.items():
                self._write_rejected(folder, pl.concat(frames).sort("position"), file)
        self._rejected = {}
        self._lines, self._bytes, self._flushes = 0, 0, self._flushes + 1

    def empty_obsolete_quarantine(self) -> None:
        """Empty the files of an earlier attempt whose rows are no longer rejected; landing may not delete files."""
        for path in sorted(self._earlier.quarantine_files - set(self.quarantine_files)):
            publish_rejected(self.storage, path, pl.DataFrame(schema=QUARANTINE_TYPES))
            self.quarantine_files.append(path)

    def close(self) -> None:
        """Remove the scratch files of rows that were not written."""
        self._waiting.close()

    def _write_rejected(self, meter: str | None, rows: pl.DataFrame, file: str) -> None:
        self.reasons.update(dict(rows["reason"].value_counts().iter_rows()))
        path = paths.quarantine(meter, self.landed_at.date()) + file
        self.quarantine_files.append(path)
        # An earlier attempt rejected its rows by the definitions of its time, so its files are replaced.
        if path in self._earlier.quarantine_files or not self.storage.exists(path):
            publish_rejected(self.storage, path, rows)
        else:
            self.storage.sync([path])

    def _ready(self, meter: str, events: pl.DataFrame) -> pl.DataFrame:
        """Return events of any dates as they will be written, after validating them with the model of their table."""
        ready = keep_earlier_keys(self.storage, meter, events, self.landed_at)
        check_landed_events(ready, self.meters[meter], paths.events(meter))
        return ready

    def _write_events(self, part: DatedRows, file: str) -> None:
        self.events += part.height
        path = paths.events(part.meter, part.date) + file
        self.files.append(path)
        if path in self._earlier.counted(part.meter, self.meters.states[part.meter]):
            return
        if self.storage.exists(path):
            # A killed attempt may not have synced it, and the record will soon say that it is landed.
            self.storage.sync([path])
            return
        local = self.storage.scratch(".parquet")
        definition = {DEFINITION_KEY: msgspec.json.encode(self.meters[part.meter]).decode()}
        write_with_sha256(part.rows, local, definition, compression="zstd")
        self.report.rows_written += part.height
        self.report.bytes_written += local.stat().st_size
        self.storage.publish_file(path, local)


def _position(batch: Batch, line: int) -> int:
    return batch.positions[line] if batch.positions else batch.position + line
