"""From the winning events of a partition to its rows in the three tables; pure."""

from __future__ import annotations

import polars as pl

from lake.aggregates.distinct import is_value
from lake.aggregates.measures import ANY_PARTIALS, Partials, dimension_text, with_quantity
from lake.aggregates.quantities import quantities
from lake.aggregates.sums import SUMS, check_sums, has_no_sum
from schemas.columns import DIMENSION_TYPES, MEASURES, QUANTITY
from schemas.meter import Meter

_VALUE = ["dimension", "value"]
_IS_KNOWN = "#is_known"


def partial_usage(events: pl.LazyFrame, meter: Meter, partials: Partials = ANY_PARTIALS) -> pl.LazyFrame:
    """Return deduplicated events of one day grouped by all keys, in no order: the input of `usage_tables`."""
    return partials.group(events, _keys(meter))


def usage_tables(
    rows: pl.DataFrame, meter: Meter, partials: Partials = ANY_PARTIALS, where: str = ""
) -> dict[str, pl.DataFrame]:
    """Return the tables `usage`, `usage_by_subject` and `usage_by_dimension`, from the rows of `partial_usage`.

    Columns are the keys, then the measures; rows are sorted by keys, null first. The two smaller tables are merged
    from the rows of `usage`, so the three always agree. Raises SumTooLargeError naming `where` and the keys of a sum
    that is too large.
    """
    # Sorted first: neighbouring rows are merged faster.
    ordered = check_sums(rows, where, _keys(meter)).sort(_keys(meter)).lazy()
    by_subject = partials.merge(ordered, ["subject"])
    usage = _plain(with_quantity(partials.finalize(ordered), meter))
    if meter.unique is not None:
        usage = usage.with_columns(is_value(meter.unique).alias("quantity"))
    subjects = _plain(with_quantity(partials.finalize(by_subject), meter).sort("subject"))
    dimensions = (
        _by_dimension(ordered, meter, partials)
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
    """Return the two smaller tables of a day with `quantity` computed from `usage`, in their order of rows.

    For a meter that `needs_usage`. The quantity is 0 where all series of a row's events are counted in other rows.
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


def _quantified(table: pl.DataFrame, quantity_rows: pl.LazyFrame, keys: list[str]) -> pl.DataFrame:
    known = quantity_rows.with_columns(pl.lit(value=True).alias(_IS_KNOWN))
    rows = table.lazy().drop("quantity")
    both = rows.join(known, on=keys, how="left", nulls_equal=True, maintain_order="left")
    none = pl.lit(0).cast(QUANTITY)
    quantity = pl.when(_IS_KNOWN).then("quantity").otherwise(none).alias("quantity")
    return both.with_columns(quantity).select(table.columns).collect()


def _by_dimension(rows: pl.LazyFrame, meter: Meter, partials: Partials) -> pl.DataFrame:
    subjects = pl.col("subject").n_unique().cast(pl.Int64).alias("subjects")
    tables = [
        partials.merge(rows, [name], subjects).select(
            pl.lit(name).alias("dimension"), dimension_text(meter, name).alias("value"), pl.exclude(name)
        )
        for name in meter.dimension_names
    ]
    merged = with_quantity(partials.finalize(pl.concat(tables)), meter)
    return merged.select(*DIMENSION_TYPES, *MEASURES).sort("dimension", "value").collect()


def _plain(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows with text in place of categories."""
    return rows.with_columns(pl.col(pl.Categorical).cast(pl.String)).collect()


def _keys(meter: Meter) -> list[str]:
    return ["subject", *meter.dimension_names]
