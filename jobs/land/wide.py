"""Cut batches of meters with very many dimensions, so that a column for each dimension fits into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobs.land.parse.by_column import named_meters
from jobs.land.parse.undeclared import START_BYTES
from jobs.land.read.line_batches import BATCH_LINES, Batch
from lake.catalog import MeterCatalog

MAX_CELLS = 2**20


def cut_wide(batches: Iterable[Batch], meters: MeterCatalog) -> Iterator[Batch]:
    """Yield the batches, those of meters with many dimensions in parts; rows are not written between the parts."""
    for batch in batches:
        # The first lines usually name all meters of the batch, which are read at once; others are read when needed.
        named = named_meters(batch.lines[:START_BYTES])
        meters.load(named)
        width = max((len(meters[name].dimensions) for name in named if name in meters), default=1)
        lines = MAX_CELLS // max(width, 1)
        yield from batch.in_parts(lines) if lines < BATCH_LINES else [batch]
