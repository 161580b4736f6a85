"""A buffer of events that are to be written: in memory, or in scratch files where they have very many columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lake.storage import Storage
from lake.storage.errors import writing

# Each value takes 16 bytes beside its text; a million rows of the usual meters have fewer values.
MAX_CELLS = 16 * 2**20
# The writer of a file needs as much memory for each column as this many values.
COLUMN_CELLS = 2**13
_DATE, _ROW = "#date", "#row"


class DatedRows(NamedTuple):
    """Events of a meter on a date, in order, and how many they are."""

    meter: str
    date: dt.date
    rows: pl.DataFrame | pl.LazyFrame
    height: int


class _File(NamedTuple):
    path: Path
    height: int


class WaitingRows:
    """Buffers events by meter; `prepare` is applied to them before they are split by date."""

    def __init__(self, storage: Storage, prepare: Callable[[str, pl.DataFrame], pl.DataFrame]) -> None:
        """Start empty."""
        self._storage, self._prepare = storage, prepare
        self._frames: dict[str, list[pl.DataFrame]] = {}
        self._files: dict[tuple[str, dt.date], list[_File]] = {}
        self._cells = 0

    def add(self, meter: str, events: pl.DataFrame) -> None:
        """Add events; all of them move to scratch files once they are too many for memory."""
        self._frames.setdefault(meter, []).append(events)
        self._cells += events.height * events.width
        if self._cells + events.width * COLUMN_CELLS > MAX_CELLS:
            self._spill()

    def take(self) -> Iterator[DatedRows]:
        """Yield all events, by meter and date, and clear the buffer."""
        if self._files:
            self._spill()
        for meter, date in sorted(self._files):
            files = self._files[meter, date]
            rows = pl.scan_parquet([file.path for file in files], hive_partitioning=False, glob=False)
            yield DatedRows(meter, date, rows, sum(file.height for file in files))
        for meter in sorted(self._frames):
            yield from self._dated(meter, self._frames.pop(meter))
        self.close()

    def close(self) -> None:
        """Clear the buffer, and remove its scratch files."""
        for file in (file for files in self._files.values() for file in files):
            file.path.unlink(missing_ok=True)
        self._frames, self._files, self._cells = {}, {}, 0

    def _dated(self, meter: str, frames: list[pl.DataFrame]) -> Iterator[DatedRows]:
        events = self._prepare(meter, pl.concat(frames, rechunk=True))
        # Without these, only the rows of one date at a time are in memory twice.
        frames.clear()
        dates = events.select(pl.col("timestamp").dt.date().alias(_DATE)).with_row_index(_ROW)
        numbers = dates.group_by(_DATE).agg(_ROW).sort(_DATE)
        for date, rows in zip(numbers[_DATE], numbers[_ROW], strict=True):
            yield DatedRows(meter, date, events[rows], len(rows))

    def _spill(self) -> None:
        """Move the rows in memory to scratch files, one for each meter and date."""
        while self._frames:
            for meter, date, rows, height in self._dated(*self._frames.popitem()):
                local = self._storage.scratch(".parquet")
                self._files.setdefault((meter, date), []).append(_File(local, height))
                with writing(local):
                    rows.lazy().sink_parquet(local, compression_level=1, engine="streaming")
        self._cells = 0
