"""The pandera models of what is published: columns, types, nulls, ranges, and keys in order without a duplicate.

They are built from `schemas.columns` and the rules of events. Only `schemas.validation` imports this module, when
something is published, since pandera takes longer to load than Polars.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import pandera.polars as pa
import polars as pl

from schemas.columns import (
    ADJUSTMENT_TYPES,
    BILLED_TYPES,
    MEASURE_TYPES,
    QUANTITY,
    QUARANTINE_TYPES,
    SERIES_COUNT,
    SUBJECT_TYPES,
    aggregate_columns,
    event_columns,
)
from schemas.event_rules import (
    MAX_AHEAD,
    QUANTITY_DIGITS,
    QUANTITY_LIMIT,
    REASONS,
    Rule,
    event_rules,
    subject_rules,
)
from schemas.meter import POSITIVE_AGGREGATIONS, Meter
from schemas.one_select import TableSchema, rule

DATE = "date"
_KEY = "idempotency_key"
_FIRST = ("first_at", "first_received_at", "quantity_first")
_LAST = ("last_at", "last_received_at", "quantity_last")


@lru_cache
def landed_events(meter: Meter) -> TableSchema:
    """Return the model of events as `land` writes them."""
    columns = _columns(event_columns(meter), {_KEY, "metadata", *_optional(meter)})
    return TableSchema("events", columns, _event_rules(meter), [_KEY, "subject"])


@lru_cache
def sealed_winners(meter: Meter) -> TableSchema:
    """Return the model of the winners of a sealed partition: events in order of their keys."""
    columns = _columns(event_columns(meter), {"metadata", *_optional(meter)})
    return TableSchema("sealed winners", columns, [*_event_rules(meter), _ascending([_KEY])], [_KEY])


@lru_cache
def merged_events(meter: Meter) -> TableSchema:
    """Return the model of a compacted file: types alone, since its rows are those of other files, unchanged."""
    types = event_columns(meter)
    return TableSchema("events", _columns(types, types), [], [], may_have_more=True)


@lru_cache
def aggregate_rows(
    meter: Meter, table: str, *, is_earlier: bool = False, quantity: pl.DataType = QUANTITY
) -> TableSchema:
    """Return the model of the rows of an aggregate table, of any dates, with their `date`.

    Rows of earlier versions may have quantities that are rejected today, `quantity` in another type, and no column for
    a dimension that was added later.
    """
    types = {DATE: pl.Date(), **aggregate_columns(meter, table), "quantity": quantity}
    keys = [name for name in types if name not in MEASURE_TYPES and name != "subjects"]
    rules = [_at_least("events", 1), *_measure_rules(meter), *map(_of_date, ("first_at", "last_at"))]
    if table == "usage_by_dimension":
        declared = pl.col("dimension").is_in(meter.dimension_names)
        rules += [rule("dimension", declared, "a declared one"), _at_most("subjects", "events")]
        rules += [_at_least("subjects", 1)]
    else:
        rules += _of_events(subject_rules())
    if table == "usage":
        rules += _finite(meter.dimension_dtypes)
    if not is_earlier:
        limit = pl.col("quantity_max") < pl.lit(QUANTITY_LIMIT, QUANTITY)
        rules += [rule("quantity_max", limit, f"below 10^{QUANTITY_DIGITS}")]
    nullable = {"value", *_optional(meter)}
    columns = _columns(types, nullable, meter.dimension_names if is_earlier else ())
    return TableSchema(table, columns, [*rules, _ascending(keys, nullable)], keys)


@lru_cache
def exported_usage(meter: Meter, by: tuple[str, ...]) -> TableSchema:
    """Return the model of an export's `usage`, by subject and some dimensions.

    Carried levels have no events and null measures. Quantities may be larger than today's limit, since earlier versions
    accepted them.
    """
    keys = ["subject", *by]
    counted = {} if meter.series is None else {SERIES_COUNT: pl.Int64()}
    types = BILLED_TYPES | _key_types(meter, by) | MEASURE_TYPES | counted
    of_events = [name for name in MEASURE_TYPES if name not in ("quantity", "events")]
    rules = [
        _at_least("events", 1 if meter.carry_days is None else 0),
        *_measure_rules(meter),
        *(
            rule(name, (pl.col("events") == 0) == pl.col(name).is_null(), "a value where there are events")
            for name in of_events
        ),
        *(_at_least(name, 1) for name in counted),
        *_of_events(subject_rules()),
        _ascending(keys, _optional(meter)),
    ]
    return TableSchema("usage", _columns(types, {*of_events, *_optional(meter)}), rules, keys)


@lru_cache
def exported_adjustments(meter: Meter, by: tuple[str, ...]) -> TableSchema:
    """Return the model of an export's `adjustments`, by subject and some dimensions."""
    keys = ["subject", *by]
    types = BILLED_TYPES | _key_types(meter, by) | ADJUSTMENT_TYPES
    before, after, change = map(pl.col, ADJUSTMENT_TYPES)
    none = pl.lit(0, QUANTITY)
    rules = [
        *(_at_least(name, 0) for name in ("quantity_before", "quantity_after")),
        rule("quantity_after", before.ne_missing(after), "another than quantity_before"),
        rule(
            "quantity_change",
            change == after.fill_null(none) - before.fill_null(none),
            "quantity_after less quantity_before",
        ),
        *_of_events(subject_rules()),
        _ascending(keys, _optional(meter)),
    ]
    nullable = {"quantity_before", "quantity_after", *_optional(meter)}
    return TableSchema("adjustments", _columns(types, nullable), rules, keys)


@lru_cache
def quarantined_rows() -> TableSchema:
    """Return the model of rejected rows."""
    known = rule("reason", pl.col("reason").is_in(list(REASONS)), "one that is documented")
    rules = [known, _at_least("position", 1)]
    return TableSchema("quarantine", _columns(QUARANTINE_TYPES, ()), rules, ["source", "position"])


def _columns(
    types: Mapping[str, pl.DataType], nullable: Collection[str], missing: Collection[str] = ()
) -> dict[str, pa.Column]:
    """Return pandera's columns; those in `missing` are optional."""
    return {
        name: pa.Column(dtype, nullable=name in nullable, required=name not in missing)
        for name, dtype in types.items()
    }


def _optional(meter: Meter) -> list[str]:
    return [dimension.name for dimension in meter.dimensions if not dimension.needs_value]


def _key_types(meter: Meter, by: Iterable[str]) -> dict[str, pl.DataType]:
    return SUBJECT_TYPES | {name: meter.dimension_dtypes[name] for name in by}


def _event_rules(meter: Meter) -> list[pa.Check]:
    key = pl.col(_KEY)
    # Comparing lengths takes half the time of comparing texts.
    is_trimmed = (key.str.len_bytes() > 0) & (key.str.strip_chars().str.len_bytes() == key.str.len_bytes())
    return [*_of_events(event_rules(meter)), rule(_KEY, is_trimmed, "trimmed text or null")]


def _of_events(rules: Iterable[Rule]) -> list[pa.Check]:
    """Return rules of an event as checks, without those of missing values, which columns define."""
    return [
        rule(each.found.meta.root_names()[0], ~each.broken, each.expected, each.found)
        for each in rules
        if not each.reason.endswith("_missing")
    ]


def _measure_rules(meter: Meter) -> list[pa.Check]:
    """Return the rules of the measures of any events."""
    positive = meter.aggregation in POSITIVE_AGGREGATIONS
    none = pl.lit(0, QUANTITY)
    smallest = pl.col("quantity_min")
    inner = ("quantity_first", "quantity_last")
    return [
        _at_least("quantity", 0),
        rule(
            "quantity_min",
            smallest > none if positive else smallest >= none,
            "more than 0" if positive else "0 or more",
        ),
        *(_at_most("quantity_min", name) for name in (*inner, "quantity_max")),
        *(_at_most(name, "quantity_max") for name in inner),
        _at_most("quantity_max", "quantity_sum"),
        *(
            rule(at, pl.col(at) <= pl.col(received) + MAX_AHEAD, f"at most 24 h after {received}")
            for at, received, _ in (_FIRST, _LAST)
        ),
        rule("first_at", _is_not_after(_FIRST, _LAST), "at or before last_at", _shown(_FIRST)),
    ]


def _of_date(name: str) -> pa.Check:
    return rule(name, pl.col(name).dt.date() == pl.col(DATE), "a moment of the row's date")


def _finite(types: Mapping[str, pl.DataType]) -> list[pa.Check]:
    numbers = [name for name, dtype in types.items() if dtype == pl.Float64()]
    return [rule(name, pl.col(name).is_finite(), "a finite number") for name in numbers]


def _at_least(name: str, number: int) -> pa.Check:
    return rule(name, pl.col(name) >= number, f"{number} or more")


def _at_most(name: str, other: str) -> pa.Check:
    both = pl.format(f"{{}} where {other} is {{}}", name, other)
    return rule(name, pl.col(name) <= pl.col(other), f"at most {other}", both)


def _is_not_after(names: Sequence[str], others: Sequence[str]) -> pl.Expr:
    """Return whether some columns, compared one after the other, are at most those of others."""
    holds = pl.lit(value=True)
    for name, other in reversed(list(zip(names, others, strict=True))):
        holds = (pl.col(name) < pl.col(other)) | ((pl.col(name) == pl.col(other)) & holds)
    return holds


def _ascending(keys: Sequence[str], nullable: Collection[str] = ()) -> pa.Check:
    """Return the rule that each row's keys are greater than those of the row before, null being the smallest value."""
    greater = pl.lit(value=False)
    for key in reversed(keys):
        value, before = pl.col(key), pl.col(key).shift(1)
        is_greater, is_same = value > before, value == before
        # Comparing nulls takes half as long again.
        if key in nullable:
            is_greater, is_same = is_greater.fill_null(value.is_not_null()), value.eq_missing(before)
        greater = is_greater | (is_same & greater)
    after = pl.concat_str(pl.lit("after "), _shown(keys, shift=1))
    return rule("keys", greater, "greater than those of the row before", after)


def _shown(names: Sequence[str], shift: int = 0) -> pl.Expr:
    values = [pl.col(name).shift(shift).cast(pl.String).fill_null("null") for name in names]
    return pl.concat_str(
        [pl.format(f"{name} {{}}", value) for name, value in zip(names, values, strict=True)], separator=", "
    )
