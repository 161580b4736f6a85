"""The heart of the nightly job, pure: from the events of a partition that count to its rows in the three tables."""

from __future__ import annotations

import polars as pl

from lake.measures import dimension_text, measure, merge, with_quantity
from schemas.meter import Meter
from schemas.tables import MEASURES, UsageByDimension, column_types


def usage_tables(events: pl.LazyFrame, meter: Meter) -> dict[str, pl.DataFrame]:
    """The rows of `usage`, `usage_by_subject` and `usage_by_dimension` for deduplicated events of one day.

    Keys first, then the measures; rows sorted by keys, null before any value. The two smaller tables are merged
    from `usage`, so the three always agree.
    """
    keys = ["subject", *meter.dimension_names]
    usage = with_quantity(measure(events, keys), meter).sort(keys).collect()
    by_subject = with_quantity(merge(usage.lazy(), ["subject"]), meter).sort("subject").collect()
    return {"usage": usage, "usage_by_subject": by_subject, "usage_by_dimension": _by_dimension(usage, meter)}


def _by_dimension(usage: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    columns = column_types(UsageByDimension) | {name: usage.schema[name] for name in MEASURES}
    if not meter.dimensions:
        return pl.DataFrame(schema=columns)
    tables = [
        merge(usage.lazy(), [name], pl.col("subject").n_unique().cast(pl.Int64).alias("subjects")).select(
            pl.lit(name).alias("dimension"), dimension_text(meter, name).alias("value"), pl.exclude(name)
        )
        for name in meter.dimension_names
    ]
    return with_quantity(pl.concat(tables), meter).select(*columns).sort("dimension", "value").collect()
