"""The rules of `series`, `carry_days` and `unique` in a meter's definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import BadInputError

if TYPE_CHECKING:
    from schemas.meter import Meter

# Aggregations whose events state a level, which may be 0; events of others add something.
GAUGES = frozenset({"avg", "min", "max", "first", "last"})
MAX_CARRY_DAYS = 366


def check_levels(meter: Meter, where: str) -> None:
    """Check `series`, `carry_days` and `unique`. Raises BadInputError naming `where`, and what was expected and found."""
    if meter.series is not None:
        _check_series(meter, meter.series, where)
    if meter.carry_days is not None:
        _check_carry_days(meter, meter.carry_days, where)
    _check_unique(meter, where)


def _check_series(meter: Meter, series: Sequence[str], where: str) -> None:
    if not meter.is_gauge:
        raise BadInputError(
            "series is for gauges only: amounts of other meters add up without it",
            where=where,
            expected=f"aggregation {', '.join(sorted(GAUGES))}, or no series",
            found=f"aggregation {meter.aggregation}",
        )
    for position, name in enumerate(series):
        if name not in meter.dimension_names:
            raise _undeclared(meter, "series", name, where)
        if name in series[:position]:
            raise BadInputError(
                f"series names {name!r} twice",
                where=where,
                expected="each dimension at most once",
                found=", ".join(series),
            )


def _check_carry_days(meter: Meter, days: int, where: str) -> None:
    if meter.aggregation != "last":
        raise BadInputError(
            "carry_days is for meters of aggregation last only",
            where=where,
            expected="aggregation last, or no carry_days",
            found=f"aggregation {meter.aggregation}",
        )
    if meter.series is None:
        raise BadInputError(
            "carry_days needs series, which says what is carried",
            where=where,
            expected='series, a list of dimensions like ["workspace"], or [] for one level a subject',
            found="no series",
        )
    if not 1 <= days <= MAX_CARRY_DAYS:
        raise BadInputError(
            "carry_days is out of range", where=where, expected=f"1 to {MAX_CARRY_DAYS}", found=str(days)
        )


def _check_unique(meter: Meter, where: str) -> None:
    is_counted = meter.aggregation == "unique_count"
    if meter.unique is None and is_counted:
        raise BadInputError(
            "aggregation unique_count needs unique",
            where=where,
            expected='the dimension whose distinct values are counted, like "unique": "user"',
            found="no unique",
        )
    if meter.unique is not None and not is_counted:
        raise BadInputError(
            "unique is for meters of aggregation unique_count only",
            where=where,
            expected="aggregation unique_count, or no unique",
            found=f"aggregation {meter.aggregation}",
        )
    if meter.unique is not None and meter.unique not in meter.dimension_names:
        raise _undeclared(meter, "unique", meter.unique, where)


def _undeclared(meter: Meter, member: str, name: str, where: str) -> BadInputError:
    declared = ", ".join(meter.dimension_names)
    return BadInputError(
        f"{member} names {name!r}, which is no declared dimension",
        where=where,
        expected=f"of the dimensions {declared}" if declared else "a meter with dimensions",
        found=repr(name),
    )
