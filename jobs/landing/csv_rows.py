"""Rows of CSV as lines of JSON, so that they are held to the same rules as every other event."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count, islice

import polars as pl
import pyarrow as pa
import pyarrow.csv

from jobs.landing.batches import Batch, Refused
from jobs.landing.rows import DAMAGE, as_json, check_columns, json_lines, unreadable
from schemas.errors import BadInputError
from schemas.meter import Meter

BLOCK_BYTES = 8 * 2**20
_NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$"
_TRUTH = ["true", "false"]
MISFIT = "the row has not as many fields as the header"


def csv_batches(stream: pa.NativeFile, name: str, meters: Mapping[str, Meter]) -> Iterator[Batch]:
    """The rows of a CSV file with a header: event fields, and further columns as metadata by their names.

    An empty field is no value. The text of a further column is a number or a truth value where the row's meter
    declares such a dimension. A row that does not fit the header is refused, as its own text. Raises BadInputError if
    there is no header with the columns of an event, each once.
    """
    start = stream.read(BLOCK_BYTES)
    header = _header(start, name)
    misfits: dict[int, bytes] = {}

    def misfit(row: pa.csv.InvalidRow) -> str:
        # The header is row 1 to the reader.
        misfits[row.number - 1] = row.text.replace("\n", " ").encode()
        return "skip"

    source = pa.PythonFile(_Chained(start, stream), mode="r")
    position = 1
    try:
        reader = pyarrow.csv.open_csv(
            source,
            # Rows have numbers only where one thread reads them.
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=misfit),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
        for batch in reader:
            if batch.num_rows:
                lines = json_lines(
                    pl.DataFrame(pa.Table.from_batches([batch])), partial(_typed, meters=meters)
                )
                positions = _positions(position, batch.num_rows, misfits)
                yield Batch(lines, position, positions=positions)
                position = positions[-1] + 1
                yield from _misfits(misfits, position)
        yield from _misfits(misfits, None)
    except DAMAGE as error:
        raise unreadable(name, "CSV in UTF-8", error) from error


def _header(start: bytes, name: str) -> list[str]:
    text = start.decode("utf-8-sig", errors="replace")
    try:
        header = next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error as error:
        raise unreadable(name, "CSV with a header", error) from error
    twice = [column for number, column in enumerate(header) if column in header[:number]]
    if twice:
        raise BadInputError(
            f"column {twice[0]!r} stands twice", where=name, expected="each column once", found="two alike"
        )
    check_columns(pl.Schema(dict.fromkeys(header, pl.String())), name)
    return header


def _positions(first: int, rows: int, misfits: Mapping[int, bytes]) -> list[int]:
    """The numbers of rows that fit, of which the first may be this one."""
    if not misfits:
        return list(range(first, first + rows))
    found = (number for number in count(first) if number not in misfits)
    return list(islice(found, rows))


def _misfits(misfits: dict[int, bytes], before: int | None) -> Iterator[Batch]:
    """The misfits so far, taken out: what the reader has read ahead differs from time to time."""
    numbers = sorted(number for number in misfits if before is None or number < before)
    if numbers:
        lines = b"\n".join(misfits.pop(number) for number in numbers)
        yield Batch(lines, numbers[0], Refused(b"", "not_json", MISFIT), numbers)


class _Chained(io.RawIOBase):
    """What has been read already, then the rest of the stream."""

    def __init__(self, start: bytes, rest: pa.NativeFile) -> None:
        self._start, self._rest = io.BytesIO(start), rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._start.read(size) or bytes(self._rest.read(size if size >= 0 else None))


def _typed(name: str, _dtype: pl.DataType, meters: Mapping[str, Meter]) -> pl.Expr:
    def declared(dtype: pl.DataType) -> pl.Expr:
        return (
            pl.col("meter")
            .str.strip_chars()
            .is_in([m.name for m in meters.values() if m.dimension_dtypes.get(name) == dtype])
        )

    text = pl.col(name).str.strip_chars()
    number = declared(pl.Float64()) & text.str.contains(_NUMBER)
    truth = declared(pl.Boolean()) & text.is_in(_TRUTH)
    return pl.when(number | truth).then(text).otherwise(as_json(pl.col(name)))
