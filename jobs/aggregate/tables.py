"""The heart of the nightly job, pure: from the events of a partition that count to its rows in the three tables."""

from __future__ import annotations

import polars as pl

from lake.aggregates.distinct import is_value
from lake.aggregates.first_last import Ends
from lake.aggregates.measures import dimension_text, merge_partial, partial, told, with_quantity
from lake.aggregates.quantities import quantities
from lake.aggregates.sums import EXACT, SUMS, Sums, check_sums, has_no_sum
from schemas.columns import DIMENSION_TYPES, MEASURES, QUANTITY
from schemas.meter import Meter

_VALUE = ["dimension", "value"]
_IS_KNOWN = "#is_known"


def partial_usage(events: pl.LazyFrame, meter: Meter, ends: Ends, sums: Sums = EXACT) -> pl.LazyFrame:
    """What `usage_tables` is made of: deduplicated events of one day grouped by all keys, in no order."""
    return partial(events, _keys(meter), ends, sums)


def usage_tables(
    rows: pl.DataFrame, meter: Meter, ends: Ends, where: str = "", sums: Sums = EXACT
) -> dict[str, pl.DataFrame]:
    """The rows of `usage`, `usage_by_subject` and `usage_by_dimension`, of the rows of `partial_usage`.

    Keys first, then the measures; rows sorted by keys, null before any value. The two smaller tables are merged
    from the rows of `usage`, so the three always agree. Raises SumTooLargeError naming `where` and the keys of a sum
    that is too large.
    """
    # Sorted at once, since rows that stand together are merged in less time.
    kept = check_sums(rows, where, _keys(meter)).sort(_keys(meter)).lazy()
    by_subject = merge_partial(kept, ["subject"], ends=ends, sums=sums)
    usage = _plain(with_quantity(told(kept, ends), meter))
    if meter.unique is not None:
        usage = usage.with_columns(is_value(meter.unique).alias("quantity"))
    subjects = _plain(with_quantity(told(by_subject, ends), meter).sort("subject"))
    dimensions = (
        _by_dimension(kept, meter, ends, sums)
        if meter.dimensions
        else pl.DataFrame(schema=DIMENSION_TYPES | usage.select(MEASURES).schema)
    )
    if meter.needs_usage:
        subjects, dimensions = with_quantities(usage, subjects, dimensions, meter)
    lacking = has_no_sum([*SUMS, "quantity"])
    return {
        "usage": usage,
        "usage_by_subject": check_sums(subjects, where, ["subject"], lacking),
        "usage_by_dimension": check_sums(dimensions, where, ["dimension", "value"], lacking),
    }


def with_quantities(
    usage: pl.DataFrame, subjects: pl.DataFrame, dimensions: pl.DataFrame, meter: Meter
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of the two smaller tables of a day with `quantity` from those of `usage`, in their order.

    Of a meter that `needs_usage`. 0 where a row's events are of series that stand in other rows.
    """
    rows = usage.lazy()
    by_value = [
        quantities(rows, meter, [name]).select(
            pl.lit(name).alias("dimension"), dimension_text(meter, name).alias("value"), "quantity"
        )
        for name in meter.dimension_names
    ]
    of_values = (
        pl.concat(by_value)
        if by_value
        else dimensions.lazy().select(*_VALUE, pl.col("quantity").cast(QUANTITY))
    )
    return (
        _quantified(subjects, quantities(rows, meter, ["subject"]), ["subject"]),
        _quantified(dimensions, of_values, _VALUE),
    )


def _quantified(table: pl.DataFrame, found: pl.LazyFrame, keys: list[str]) -> pl.DataFrame:
    known = found.with_columns(pl.lit(value=True).alias(_IS_KNOWN))
    rows = table.lazy().drop("quantity")
    both = rows.join(known, on=keys, how="left", nulls_equal=True, maintain_order="left")
    none = pl.lit(0).cast(QUANTITY)
    quantity = pl.when(_IS_KNOWN).then("quantity").otherwise(none).alias("quantity")
    return both.with_columns(quantity).select(table.columns).collect()


def _by_dimension(rows: pl.LazyFrame, meter: Meter, ends: Ends, sums: Sums) -> pl.DataFrame:
    subjects = pl.col("subject").n_unique().cast(pl.Int64).alias("subjects")
    tables = [
        merge_partial(rows, [name], subjects, ends=ends, sums=sums).select(
            pl.lit(name).alias("dimension"), dimension_text(meter, name).alias("value"), pl.exclude(name)
        )
        for name in meter.dimension_names
    ]
    said = with_quantity(told(pl.concat(tables), ends), meter)
    return said.select(*DIMENSION_TYPES, *MEASURES).sort("dimension", "value").collect()


def _plain(rows: pl.LazyFrame) -> pl.DataFrame:
    """Rows whose text keys are text again."""
    return rows.with_columns(pl.col(pl.Categorical).cast(pl.String)).collect()


def _keys(meter: Meter) -> list[str]:
    return ["subject", *meter.dimension_names]
