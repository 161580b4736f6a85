"""Write the files of an export to scratch space, with the same bytes every time, and describe them for the manifest."""

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
from schemas.validation import Frame

USAGE, ADJUSTMENTS = "usage", "adjustments"
# With a fixed size of row groups, the streaming engine writes the same bytes for any number of threads.
ROW_GROUP_ROWS = 100_000
# Up to so large, to validate a file's rows in memory takes half the time.
COLLECTED_BYTES = 2**20
# Columns whose sums are in the manifest: always, or if the meter's quantities add up.
ALWAYS_SUMMED = ("events", "quantity_sum")
SUMMED = ("quantity", "ConsumedQuantity", "quantity_before", "quantity_after", "quantity_change")


class Drafts:
    """The files of a revision that is not published yet, and their description for its manifest."""

    def __init__(self, storage: Storage, *, additive: bool) -> None:
        """Start without files; `storage` has the scratch space, `additive` is whether the quantities add up."""
        self._storage = storage
        self._additive = additive
        self._types: dict[str, dict[str, str]] = {}
        self.local: dict[str, Path] = {}

    def parquet(
        self, name: str, parts: Sequence[pl.LazyFrame], check: Callable[[Frame], None] | None = None
    ) -> pl.LazyFrame:
        """Write the rows of all parts, computing one part after the other; return the written rows.

        `check` validates the rows of each part, and raises the error.
        """
        local = self._add(name, parts[0], ".parquet")
        written = [self._storage.scratch(".parquet") for _ in parts]
        try:
            for part, file in zip(parts, written, strict=True):
                _sink(part, file)
                if check:
                    rows = scan_file(file)
                    check(rows.collect() if file.stat().st_size < COLLECTED_BYTES else rows)
            if len(written) == 1:
                written[0].replace(local)
            else:
                _sink(pl.scan_parquet(written, glob=False, hive_partitioning=False), local)
        finally:
            for file in written:
                file.unlink(missing_ok=True)
        return scan_file(local)

    def csv(self, name: str, rows: pl.LazyFrame, *, full: bool, safe: bool) -> None:
        """Write the rows as CSV of RFC 4180, in bounded memory; `full` and `safe` as for `format_columns`."""
        texts = format_columns(rows, full=full, safe=safe)
        local = self._add(name, rows, ".csv")
        with writing(local):
            texts.sink_csv(local, line_terminator="\r\n", engine="streaming")

    def drop(self, name: str) -> None:
        """Delete one file."""
        self.local.pop(name).unlink()

    def clear(self) -> None:
        """Delete all files that were not published."""
        for local in self.local.values():
            local.unlink(missing_ok=True)

    def described(self) -> dict[str, ExportedFile]:
        """Return the description of every file for the manifest, in order of their names."""
        return {
            name: describe(local, self._types[name], additive=self._additive)
            for name, local in sorted(self.local.items())
        }

    def _add(self, name: str, rows: pl.LazyFrame, suffix: str) -> Path:
        self._types[name] = column_names(rows)
        self.local[name] = self._storage.scratch(suffix)
        return self.local[name]


def describe(file: Path, columns: Mapping[str, str], *, additive: bool) -> ExportedFile:
    """Return the description of a file with these columns: hash, size, rows, and the sums of columns that add up."""
    summed = [name for name in columns if name in ALWAYS_SUMMED or (additive and name in SUMMED)]
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
    """Return columns and types; the names of types are the same in every version of Polars."""
    return {name: _type_name(dtype) for name, dtype in rows.collect_schema().items()}


def scan_file(file: Path) -> pl.LazyFrame:
    """Return the rows of an exported file; those of a CSV all as text."""
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
