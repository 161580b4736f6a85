"""When rows that wait in memory are written: bounds that are part of the names of landed files.

Other bounds would land an interrupted input twice, so its record has the version with which it began.
"""

from __future__ import annotations

from typing import NamedTuple

from jobs.land.read.line_batches import Batch


class FlushBounds(NamedTuple):
    """Rows are written once so many lines of them wait, or so many bytes of JSON.

    Lines of a batch with a long one count so many times, for memory. `within_blocks` is whether rows may be written
    between pieces of a block, too, which are cut for memory alone.
    """

    lines: int
    json_bytes: int
    long_line_weight: int
    within_blocks: bool

    def is_reached(self, batch: Batch, lines: int, json_bytes: int) -> bool:
        """Return whether so many rows that wait are written behind a batch."""
        may_flush = batch.may_flush and (batch.ends_block or self.within_blocks)
        return may_flush and (lines >= self.lines or json_bytes >= self.json_bytes)


# By version. The second one was never released.
VERSIONS = (
    FlushBounds(1_000_000, 512 * 2**20, 1, within_blocks=False),
    FlushBounds(1_000_000, 512 * 2**20, 8, within_blocks=True),
    FlushBounds(1_000_000, 160 * 2**20, 8, within_blocks=True),
)
NEWEST = len(VERSIONS) - 1
