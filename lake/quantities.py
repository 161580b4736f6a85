"""The one place that chooses how rows of `usage` come to a meter's `quantity`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.measures import SECONDS_PER_DAY, billed, merge
from schemas.meter import Meter


def quantities(
    usage: pl.LazyFrame, meter: Meter, keys: Sequence[str], seconds: float | pl.Expr = SECONDS_PER_DAY
) -> pl.LazyFrame:
    """Return one row by `keys` with its `quantity`, of rows of `usage` of any dates, in no order.

    `keys` are fields of `usage`, and a bucket's key where the rows have one. `seconds` is the length of the bucket.
    """
    return merge(usage, keys).select(*keys, billed(meter, seconds))
