"""What each table's model refuses before it is published, and what it says of it: types, nulls, ranges, order, duplicates."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pandera.polars as pa
import polars as pl
import pytest
from pandera.config import config_context
from pandera.errors import SchemaErrors

from schemas import tables, validation
from schemas.columns import EARLIER_QUOTIENT, aggregate_columns, event_columns
from schemas.errors import BrokenLakeError
from schemas.meter import Meter, parse_meter
from schemas.one_select import TableSchema

# A dimension may have the name that pandera's own backend uses for itself.
DIMENSIONS = [
    {"name": "plan", "type": "string", "required": False},
    {"name": "a.b", "type": "number"},
    {"name": "check_output", "type": "boolean"},
]


def meter(**changes: Any) -> Meter:
    body = {"name": "m", "unit": "seat", "aggregation": "sum", "dimensions": DIMENSIONS} | changes
    return parse_meter(json.dumps(body).encode(), "test")


METER = meter()
LEVELS = meter(aggregation="last", series=["plan"], carry_days=5)
DAY = dt.date(2026, 6, 19)
AT = dt.datetime(2026, 6, 19, 12, tzinfo=dt.UTC)
START, END = dt.datetime(2026, 6, 1, tzinfo=dt.UTC), dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
DIMENSIONED = {"plan": "pro", "a.b": 1.5, "check_output": True}
EVENT = {"idempotency_key": "k", "subject": "acme", "quantity": 2, "timestamp": AT, "received_at": AT}
MEASURES: dict[str, Any] = {
    "quantity": 5,
    "events": 2,
    "quantity_sum": 5,
    "quantity_min": 2,
    "quantity_max": 3,
    "quantity_first": 2,
    "first_at": AT,
    "first_received_at": AT,
    "quantity_last": 3,
    "last_at": AT,
    "last_received_at": AT,
}
BILLED = {"period_start": START, "period_end": END, "meter": "m", "unit": "seat", "aggregation": "sum"}
ADJUSTED = {"quantity_before": 5, "quantity_after": 3, "quantity_change": -2}
REJECTED = {"reason": "not_json", "detail": "x", "raw": "{", "source": "a", "position": 1, "landed_at": AT}


class Case(NamedTuple):
    """Two rows of a table that keep every rule, the second of which has the greater key, and what looks at them."""

    rows: pl.DataFrame
    check: Callable[[Any, str], None]
    model: TableSchema
    nullable: set[str]
    keys: tuple[str, ...]


def frame(model: TableSchema, *rows: dict[str, Any]) -> pl.DataFrame:
    types = {name: column.dtype.type for name, column in model.columns.items()}
    return pl.DataFrame(list(rows), schema=types, strict=False, orient="row")


def case(
    model: TableSchema,
    check: Callable[[Any, str], None],
    row: dict[str, Any],
    after: dict[str, Any],
    *nullable: str,
    keys: tuple[str, ...] = (),
) -> Case:
    return Case(frame(model, row, row | after), check, model, set(nullable), keys)


def _aggregate(table: str, of: Meter = METER) -> Callable[[Any, str], None]:
    return lambda rows, where: validation.check_aggregate(rows, of, table, where)


CASES = {
    "events": case(
        tables.landed_events(METER),
        lambda rows, where: validation.check_landed_events(rows, METER, where),
        EVENT | DIMENSIONED,
        {"subject": "b"},
        *("idempotency_key", "plan", "metadata"),
    ),
    "sealed winners": case(
        tables.sealed_winners(METER),
        lambda rows, where: validation.check_sealed_winners(rows, METER, where),
        EVENT | DIMENSIONED,
        {"idempotency_key": "l"},
        *("plan", "metadata"),
        keys=("idempotency_key",),
    ),
    "usage": case(
        tables.aggregate_rows(METER, "usage"),
        _aggregate("usage"),
        {"date": DAY, "subject": "acme"} | DIMENSIONED | MEASURES,
        {"a.b": 2.5},
        "plan",
        keys=("date", "subject", "plan", "a.b", "check_output"),
    ),
    "usage_by_subject": case(
        tables.aggregate_rows(METER, "usage_by_subject"),
        _aggregate("usage_by_subject"),
        {"date": DAY, "subject": "acme"} | MEASURES,
        {"subject": "b"},
        keys=("date", "subject"),
    ),
    "usage_by_dimension": case(
        tables.aggregate_rows(METER, "usage_by_dimension"),
        _aggregate("usage_by_dimension"),
        {"date": DAY, "dimension": "plan", "value": None, "subjects": 1} | MEASURES,
        {"value": "pro"},
        "value",
        keys=("date", "dimension", "value"),
    ),
    "exported usage": case(
        tables.exported_usage(METER, ("plan",)),
        lambda rows, where: validation.check_exported_usage(rows, METER, ["plan"], where),
        BILLED | {"subject": "acme", "plan": None} | MEASURES,
        {"plan": "pro"},
        "plan",
        keys=("subject", "plan"),
    ),
    "exported levels": case(
        tables.exported_usage(LEVELS, ()),
        lambda rows, where: validation.check_exported_usage(rows, LEVELS, [], where),
        BILLED | {"subject": "acme", "series_count": 1} | MEASURES,
        {"subject": "b", "quantity": 7, "events": 0} | dict.fromkeys(set(MEASURES) - {"quantity", "events"}),
        keys=("subject",),
    ),
    "adjustments": case(
        tables.exported_adjustments(METER, ("plan",)),
        lambda rows, where: validation.check_exported_adjustments(rows, METER, ["plan"], where),
        BILLED | {"subject": "acme", "plan": "pro"} | ADJUSTED,
        {"subject": "b", "quantity_before": None, "quantity_change": 3},
        *("plan", "quantity_before", "quantity_after"),
        keys=("subject", "plan"),
    ),
    "quarantine": case(
        tables.quarantined_rows(),
        validation.check_quarantine,
        REJECTED,
        {"position": 2},
    ),
}


def refused(check: Callable[[Any, str], None], rows: pl.DataFrame | pl.LazyFrame) -> BrokenLakeError:
    with pytest.raises(BrokenLakeError) as caught:
        check(rows, "aggregates/here")
    assert caught.value.where == "aggregates/here"
    assert "nothing of it was published" in caught.value.hint
    return caught.value


@pytest.fixture(params=CASES)
def of(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_rows_that_keep_every_rule_pass(of: Case) -> None:
    for rows in (of.rows, of.rows.lazy(), of.rows.clear(), of.rows.head(1)):
        of.check(rows, "here")


def test_a_column_of_another_type_is_named_with_both_types(of: Case) -> None:
    for name, dtype in of.rows.schema.items():
        error = refused(of.check, of.rows.with_columns(pl.col(name).cast(pl.String).cast(pl.Categorical)))
        assert f"{name}: {dtype}" in error.expected.split("; ")
        assert f"{name}: Categorical" in error.found.split("; ")


def test_a_column_too_few_or_too_many_is_named(of: Case) -> None:
    for name, dtype in of.rows.schema.items():
        error = refused(of.check, of.rows.drop(name))
        assert (f"{name}: {dtype}", f"{name}: no such column") == (error.expected, error.found)
    error = refused(of.check, of.rows.with_columns(more=pl.lit(1, pl.Int32)))
    assert (error.expected, error.found) == ("more: no such column", "more: Int32")


def test_columns_in_another_order_are_refused(of: Case) -> None:
    last, *others = reversed(of.rows.columns)
    error = refused(of.check, of.rows.select(last, *reversed(others)))
    assert error.found.startswith(f"columns: {last}, ")


def changed(rows: pl.DataFrame, **values: Any) -> pl.DataFrame:
    """The same rows, the first one with other values."""
    first = pl.int_range(pl.len()) == 0
    return rows.with_columns(
        pl.when(first).then(pl.lit(value, rows.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def findings(check: Callable[[Any, str], None], rows: pl.DataFrame) -> dict[str, str]:
    """What was found, by what was expected."""
    try:
        check(rows, "here")
    except BrokenLakeError as error:
        return dict(zip(error.expected.split("; "), error.found.split("; "), strict=True))
    return {}


def test_a_null_is_named_where_there_may_be_none(of: Case) -> None:
    for name in of.rows.columns:
        nulls = {
            expected: found
            for expected, found in findings(of.check, changed(of.rows, **{name: None})).items()
            if expected.startswith(f"{name}: a value")
        }
        assert bool(nulls) is (name not in of.nullable), name
        assert all(found.startswith(f"{name}: null in 1 of 2 rows") for found in nulls.values()), nulls


LATER, MUCH_LATER = AT + dt.timedelta(minutes=1), AT + dt.timedelta(hours=25)
LIMIT = 10**20
BROKEN: list[tuple[str, dict[str, Any], str, str]] = [
    ("events", {"idempotency_key": ""}, "idempotency_key: trimmed text or null", "idempotency_key: "),
    ("events", {"idempotency_key": " k"}, "idempotency_key: trimmed text or null", "idempotency_key:  k"),
    ("events", {"subject": "ac me"}, "subject: 1 to 128 bytes like ", "subject: ac me"),
    ("events", {"subject": "a" * 129}, "subject: 1 to 128 bytes like ", "subject: aaa"),
    ("events", {"subject": ""}, "subject: 1 to 128 bytes like ", "subject: "),
    ("events", {"quantity": 0}, "quantity: more than 0", "quantity: 0.000000000"),
    ("events", {"quantity": LIMIT}, "quantity: a quantity below 10^20", f"quantity: {LIMIT}.000000000"),
    ("events", {"timestamp": AT.replace(year=1969)}, "timestamp: 1970 or later", "timestamp: 1969-06-19"),
    ("events", {"timestamp": MUCH_LATER}, "timestamp: at most 24 h after", "timestamp: 2026-06-20 13:00"),
    ("events", {"a.b": float("inf")}, "a.b: a finite number", "a.b: inf"),
    ("sealed winners", {"quantity": 0}, "quantity: more than 0", "quantity: 0.000000000"),
    *((name, {"quantity": -1}, "quantity: 0 or more", "quantity: -1.000000000") for name in CASES if "usage" in name),
    ("usage", {"events": 0}, "events: 1 or more", "events: 0"),
    ("usage", {"quantity_min": 0}, "quantity_min: more than 0", "quantity_min: 0.000000000"),
    ("usage", {"quantity_min": 4}, "quantity_min: at most quantity_max", "quantity_min: 4.000000000 where quantity_max is 3"),
    ("usage", {"quantity_first": 1}, "quantity_min: at most quantity_first", "quantity_min: 2.000000000 where quantity_f"),
    ("usage", {"quantity_last": 4}, "quantity_last: at most quantity_max", "quantity_last: 4.000000000 where"),
    ("usage", {"quantity_sum": 2}, "quantity_max: at most quantity_sum", "quantity_max: 3.000000000 where quantity_sum"),
    ("usage", {"quantity_max": LIMIT, "quantity_sum": LIMIT}, "quantity_max: below 10^20", "quantity_max: 1000"),
    ("usage", {"first_at": LATER}, "first_at: at or before last_at", "first_at: first_at 2026-06-19 12:01:00"),
    ("usage", {"first_received_at": LATER}, "first_at: at or before last_at", "first_at: first_at 2026-06-19 12:00"),
    ("usage", {"quantity_first": 3, "quantity_last": 2}, "first_at: at or before last_at", "first_at: first_at"),
    ("usage", {"last_at": MUCH_LATER}, "last_at: at most 24 h after last_received_at", "last_at: 2026-06-20"),
    ("usage", {"last_at": MUCH_LATER}, "last_at: a moment of the row's date", "last_at: 2026-06-20 13:00:00"),
    ("usage", {"subject": "?"}, "subject: 1 to 128 bytes like ", "subject: ?"),
    ("usage", {"a.b": float("nan")}, "a.b: a finite number", "a.b: NaN"),
    ("usage_by_subject", {"events": -1}, "events: 1 or more", "events: -1"),
    ("usage_by_subject", {"subject": "a b"}, "subject: 1 to 128 bytes like ", "subject: a b"),
    ("usage_by_dimension", {"dimension": "other"}, "dimension: a declared one", "dimension: other"),
    ("usage_by_dimension", {"subjects": 0}, "subjects: 1 or more", "subjects: 0"),
    ("usage_by_dimension", {"subjects": 3}, "subjects: at most events", "subjects: 3 where events is 2"),
    ("exported usage", {"events": 0}, "events: 1 or more", "events: 0"),
    ("exported usage", {"quantity_sum": 2}, "quantity_max: at most quantity_sum", "quantity_max: 3.000000000 where"),
    ("exported usage", {"subject": "a b"}, "subject: 1 to 128 bytes like ", "subject: a b"),
    ("exported levels", {"events": -1}, "events: 0 or more", "events: -1"),
    ("exported levels", {"series_count": 0}, "series_count: 1 or more", "series_count: 0"),
    ("exported levels", {"events": 0}, "last_at: a value where there are events", "last_at: 2026-06-19 12:00"),
    ("adjustments", {"quantity_before": -1}, "quantity_before: 0 or more", "quantity_before: -1"),
    ("adjustments", {"quantity_change": 2}, "quantity_change: quantity_after less quantity_before", "quantity_change: 2"),
    ("adjustments", {"quantity_after": 5}, "quantity_after: another than quantity_before", "quantity_after: 5"),
    ("quarantine", {"reason": "odd"}, "reason: one that is documented", "reason: odd"),
    ("quarantine", {"position": 0}, "position: 1 or more", "position: 0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "expected", "found"), BROKEN)
def test_a_value_out_of_its_range_is_shown(
    name: str, values: dict[str, Any], expected: str, found: str
) -> None:
    check, rows = CASES[name].check, changed(CASES[name].rows, **values)
    shown = [
        text
        for said, text in findings(check, rows).items()
        if said.startswith(expected) and text.startswith(found)
    ]
    assert shown, findings(check, rows)
    assert " in 1 of 2 rows, first where " in shown[0]


def test_a_message_names_the_row_by_its_keys() -> None:
    error = refused(CASES["usage"].check, changed(CASES["usage"].rows, events=0))
    row = "date 2026-06-19, subject 'acme', plan 'pro', a.b 1.5, check_output True"
    assert error.found == f"events: 0 in 1 of 2 rows, first where {row}"
    assert str(error).startswith("aggregates/here: rows of usage break its rules: expected events: 1 or more")


KEYED = [name for name, each in CASES.items() if each.keys]


@pytest.mark.parametrize("name", KEYED)
def test_rows_out_of_order_and_rows_with_the_same_keys_are_refused(name: str) -> None:
    check, rows, keys = CASES[name].check, CASES[name].rows, CASES[name].keys
    for wrong in (rows.reverse(), rows[[0, 0]], rows[[0, 1, 1]], rows[[1, 0, 1]]):
        error = refused(check, wrong)
        assert error.expected == "keys: greater than those of the row before"
        assert error.found.startswith(f"keys: after {keys[0]} ")
        assert f" in 1 of {wrong.height} rows, first where {keys[0]} " in error.found


def test_keys_are_ordered_as_a_whole_null_being_the_smallest() -> None:
    check, row = CASES["usage"].check, CASES["usage"].rows[:1]
    ordered = [
        {"subject": "a", "plan": "z"},
        {"subject": "b", "plan": None, "a.b": -1.0},
        {"subject": "b", "plan": None, "check_output": False},
        {"subject": "b", "plan": None, "check_output": True},
        {"subject": "b", "plan": ""},
        {"subject": "bb", "plan": None},
    ]
    rows = pl.concat([changed(row, **values) for values in ordered])
    check(rows, "here")
    assert rows.equals(rows.sort(CASES["usage"].keys))
    for first in range(len(ordered) - 1):
        swapped = [*range(len(ordered))]
        swapped[first : first + 2] = [first + 1, first]
        assert "keys: greater" in refused(check, rows[swapped]).expected


def test_all_that_is_wrong_is_named_at_once() -> None:
    rows = changed(CASES["usage"].rows, events=0, quantity=-1, first_received_at=None)
    wrong = rows.reverse().drop("last_at").with_columns(quantity_sum=1, more=1)
    error = refused(CASES["usage"].check, wrong)
    assert [said.partition(":")[0] for said in error.expected.split("; ")] == [
        *("quantity_sum", "last_at", "more", "first_received_at", "events", "quantity", "keys"),
    ]


def test_a_level_of_0_is_a_fact_and_an_amount_of_0_is_not() -> None:
    usage = changed(CASES["usage"].rows.tail(1), quantity=0, quantity_min=0, quantity_first=0)
    _aggregate("usage", LEVELS)(usage, "here")
    assert refused(_aggregate("usage"), usage).expected == "quantity_min: more than 0"


def test_what_an_earlier_version_made_may_differ_in_what_it_was_allowed() -> None:
    average = meter(aggregation="avg")
    large = changed(CASES["usage"].rows, quantity_max=LIMIT, quantity_sum=LIMIT).drop("a.b", "check_output")
    earlier = large.head(1).with_columns(pl.col("quantity").cast(EARLIER_QUOTIENT))
    validation.check_earlier_aggregate(earlier, average, "usage", "here")
    for of, rows in ((METER, earlier), (average, earlier.with_columns(events=pl.lit(0, pl.Int64)))):
        with pytest.raises(BrokenLakeError):
            validation.check_earlier_aggregate(rows, of, "usage", "here")


def test_files_that_are_merged_may_have_rows_that_break_rules_and_more_columns_but_no_other_types() -> None:
    rows = changed(CASES["events"].rows, subject=None, quantity=-1).with_columns(more=1)
    validation.check_merged_events(rows.lazy(), METER, "here")
    error = refused(lambda rows, where: validation.check_merged_events(rows, METER, where), rows.drop("plan"))
    assert error.found == "plan: no such column"


def test_panderas_own_backend_comes_to_the_same(of: Case) -> None:
    own = pa.DataFrameSchema(dict(of.model.columns), list(of.model.checks), strict=True, ordered=True)
    own.validate(of.rows, lazy=True)
    for rows in (
        changed(of.rows, **{of.rows.columns[1]: None}),
        of.rows.drop(of.rows.columns[-1]),
        of.rows[[1, 1]],
    ):
        verdicts = []
        for model in (own, of.model):
            try:
                model.validate(rows, lazy=True)
            except (SchemaErrors, pl.exceptions.PolarsError):
                verdicts.append("refused")
            else:
                verdicts.append("passed")
        assert len(set(verdicts)) == 1


def test_no_setting_of_pandera_turns_it_off() -> None:
    with config_context(validation_enabled=False):
        refused(CASES["usage"].check, CASES["usage"].rows.reverse())


@pytest.mark.parametrize("table", ["usage", "usage_by_subject", "usage_by_dimension"])
def test_models_have_the_columns_of_the_tables(table: str) -> None:
    assert list(tables.aggregate_rows(METER, table).columns)[1:] == list(aggregate_columns(METER, table))
    assert list(tables.landed_events(METER).columns) == list(event_columns(METER))
