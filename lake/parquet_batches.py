"""Reading Parquet files batch by batch, whatever program wrote them, in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 50_000
READ_BYTES = 2**20
# Deeper than any event may be nested; without a limit, reading a footer takes as much of the stack as it says.
MAX_DEPTH = 80
# What pyarrow raises of a damaged file; names in it that are not Unicode are ValueErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError)


def read_schema(source: Path | BinaryIO) -> pa.Schema:
    """Return the columns of a Parquet file from its footer, as Arrow names their types; INT96 is a moment of UTC.

    Raises one of `DAMAGE` if it has none.
    """
    with open_parquet(source) as file:
        schema, leaves = file.schema_arrow, file.schema
        ancient = {
            leaves.column(number).path
            for number in range(len(leaves))
            if leaves.column(number).physical_type == "INT96"
        }
    moment = pa.timestamp("us", "UTC")
    return pa.schema([field.with_type(moment) if field.name in ancient else field for field in schema])


def read_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of these columns in order, at most `BATCH_ROWS` at a time. Raises one of `DAMAGE`."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
            # A name with dots may be that of a nested column, too.
            yield batch.select(list(columns))


def open_parquet(source: Path | BinaryIO) -> pq.ParquetFile:
    """Open a Parquet file so that no more is read at once than is decoded."""
    # INT96 reaches further than nanoseconds, which would wrap.
    options: dict[str, Any] = {"coerce_int96_timestamp_unit": "us", "schema_depth_limit": MAX_DEPTH}
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BYTES, **options)
