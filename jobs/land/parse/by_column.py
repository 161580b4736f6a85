"""Parse many lines of JSON into typed columns at once; strict: a block with any doubtful line is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.json

from jobs.land.parse.guard import NULLABLE, is_plain, may_have_null
from jobs.land.parse.parsed import LINE, Parsed
from jobs.land.parse.undeclared import START_BYTES, likely_metadata, metadata_texts
from jobs.land.read.byte_values import count_line_ends
from schemas.meter import Dimension, Meter

_NAMES = re.compile(rb'"meter"\s*:\s*"([^"\\]*)"')
_ARROW = {"string": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}


class Table(NamedTuple):
    """Lines as typed columns: the fields of an event, and `metadata` with all dimensions of the meters present.

    `undeclared` has the types of further members of `metadata`, which are no dimensions of these meters.
    """

    df: pl.DataFrame
    present: list[Meter]
    undeclared: dict[str, pa.DataType]


def parse_by_column(lines: bytes, meters: Mapping[str, Meter]) -> Parsed | None:
    """Return the events of the lines by meter, in the columns of `parsed_columns`; None if any line is doubtful."""
    table = read_typed(lines, meters, "error", likely_metadata(lines))
    return None if table is None or _hides_null(lines, table) else _split(table, lines)


def read_typed(
    lines: bytes,
    meters: Mapping[str, Meter],
    unexpected: Literal["error", "ignore"],
    metadata: Mapping[str, pa.DataType],
) -> Table | None:
    """Return the lines as one table, with these members of `metadata` too; None if a line is doubtful.

    pyarrow's reader is strict where it matters: a number is no text nor the reverse, decimals are read from their
    text, duplicate fields are errors, and so are unknown ones unless they are ignored. What it tolerates is checked
    here, before and after.
    """
    if not is_plain(lines):
        return None
    # The first lines usually name all meters of the block; whether they do is checked once all lines are read.
    likely = _present(lines[:START_BYTES], meters)
    table = _read(lines, likely, unexpected, metadata)
    names = [meter.name for meter in likely]
    if table is not None and table.df.get_column("meter").is_in(names).all(ignore_nulls=False):
        return table
    present = _present(lines, meters)
    return table if present == likely else _read(lines, present, unexpected, metadata)


def _present(lines: bytes, meters: Mapping[str, Meter]) -> list[Meter]:
    return [meters[name] for name in sorted(named_meters(lines)) if name in meters]


def named_meters(lines: bytes) -> set[str]:
    """Return the values of `meter` in lines of JSON; escaped names are missing, and nested ones are included."""
    return {name.decode(errors="replace") for name in set(_NAMES.findall(lines))}


def _read(
    lines: bytes,
    present: list[Meter],
    unexpected: Literal["error", "ignore"],
    metadata: Mapping[str, pa.DataType],
) -> Table | None:
    tree = _declared(present)
    if tree is None:
        return None
    # Where dimensions are nested, an undeclared name might be found in an inner object.
    nested = any(_dotted(meter) for meter in present)
    undeclared = {} if nested else {name: dtype for name, dtype in metadata.items() if name not in tree}
    schema = _schema(tree | undeclared)
    try:
        lines.decode()
        table = pyarrow.json.read_json(
            pa.BufferReader(lines),
            # One block on one thread costs a third less; the other cores parse other batches.
            read_options=pyarrow.json.ReadOptions(block_size=len(lines) + 1, use_threads=False),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior=unexpected
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    df = pl.DataFrame(table)
    if df.height != count_line_ends(lines) + 1:
        return None
    return Table(df.with_row_index(LINE), present, undeclared)


def _declared(meters: list[Meter]) -> dict[str, Any] | None:
    """Return all dimensions of these meters, flat and nested; None if one object can't have all of them."""
    tree: dict[str, Any] = {}
    for meter in meters:
        for dimension in meter.dimensions:
            leaf = _ARROW[dimension.type]
            if tree.setdefault(dimension.name, leaf) != leaf or not _graft(
                tree, dimension.name.split("."), leaf
            ):
                return None
    return tree


def _schema(metadata: dict[str, Any]) -> pa.Schema:
    text = [
        (name, pa.string()) for name in ("idempotency_key", "subject", "meter", "timestamp", "received_at")
    ]
    fields = [*text, ("quantity", pa.decimal128(38, 9)), ("metadata", _struct(metadata))]
    return pa.schema(fields)


def _graft(tree: dict[str, Any], path: list[str], leaf: pa.DataType) -> bool:
    """Add a leaf at a nested path; return False if the path has a leaf where it needs a branch, or the reverse."""
    *branches, last = path
    for branch in branches:
        inner = tree.setdefault(branch, {})
        if not isinstance(inner, dict):
            return False
        tree = inner
    return bool(tree.setdefault(last, leaf) == leaf)


def _struct(tree: dict[str, Any]) -> pa.DataType:
    return pa.struct(
        [(name, _struct(node) if isinstance(node, dict) else node) for name, node in tree.items()]
    )


def _split(table: Table, lines: bytes) -> Parsed | None:
    """Return the events by meter; None if a row names an unknown meter, has dimensions of another, or one twice."""
    rest = metadata_texts(table.df, table.undeclared, lines)
    if rest is None:
        return None
    df, meters = table.df.with_columns(rest.alias("#rest")), table.present
    named = df.get_column("meter")
    counts = dict(named.value_counts().iter_rows())
    groups = [
        (meter, df if counts.get(meter.name) == df.height else df.filter(named == meter.name))
        for meter in meters
    ]
    if sum(group.height for _, group in groups) < df.height:
        return None
    # Branches too: an empty object at the path of another meter's dimension is undeclared metadata.
    declared = {path[:end] for meter in meters for path in _leaves(meter) for end in range(1, len(path) + 1)}
    for meter, group in groups:
        mine = {path[:end] for path in _leaves(meter) for end in range(1, len(path) + 1)}
        odd = [_at(path).is_not_null() for path in sorted(declared - mine)]
        if group.select(pl.any_horizontal(pl.lit(value=False), *odd, *odd_values(meter)).any()).item():
            return None
    metadata = pl.col("#rest").alias("metadata")
    return Parsed([(meter, columns(group, meter, metadata)) for meter, group in groups if group.height], [])


def odd_values(meter: Meter) -> list[pl.Expr]:
    """Return conditions for rows with a dimension both flat and at its nested path, or with a number that is not finite."""
    twice = [_at((d.name,)).is_not_null() & _at(d.name.split(".")[:1]).is_not_null() for d in _dotted(meter)]
    return twice + [~_value(d).is_finite() for d in meter.dimensions if d.type == "number"]


def columns(group: pl.DataFrame, meter: Meter, rest: pl.Expr) -> pl.DataFrame:
    """Return the columns of parsed events, with `rest` as the metadata."""
    values = [_value(dimension).alias(dimension.name) for dimension in meter.dimensions]
    names = ("idempotency_key", "subject", "quantity", "timestamp", "received_at")
    return group.select(LINE, *names, *values, rest)


def _hides_null(lines: bytes, table: Table) -> bool:
    """Return whether undeclared metadata, which is preserved, may have a null under a name of the schema."""
    meters = table.present
    if len(meters) == 1 and not _dotted(meters[0]) and not table.undeclared:
        return False
    roots = {name.split(".")[0] for meter in meters for name in meter.dimension_names}
    return (b"null" in lines and not roots.isdisjoint(NULLABLE)) or may_have_null(lines)


def _value(dimension: Dimension) -> pl.Expr:
    flat = _at((dimension.name,))
    return pl.coalesce(flat, _at(dimension.name.split("."))) if "." in dimension.name else flat


def _dotted(meter: Meter) -> list[Dimension]:
    return [dimension for dimension in meter.dimensions if "." in dimension.name]


def _leaves(meter: Meter) -> set[tuple[str, ...]]:
    flat: set[tuple[str, ...]] = {(name,) for name in meter.dimension_names}
    return flat | {tuple(dimension.name.split(".")) for dimension in _dotted(meter)}


def _at(path: Sequence[str]) -> pl.Expr:
    value = pl.col("metadata")
    for part in path:
        value = value.struct.field(part)
    return value
