"""Checks a frame by the pandera model of its table before it is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from schemas.columns import EARLIER_QUOTIENT, QUANTITY
from schemas.errors import BrokenLakeError
from schemas.meter import ROUNDED_AGGREGATIONS, Meter

if TYPE_CHECKING:
    from schemas.one_select import TableSchema

Frame = pl.DataFrame | pl.LazyFrame
# pandera is imported only when something is published: see `schemas.tables`.


def check_landed_events(rows: Frame, meter: Meter, where: str) -> None:
    """Raise BrokenLakeError, naming `where` and every broken rule, unless these are events of a meter in its columns."""
    from schemas.tables import landed_events

    _check(landed_events(meter), rows, where)


def check_sealed_winners(rows: Frame, meter: Meter, where: str) -> None:
    """Raise BrokenLakeError unless these are events of a meter, in order of their keys and each key once."""
    from schemas.tables import sealed_winners

    _check(sealed_winners(meter), rows, where)


def check_merged_events(rows: Frame, meter: Meter, where: str) -> None:
    """Raise BrokenLakeError unless these rows have the columns of a meter's events; a compacted file may have more."""
    from schemas.tables import merged_events

    _check(merged_events(meter), rows, where)


def check_aggregate(rows: Frame, meter: Meter, table: str, where: str) -> None:
    """Raise BrokenLakeError unless these are rows of an aggregate table, with their `date`, in order of date and keys."""
    from schemas.tables import aggregate_rows

    _check(aggregate_rows(meter, table), rows, where)


def check_earlier_aggregate(rows: Frame, meter: Meter, table: str, where: str) -> None:
    """Check as `check_aggregate` rows that an earlier version may have computed, and that are published again."""
    from schemas.tables import aggregate_rows

    is_double = rows.collect_schema().get("quantity") == EARLIER_QUOTIENT
    is_quotient = is_double and meter.aggregation in ROUNDED_AGGREGATIONS
    quantity = EARLIER_QUOTIENT if is_quotient else QUANTITY
    _check(aggregate_rows(meter, table, is_earlier=True, quantity=quantity), rows, where)


def check_exported_usage(rows: Frame, meter: Meter, by: Sequence[str], where: str) -> None:
    """Raise BrokenLakeError unless these are rows of an export's `usage`, in order of subject and the dimensions of `by`."""
    from schemas.tables import exported_usage

    _check(exported_usage(meter, tuple(by)), rows, where)


def check_exported_adjustments(rows: Frame, meter: Meter, by: Sequence[str], where: str) -> None:
    """Raise BrokenLakeError unless these are rows of an export's `adjustments`, in the same order."""
    from schemas.tables import exported_adjustments

    _check(exported_adjustments(meter, tuple(by)), rows, where)


def check_quarantine(rows: Frame, where: str) -> None:
    """Raise BrokenLakeError unless these are rejected rows with a reason."""
    from schemas.tables import quarantined_rows

    _check(quarantined_rows(), rows, where)


def _check(model: TableSchema, rows: Frame, where: str) -> None:
    from pandera.config import config_context
    from pandera.errors import SchemaErrors

    try:
        # Whatever the environment of some other program says of pandera.
        with config_context(validation_enabled=True):
            model.validate(rows, lazy=True)  # type: ignore[type-var] # it takes both
    except SchemaErrors as errors:
        expected, found = (
            "; ".join(str(getattr(error, part)) for error in errors.schema_errors)
            for part in ("check", "failure_cases")
        )
        raise BrokenLakeError(
            f"rows of {model.name} break its rules",
            where=where,
            expected=expected,
            found=found,
            hint="nothing of it was published, and existing rows stay; run the job again; if the error stays, "
            "the program is at fault: please report it with this message",
        ) from None
