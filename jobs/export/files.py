"""The files of an export: written in scratch space with the same bytes every time, and described for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from jobs.exact_text import decimal_text, format_columns
from lake.aggregates.sums import exact_totals
from lake.revisions import ExportedFile
from lake.storage import Storage
from lake.storage.errors import writing

USAGE, ADJUSTMENTS = "usage", "adjustments"
# With a fixed size of row groups, the streaming engine writes the same bytes whatever the number of its threads.
ROW_GROUP_ROWS = 100_000
# Columns whose sums a manifest states: these always, and those where quantities add up.
COUNTED = ("events", "quantity_sum")
SUMMED = ("quantity", "ConsumedQuantity", "quantity_before", "quantity_after", "quantity_change")


class Drafts:
    """The files of a revision in the making, and what its manifest will say of them."""

    def __init__(self, storage: Storage, *, additive: bool) -> None:
        """Take the storage that has the scratch space, and whether the meter's quantities add up."""
        self._storage = storage
        self._additive = additive
        self._types: dict[str, dict[str, str]] = {}
        self.local: dict[str, Path] = {}

    def parquet(
        self, name: str, parts: Sequence[pl.LazyFrame], check: Callable[[pl.LazyFrame], None] | None = None
    ) -> pl.LazyFrame:
        """Write the rows of all parts, computing one part after the other; gives them as they were written.

        `check` looks at the rows of each part, and raises what is wrong with them.
        """
        local = self._add(name, parts[0], ".parquet")
        written = [self._storage.scratch(".parquet") for _ in parts]
        try:
            for part, file in zip(parts, written, strict=True):
                _sink(part, file)
                if check:
                    check(scan_file(file))
            if len(written) == 1:
                written[0].replace(local)
            else:
                _sink(pl.scan_parquet(written, glob=False, hive_partitioning=False), local)
        finally:
            for file in written:
                file.unlink(missing_ok=True)
        return scan_file(local)

    def csv(self, name: str, rows: pl.LazyFrame, *, full: bool, safe: bool) -> None:
        """Write the rows as RFC 4180 has it, a part at a time; `full` and `safe` as for `format_columns`."""
        texts = format_columns(rows, full=full, safe=safe)
        local = self._add(name, rows, ".csv")
        with writing(local):
            texts.sink_csv(local, line_terminator="\r\n", engine="streaming")

    def drop(self, name: str) -> None:
        """Take one file away again."""
        self.local.pop(name).unlink()

    def clear(self) -> None:
        """Take away what has not been published."""
        for local in self.local.values():
            local.unlink(missing_ok=True)

    def described(self) -> dict[str, ExportedFile]:
        """What the manifest says of every file, in order of their names."""
        return {
            name: describe(local, self._types[name], additive=self._additive)
            for name, local in sorted(self.local.items())
        }

    def _add(self, name: str, rows: pl.LazyFrame, suffix: str) -> Path:
        self._types[name] = column_names(rows)
        self.local[name] = self._storage.scratch(suffix)
        return self.local[name]


def describe(file: Path, columns: Mapping[str, str], *, additive: bool) -> ExportedFile:
    """What a manifest says of a file with these columns: hash, size, rows, and the sums of columns that add up."""
    summed = [name for name in columns if name in COUNTED or (additive and name in SUMMED)]
    totals = exact_totals(scan_file(file), summed)
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return ExportedFile(
        sha256=sha256,
        size_bytes=file.stat().st_size,
        rows=totals.rows,
        columns=dict(columns),
        totals={name: decimal_text(total) for name, total in totals.sums.items()},
    )


def column_names(rows: pl.LazyFrame) -> dict[str, str]:
    """Columns and types, the types in words that are the same in every version of Polars."""
    return {name: _type_name(dtype) for name, dtype in rows.collect_schema().items()}


def scan_file(file: Path) -> pl.LazyFrame:
    """The rows of an exported file; of a CSV all as text."""
    if file.suffix == ".csv":
        return pl.scan_csv(file, infer_schema=False, glob=False)
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _sink(rows: pl.LazyFrame, file: Path) -> None:
    with writing(file):
        rows.sink_parquet(file, compression="zstd", row_group_size=ROW_GROUP_ROWS, engine="streaming")


def _type_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Decimal):
        return f"decimal({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.Datetime):
        return f"timestamp[{dtype.time_unit}, {dtype.time_zone}]"
    names = {pl.String(): "string", pl.Float64(): "double", pl.Boolean(): "boolean", pl.Int64(): "int64"}
    # No export has another type, but a file in its place may.
    return names.get(dtype, str(dtype))
