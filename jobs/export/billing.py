"""Compute what is billed: the rows of a period, the adjustments between revisions, and the sets of columns; pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from lake.aggregates.measures import aggregated
from lake.aggregates.quantities import range_totals
from lake.aggregates.rounding import from_double
from schemas.columns import ADJUSTMENT_TYPES, BILLED_TYPES, EARLIER_QUOTIENT, INSTANT, MEASURES, SERIES_COUNT
from schemas.errors import BadInputError, RefusedError
from schemas.meter import Meter

# For these, and for gauges with series, the sum over an export's rows is the usage of all subjects together.
ADDITIVE = frozenset({"sum", "count"})
BILLED = list(BILLED_TYPES)
ADJUSTMENT = list(ADJUSTMENT_TYPES)
COLUMN_SETS = ("default", "open-spanner", "focus")
OPEN_SPANNER = ("bucket_start", "subject", "meter", "bucket_size", "aggregation", "unit", "quantity")
# Rows of an aggregate table that are merged at once; they take about 500 MB.
PART_ROWS = 1_000_000
_PERIOD = re.compile(r"(\d{4})-(\d{2})")


class Period(NamedTuple):
    """A calendar month of UTC."""

    start: dt.date
    end: dt.date

    def __str__(self) -> str:
        """Return the month as in paths and on the command line: `2026-06`."""
        return self.start.isoformat()[:7]

    @property
    def length(self) -> dt.timedelta:
        """The length of the month."""
        return self.end - self.start


def month_of(date: dt.date) -> Period:
    """Return the month of a date."""
    start = date.replace(day=1)
    return Period(start, (start + dt.timedelta(days=32)).replace(day=1))


def parse_period(text: str) -> Period:
    """Return the month of a text like `2026-06`. Raises BadInputError for any other text."""
    match = _PERIOD.fullmatch(text)
    if not match or not 1 <= int(match[2]) <= 12 or not 1 <= int(match[1]) < 9999:
        raise BadInputError("not a period", expected="a month like 2026-06", found=repr(text))
    return month_of(dt.date(int(match[1]), int(match[2]), 1))


def subject_ranges(rows: pl.LazyFrame, part_rows: int = PART_ROWS) -> list[pl.Expr]:
    """Return conditions on `subject` that split rows, in order of subjects, into parts of about `part_rows`.

    Each part is computed by itself, so that memory does not grow with the number of rows; the result is the same for
    any number of parts. All rows of a subject are in one part.
    """
    count = rows.select(pl.len()).collect(engine="streaming").item()
    parts = -(-count // part_rows)
    sample = (
        rows.select("subject").gather_every(max(1, part_rows // 100)).collect(engine="streaming")["subject"]
    )
    ordered = sample.sort()
    cuts = sorted({ordered[part * len(ordered) // parts] for part in range(1, parts)})
    subject = pl.col("subject")
    above = [pl.lit(value=True), *(subject >= cut for cut in cuts)]
    below = [*(subject < cut for cut in cuts), pl.lit(value=True)]
    return [low & high for low, high in zip(above, below, strict=True)]


def bill(rows: pl.LazyFrame, meter: Meter, period: Period, by: Sequence[str]) -> pl.LazyFrame:
    """Return the usage of a period by subject and the dimensions of `by`, from rows of an aggregate table of its dates.

    Columns are those of `Billed`, subject, dimensions, every measure (null where one of its sums is too large), and for
    meters with `series` the number of added series; rows are sorted by subject and dimensions.
    """
    keys = ["subject", *by]
    series_count = [] if meter.series is None else [SERIES_COUNT]
    totals = range_totals(rows, meter, keys, period.start, period.length)
    return totals.sort(keys).select(*constant_columns(meter, period), *keys, *MEASURES, *series_count)


def is_additive(meter: Meter) -> bool:
    """Return whether the sum over an export's rows is the usage of all subjects together."""
    return meter.aggregation in ADDITIVE or meter.series is not None


def adjustments_between(before: pl.LazyFrame, after: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Return the adjustments that turn the quantities of one revision into those of the next.

    Both frames have `keys`, which identify a row, and `quantity`. Columns are the keys, `quantity_before`,
    `quantity_after` (null for a missing row) and `quantity_change`, for which a missing row counts as 0. Only rows whose
    quantity differs, sorted by keys.
    """
    quantity = pl.col("quantity")
    old = before.select(*keys, quantity.alias("quantity_before"))
    new = after.select(*keys, quantity.alias("quantity_after"))
    both = old.join(new, on=list(keys), how="full", coalesce=True, nulls_equal=True)
    change = pl.col("quantity_after").fill_null(0) - pl.col("quantity_before").fill_null(0)
    differs = pl.col("quantity_before").ne_missing(pl.col("quantity_after"))
    return both.filter(differs).select(*keys, *ADJUSTMENT[:2], change.alias(ADJUSTMENT[2])).sort(keys)


def apply_adjustments(before: pl.LazyFrame, adjustments: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Return the keys and quantities of a revision, from those of the one before and its adjustments, sorted by keys."""
    unchanged = before.select(*keys, "quantity").join(
        adjustments, on=list(keys), how="anti", nulls_equal=True, maintain_order="left"
    )
    changed = adjustments.filter(pl.col("quantity_after").is_not_null())
    after = changed.select(*keys, pl.col("quantity_after").alias("quantity"))
    return pl.concat([unchanged, after]).sort(keys)


def usage_as_decimals(usage: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of a revision's `usage` with `quantity` as a decimal.

    Earlier versions wrote that of avg and rate as a double; it is computed from the other measures of the row.
    """
    if usage.collect_schema()["quantity"] != EARLIER_QUOTIENT:
        return usage
    is_rate = pl.col("aggregation") == "rate"
    length = pl.col("period_end") - pl.col("period_start")
    quantity = pl.when(is_rate).then(aggregated("rate", length)).otherwise(aggregated("avg"))
    return usage.with_columns(quantity.alias("quantity"))


def adjustments_as_decimals(adjustments: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of a revision's `adjustments` with their quantities as decimals, doubles rounded half-even."""
    doubles = [name for name, dtype in adjustments.collect_schema().items() if dtype == EARLIER_QUOTIENT]
    return adjustments.with_columns(from_double(pl.col(name)) for name in doubles if name in ADJUSTMENT)


def with_omitted_rows(
    usage: pl.LazyFrame, omitted: Sequence[Mapping[str, Any]], before: pl.LazyFrame, keys: Sequence[str]
) -> pl.LazyFrame:
    """Return the keys and quantities of a revision; those of rows that it omits are taken from `before`."""
    earlier = before.join(keys_frame(before, omitted, keys), on=list(keys), how="semi", nulls_equal=True)
    return pl.concat([usage.select(*keys, "quantity"), earlier.select(*keys, "quantity")])


def keys_frame(like: pl.LazyFrame, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> pl.LazyFrame:
    """Return the keys of some rows as a frame, with the types of the same columns in another frame."""
    schema = like.collect_schema()
    return pl.LazyFrame(list(rows), schema={name: schema[name] for name in keys})


def in_columns(usage: pl.LazyFrame, by: Sequence[str], columns: str) -> pl.LazyFrame:
    """Return the rows of `bill` in one of the `COLUMN_SETS`, in the same order."""
    return {"default": _default, "open-spanner": _open_spanner, "focus": _focus}[columns](usage, by)


def check_columns(meter: Meter, by: Sequence[str], columns: str, where: str) -> None:
    """Check that a meter can be exported by these dimensions and columns; `where` is the export's folder.

    Raises BadInputError for an unknown or colliding dimension, and RefusedError for FOCUS columns of a meter whose
    quantities do not add up.
    """
    taken = {*BILLED, *ADJUSTMENT, *OPEN_SPANNER, *([] if meter.series is None else [SERIES_COUNT])}
    for position, name in enumerate(by):
        if name not in meter.dimension_names or name in by[:position] or name in taken:
            free = [dimension for dimension in meter.dimension_names if dimension not in taken]
            raise BadInputError(
                f"an export of meter {meter.name!r} can't be grouped by {name!r}",
                where=where,
                expected=f"some of its dimensions, each once: {', '.join(free)}" if free else "no dimension",
                found=", ".join(by),
                hint=f"these names are taken by columns: {', '.join(sorted(taken))}" if name in taken else "",
            )
    if columns == "focus" and not is_additive(meter):
        raise RefusedError(
            "FOCUS rows are added up, which is wrong for this meter",
            where=f"meter {meter.name!r}",
            expected=f"a meter of {' or '.join(sorted(ADDITIVE))}, or a gauge with series",
            found=f"one of {meter.aggregation}",
            hint="export it with --columns default or open-spanner",
        )


def constant_columns(meter: Meter, period: Period) -> list[pl.Expr]:
    """Return the columns of `Billed`, which are the same in every row of an export."""
    start, end = (dt.datetime.combine(date, dt.time(), dt.UTC) for date in period)
    texts = {"meter": meter.name, "unit": meter.unit, "aggregation": meter.aggregation}
    return [
        pl.lit(start, INSTANT).alias("period_start"),
        pl.lit(end, INSTANT).alias("period_end"),
        *(pl.lit(text).alias(name) for name, text in texts.items()),
    ]


def _default(usage: pl.LazyFrame, _by: Sequence[str]) -> pl.LazyFrame:
    return usage


def _open_spanner(usage: pl.LazyFrame, by: Sequence[str]) -> pl.LazyFrame:
    more = [pl.col("period_start").alias("bucket_start"), pl.lit("month").alias("bucket_size")]
    return usage.with_columns(more).select(*OPEN_SPANNER, *by)


def _focus(usage: pl.LazyFrame, by: Sequence[str]) -> pl.LazyFrame:
    """Return the columns of FOCUS 1.2 for usage without price or cost; a charge is a subject's whole month."""
    start, end = pl.col("period_start"), pl.col("period_end")
    return usage.select(
        BillingPeriodStart=start,
        BillingPeriodEnd=end,
        ChargePeriodStart=start,
        ChargePeriodEnd=end,
        ChargeCategory=pl.lit("Usage"),
        # Set only in rows that correct an earlier invoice.
        ChargeClass=pl.lit(None, pl.String),
        SubAccountId="subject",
        ConsumedQuantity="quantity",
        ConsumedUnit="unit",
        SkuMeter="meter",
        Tags=pl.struct(by).struct.json_encode() if by else pl.lit("{}"),
    )
