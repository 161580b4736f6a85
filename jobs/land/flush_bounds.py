"""When buffered rows are written. The bounds decide which rows each landed file has.

With other bounds, an interrupted input would be landed twice, so its record keeps the version that it began with.
"""

from __future__ import annotations

from typing import NamedTuple

from jobs.land.read.line_batches import Batch


class FlushBounds(NamedTuple):
    """Rows are written once this many lines of them are buffered, or this many bytes of JSON.

    Lines of a batch with a long line count `long_line_weight` times, since they need more memory. `within_blocks`:
    rows may also be written between pieces of a block.
    """

    lines: int
    json_bytes: int
    long_line_weight: int
    within_blocks: bool

    def is_reached(self, batch: Batch, lines: int, json_bytes: int) -> bool:
        """Return whether this many buffered lines and bytes are written after a batch."""
        may_flush = batch.may_flush and (batch.ends_block or self.within_blocks)
        return may_flush and (lines >= self.lines or json_bytes >= self.json_bytes)


# By version. The second one was never released.
VERSIONS = (
    FlushBounds(1_000_000, 512 * 2**20, 1, within_blocks=False),
    FlushBounds(1_000_000, 512 * 2**20, 8, within_blocks=True),
    FlushBounds(1_000_000, 160 * 2**20, 8, within_blocks=True),
)
NEWEST = len(VERSIONS) - 1
