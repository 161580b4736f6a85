"""Parquet files that producers put into partitions: which of them can be read, and their rows as events.

A file with exactly the lake's own types is scanned as it is. A file with the same data in other types is converted
while it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from lake.events.arrow_values import as_number_text, to_frame
from lake.events.column_kinds import DIMENSIONS, FIELDS, Kind, is_own_text
from lake.events.large_files import MAX_MEAN_TEXT, Leaf, decoded_size, leaves_of
from lake.events.parquet_batches import DAMAGE, FileSchema, read_batches, read_footer
from lake.storage import Storage, StoredFile
from schemas.errors import BadInputError, MeterlakeError
from schemas.fields import AS_WRITTEN, find_misnamed

types = pa.types
Columns = Mapping[str, pl.DataType]
MAX_REASON_CHARS = 200
HINT = "replace or remove the file; it is left where it is and not counted"


class FileCheck(NamedTuple):
    """What is wrong with a producer's file, if anything, and whether it is converted in batches while it is read."""

    error: MeterlakeError | None = None
    converted: bool = False


class _Structure(NamedTuple):
    """A file's schema as events: the first wrong column, if any, whether all types are the lake's own, and the leaves."""

    wrong: str | None
    is_own: bool
    leaves: tuple[Leaf, ...]


def check_columns(
    storage: Storage, file: StoredFile, columns: Columns, optional: Collection[str]
) -> FileCheck:
    """Return what is wrong with a file as events of these columns, or how to read it. Reads its footer only."""
    try:
        schema, metadata = read_footer(storage.footer(file))
        structure = _structure(schema, tuple(columns.items()), frozenset(optional))
    except DAMAGE as error:
        found = f"{file.size_bytes} bytes: {_reason(error)}"
        return FileCheck(_file_error(file.path, "unreadable file", "a Parquet file", found))
    if structure.wrong:
        return FileCheck(_column_error(schema.arrow, structure.wrong, columns, file.path))
    try:
        size = decoded_size(storage, file, metadata, columns, structure.leaves)
    except DAMAGE as error:
        return FileCheck(damaged_file(file.path, _reason(error)))
    if size.dense_column:
        return FileCheck(_too_dense(file, size.dense_column))
    return FileCheck(converted=size.is_large or not structure.is_own)


def converted_rows(storage: Storage, file: StoredFile, columns: Columns) -> pl.LazyFrame:
    """Return the rows of a file with other types: these columns and `#as_written`, the stored quantity as text.

    A file that can't be read to its end raises ComputeError when the frame is collected.
    """
    schema = {**columns, AS_WRITTEN: pl.String()}

    def frames(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001 - the file decides
    ) -> Iterator[pl.DataFrame]:
        remaining = n_rows
        for df in _convert_batches(storage, file, columns, with_columns or list(schema)):
            rows = df if remaining is None else df.head(remaining)
            remaining = remaining if remaining is None else remaining - rows.height
            yield rows if predicate is None else rows.filter(predicate)
            if remaining == 0:
                return

    return register_io_source(frames, schema=schema)


def damaged_file(where: str, found: str) -> BadInputError:
    """Return the error of a file whose footer can be read, but not all of its rows."""
    return _file_error(where, "damaged file", "a Parquet file that can be read to its end", found)


def _convert_batches(
    storage: Storage, file: StoredFile, columns: Columns, names: list[str]
) -> Iterator[pl.DataFrame]:
    path = storage.local(file)
    try:
        stored_columns = set(read_footer(path).schema.arrow.names)
        sources = {name: "quantity" if name == AS_WRITTEN else name for name in names}
        # At least one column is read, to know how many rows there are.
        needed = {source for source in sources.values() if source in stored_columns} or {"subject"}
        for batch, _ in read_batches(path, sorted(needed)):
            stored_types = dict(zip(batch.schema.names, batch.schema.types, strict=True))
            values = [
                _converted_value(name, columns, stored_types.get(source)).alias(name)
                for name, source in sources.items()
            ]
            yield to_frame(batch).select(values)
    except (*DAMAGE, pl.exceptions.PolarsError) as error:
        raise pl.exceptions.ComputeError(str(error) or type(error).__name__) from error


def _too_dense(file: StoredFile, column: str) -> BadInputError:
    expected = f"at most {MAX_MEAN_TEXT >> 10} KiB of text in a row on average"
    found = f"more, in a file of {file.size_bytes:,} bytes"
    return _file_error(file.path, f"column {column!r} is too large", expected, found)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:MAX_REASON_CHARS]


def _file_error(where: str, what: str, expected: str, found: str) -> BadInputError:
    return BadInputError(what, where=where, expected=expected, found=found, hint=HINT)


def _converted_value(name: str, columns: Columns, dtype: pa.DataType | None) -> pl.Expr:
    if dtype is None:
        # As long as the other columns are.
        return pl.repeat(None, pl.len(), dtype=columns[name])
    if name == AS_WRITTEN:
        return as_number_text(pl.col("quantity"), dtype)
    return _kind(name, columns).convert(pl.col(name), dtype)


def _kind(name: str, columns: Columns) -> Kind:
    return FIELDS[name] if name in FIELDS else DIMENSIONS[columns[name]]


def _misnamed(schema: pa.Schema, name: str, columns: Columns) -> str | None:
    """Return the column that was meant to be the one of this name, which is not there; None if there is none."""
    others = (column for column in schema.names if column not in columns)
    alike = (column for column in others if find_misnamed([column]) == (column, name))
    return None if name in schema.names else next(alike, None)


# A producer's files are mostly of one schema.
@lru_cache(maxsize=64)
def _structure(
    schema: FileSchema, columns: tuple[tuple[str, pl.DataType], ...], optional: frozenset[str]
) -> _Structure:
    found, by_name = schema.arrow, dict(columns)
    wrong = (name for name in by_name if _is_wrong(found, name, by_name, optional))
    return _Structure(next(wrong, None), _is_own(found, by_name), leaves_of(schema.stored, by_name))


def _is_wrong(schema: pa.Schema, name: str, columns: Columns, optional: Collection[str]) -> bool:
    numbers = schema.get_all_field_indices(name)
    if not numbers and name in optional:
        # A quantity under another name must not count as an absent one, which is 1.
        return name == "quantity" and _misnamed(schema, name, columns) is not None
    return len(numbers) != 1 or not _kind(name, columns).readable(schema.types[numbers[0]])


def _column_error(schema: pa.Schema, name: str, columns: Columns, where: str) -> BadInputError:
    kind, misnamed = _kind(name, columns), _misnamed(schema, name, columns)
    found = [str(schema.types[number]) for number in schema.get_all_field_indices(name)]
    return BadInputError(
        f"column {name!r} is wrong",
        where=where,
        expected=kind.expected if len(found) <= 1 else f"one column of this name: {kind.expected}",
        found=" and ".join(found) or (f"column {misnamed!r}" if misnamed else "no such column"),
        hint=f"did you mean {name!r}? {HINT}" if misnamed else HINT,
    )


def _is_own(schema: pa.Schema, columns: Columns) -> bool:
    """Return whether these columns have the lake's own types, and no other column one that Polars might fail on."""
    plain = (
        _kind(field.name, columns).own(field.type) if field.name in columns else _is_plain(field.type)
        for field in schema
    )
    return len(set(schema.names)) == len(schema.names) and all(plain)


def _is_plain(dtype: pa.DataType) -> bool:
    """Return whether a type is one of those that every reader of Parquet knows."""
    if types.is_struct(dtype):
        return all(_is_plain(field.type) for field in dtype)
    if types.is_list(dtype) or types.is_large_list(dtype):
        return _is_plain(dtype.value_type)
    if types.is_timestamp(dtype):
        return dtype.tz in (None, "UTC")
    if isinstance(dtype, pa.BaseExtensionType):
        return False
    number = types.is_integer(dtype) or types.is_float32(dtype) or types.is_float64(dtype)
    other = types.is_boolean(dtype) or types.is_decimal128(dtype) or types.is_date32(dtype)
    return bool(number or other or is_own_text(dtype) or types.is_binary(dtype))
