"""pandera schemas that check all rules in one Polars select, and name every broken rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.backends.polars.base import PolarsSchemaBackend
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

Frame = pl.DataFrame | pl.LazyFrame
MAX_FOUND_CHARS = 120
# Stands for a column that the model or the frame lacks.
_NONE = "no such column"


class TableSchema(pa.DataFrameSchema):
    """Columns of a table in order with their types, which of them may be null, and rules, all made by `rule`.

    `validate` raises pandera's SchemaErrors with one SchemaError for each thing that is wrong: `check` is what is
    expected, `failure_cases` what was found and in how many rows, with the keys of the first of them.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, pa.Column],
        rules: Sequence[pa.Check],
        keys: Sequence[str],
        *,
        may_have_more: bool = False,
    ) -> None:
        """Make a schema of these columns, and perhaps more of others; a message names a row by `keys`."""
        present = [
            rule(column, pl.col(column).is_not_null(), "a value")
            for column, stated in columns.items()
            if not stated.nullable
        ]
        super().__init__(
            dict(columns),
            checks=[*present, *rules],
            name=name,
            strict=not may_have_more,
            ordered=not may_have_more,
        )
        self.keys = list(keys)

    @staticmethod
    def register_default_backends(check_obj_cls: type) -> None:
        """Do nothing: the backend is the one below. pandera's own load hypothesis, where it is installed."""


def rule(name: str, holds: pl.Expr, expected: str, found: pl.Expr | None = None) -> pa.Check:
    """Return a check that `holds`, or is null, in every row.

    `name` is what it is of, a column or a word; `found` is shown of the first row that breaks it, else that column.
    """
    stated = {"holds": holds, "found": pl.col(name) if found is None else found}
    return pa.Check(lambda data: data.lazyframe.select(holds), name=name, error=expected, statistics=stated)


class _OneSelect(PolarsSchemaBackend):
    """Validates such a schema; pandera's own backend takes about twenty times as long for a table of few rows."""

    def validate(self, check_obj: Frame, schema: TableSchema, **_: Any) -> Frame:
        errors = [*_wrong_columns(check_obj, schema), *_broken_rules(check_obj, schema)]
        if errors:
            raise SchemaErrors(schema, errors, check_obj)
        return check_obj


for _frame in (pl.DataFrame, pl.LazyFrame):
    TableSchema.register_backend(_frame, _OneSelect)


def _wrong_columns(frame: Frame, schema: TableSchema) -> Iterator[SchemaError]:
    found = frame.collect_schema()
    for name, dtype in _types(schema).items():
        if name not in found and schema.columns[name].required:
            reason = SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME
            yield _error(schema, frame, name, (str(dtype), _NONE), reason)
        elif name in found and found[name] != dtype:
            reason = SchemaErrorReason.WRONG_DATATYPE
            yield _error(schema, frame, name, (str(dtype), str(found[name])), reason)
    more = [name for name in found if name not in schema.columns] if schema.strict else []
    for name in more:
        yield _error(schema, frame, name, (_NONE, str(found[name])), SchemaErrorReason.COLUMN_NOT_IN_SCHEMA)
    stated = [name for name in schema.columns if name in found]
    actual = [name for name in found if name in schema.columns]
    if schema.ordered and stated != actual:
        orders = (", ".join(stated), ", ".join(actual))
        yield _error(schema, frame, "columns", orders, SchemaErrorReason.COLUMN_NOT_ORDERED)


def _broken_rules(frame: Frame, schema: TableSchema) -> Iterator[SchemaError]:
    """Yield the errors of rules whose columns exist and have their types."""
    found = frame.collect_schema()
    right = {name for name, dtype in _types(schema).items() if found.get(name) == dtype}
    checks = [check for check in schema.checks if right.issuperset(_holds(check).meta.root_names())]
    if not checks:
        return
    counts = [(~_holds(check)).sum().alias(str(number)) for number, check in enumerate(checks)]
    *broken, height = _only_row(frame.select(*counts, pl.len()))
    for check, count in zip(checks, broken, strict=True):
        if count:
            example, row = _example(frame, check, [key for key in schema.keys if key in found])
            shown = f"{example} in {count:,} of {height:,} rows{row}"
            stated = (str(check.error), shown)
            yield _error(schema, frame, str(check.name), stated, SchemaErrorReason.DATAFRAME_CHECK)


def _example(frame: Frame, check: pa.Check, keys: Sequence[str]) -> tuple[str, str]:
    """Return what was found in the first row that breaks a rule, and what names the row."""
    shown = (check.statistics or {})["found"].cast(pl.String).fill_null("null").str.slice(0, MAX_FOUND_CHARS)
    rows = frame.lazy().select(*keys, shown.alias("#found"), (~_holds(check)).alias("#broken"))
    *named, example, _ = _only_row(rows.filter("#broken").head(1))
    row = ", ".join(f"{key} {_text(value)}" for key, value in zip(keys, named, strict=True))
    return str(example), f", first where {row}" if row else ""


def _only_row(rows: Frame) -> tuple[Any, ...]:
    return (rows.collect() if isinstance(rows, pl.LazyFrame) else rows).row(0)


def _text(value: object) -> str:
    if value is None:
        return "null"
    return repr(value[:MAX_FOUND_CHARS]) if isinstance(value, str) else str(value)


def _types(schema: TableSchema) -> dict[str, pl.DataType]:
    return {name: column.dtype.type for name, column in schema.columns.items()}


def _holds(check: pa.Check) -> pl.Expr:
    holds: pl.Expr = (check.statistics or {})["holds"]
    return holds


def _error(
    schema: TableSchema, frame: Frame, name: str, stated: tuple[str, str], reason: SchemaErrorReason
) -> SchemaError:
    """Return pandera's error; `stated` is what was expected, and what was found."""
    expected, found = (f"{name}: {text}" for text in stated)
    message = f"expected {expected}; found {found}"
    return SchemaError(schema, frame, message, found, expected, reason_code=reason)  # type: ignore[no-untyped-call] # it has no types
