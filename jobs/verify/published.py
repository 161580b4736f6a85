"""Verify the published files of a partition: each by itself, with each other, and with the partition's record."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import polars as pl

from lake import paths
from lake.aggregates.publish import published_files
from lake.aggregates.sums import exact_totals
from lake.checksums import embedded_and_actual_sha256, rows_checksum
from lake.state.rebuild import decode_record
from lake.state.records import PUBLISH_ORDER, SEALED_WINNERS, PartitionState, is_same_record, is_sealed_alike
from lake.storage import Storage, StoredFile, read_each
from schemas.columns import EARLIER_QUOTIENT, aggregate_columns
from schemas.errors import DifferenceError, MeterlakeError
from schemas.meter import Meter

MEASURED = ["events", "quantity_sum"]
KEYS = {"usage_by_subject": ["subject"], "usage_by_dimension": ["dimension", "value"]}


@dataclass
class Published:
    """One partition with its record; checking it fills `tables` with the rows of files that can be read."""

    storage: Storage
    meter: Meter
    date: dt.date
    record: PartitionState
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)


def check_published(of: Published) -> Iterator[DifferenceError]:
    """Yield the errors of the files of one partition; puts the rows that can be read into its `tables`."""
    files = published_files(of.storage, of.meter.name, of.date)
    expected = of.record.events or of.record.sealed_at
    for table in PUBLISH_ORDER:
        path = paths.aggregate(table, of.meter.name, of.date)
        if table not in files and expected:
            yield difference("missing", path, "a file", "none")
        elif table in files:
            if not expected:
                yield difference("unknown", path, "no file, since there are no events", "a file")
            yield from _one_table(of, table, path)
    yield from _totals(of)
    if of.record.sealed_at:
        yield from _sealed_winners(of)


def check_stamp(storage: Storage, file: StoredFile) -> Iterator[DifferenceError]:
    """Yield an error unless a Parquet file that the lake wrote has the bytes that were written."""
    content = read_content(storage, file.path)
    if isinstance(content, DifferenceError):
        yield content
    elif content is not None:
        yield from _stamped(file.path, content)


def read_content(storage: Storage, path: str) -> bytes | DifferenceError | None:
    """Return the content of a file, None if it is missing, or the error if it can't be read."""
    (body,) = read_each(storage, [path])
    if isinstance(body, MeterlakeError):
        return difference("unreadable", path, body.expected or "a readable file", body.found, body.hint)
    return body


def difference(what: str, where: str, expected: str, found: str, hint: str = "") -> DifferenceError:
    """Return a difference; without a `hint`, with the usual one."""
    usual = "see what happened to the file; then: meterlake aggregate --rebuild"
    return DifferenceError(what, where=where, expected=expected, found=found, hint=hint or usual)


def _stamped(path: str, content: bytes) -> Iterator[DifferenceError]:
    expected, found = embedded_and_actual_sha256(content)
    if expected != found or not expected:
        yield difference(
            "damaged", path, f"bytes of SHA-256 {expected or 'in its metadata'}", found or "no checksum"
        )


def _read(path: str, content: bytes) -> tuple[pl.DataFrame, dict[str, str]] | DifferenceError:
    try:
        rows = pl.read_parquet(io.BytesIO(content), hive_partitioning=False)
        return rows, pl.read_parquet_metadata(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        # Invalid Parquet makes Polars panic at times.
        return difference("damaged", path, "Parquet that can be read", str(error).splitlines()[0])


def _one_table(of: Published, table: str, path: str) -> Iterator[DifferenceError]:
    content = read_content(of.storage, path) or b""
    if isinstance(content, DifferenceError):
        yield content
        return
    wrong = [*_stamped(path, content)]
    yield from wrong
    if wrong and embedded_and_actual_sha256(content)[0]:
        # Not read: readers may do anything with damaged bytes.
        return
    read = _read(path, content)
    if isinstance(read, DifferenceError):
        yield read
        return
    rows, metadata = read
    stored = decode_record(metadata)
    record = stored if stored and _is_recomputed(of, stored) else of.record
    if not is_same_record(stored, record):
        yield difference(
            "other inputs", path, f"made from {of.record.fingerprint}", "another record, or none"
        )
    columns = aggregate_columns(of.meter, table)
    if not _allowed(of, rows, columns, record):
        yield difference("other columns", path, str(columns), str(dict(rows.schema)))
        return
    of.tables[table] = rows
    keys = KEYS.get(table, [name for name in rows.columns if name in ("subject", *of.meter.dimension_names)])
    if not rows.select(keys).equals(rows.select(keys).unique().sort(keys)):
        yield difference(
            "not sorted", path, f"rows by {', '.join(keys)}, each once", "another order, or duplicates"
        )
    yield from _rows(of, table, path, record)


def _is_recomputed(of: Published, stored: PartitionState) -> bool:
    """Return whether a table is ahead of the state, since a run that computed `quantity` again was interrupted."""
    is_due = (of.record.quantity_rule or "") != of.meter.quantity_rule
    return is_due and is_sealed_alike(stored, of.record)


def _allowed(
    of: Published, rows: pl.DataFrame, columns: dict[str, pl.DataType], record: PartitionState
) -> bool:
    if record.meter_version == of.meter.version:
        return dict(rows.schema) == columns
    if not record.quantity_rule and rows.schema.get("quantity") == EARLIER_QUOTIENT:
        columns = columns | {"quantity": EARLIER_QUOTIENT} if of.meter.quantity_rule else columns
    # A sealed file lacks dimensions that were declared after sealing.
    return rows.schema.items() <= columns.items() and columns.keys() - rows.columns <= {
        *of.meter.dimension_names
    }


def _rows(of: Published, table: str, path: str, record: PartitionState) -> Iterator[DifferenceError]:
    expected, found = record.checksums.get(table, "none"), rows_checksum(of.tables[table])
    if expected != found:
        # The rows of an open partition are computed again too, which shows the difference.
        what, hint = "rows changed", ""
        if of.record.sealed_at:
            what, hint = "sealed rows changed", "restore the file from a backup: its events are gone"
        yield difference(what, path, f"rows of checksum {expected}", found, hint)


def _totals(of: Published) -> Iterator[DifferenceError]:
    """Yield an error for each table whose totals differ from those of `usage`, or from the record."""
    if "usage" not in of.tables:
        return
    expected = _sums(of.tables["usage"])
    path = paths.aggregate("usage", of.meter.name, of.date)
    if expected["events"] != of.record.events:
        yield difference("totals", path, f"events {of.record.events}", _text(expected))
    for table in sorted(KEYS.keys() & of.tables.keys()):
        rows = of.tables[table]
        groups = [rows] if table == "usage_by_subject" else rows.partition_by("dimension")
        for group in groups:
            found = _sums(group)
            if found != expected:
                yield difference(
                    "totals", paths.aggregate(table, of.meter.name, of.date), _text(expected), _text(found)
                )


def _sealed_winners(of: Published) -> Iterator[DifferenceError]:
    """Yield the errors of the file with sealed winners: without it, duplicates of them would count again."""
    path, expected = paths.sealed_winners(of.meter.name, of.date), of.record.checksums.get(SEALED_WINNERS)
    content = read_content(of.storage, path)
    lost = (
        "restore the file from a backup: its events are gone, and duplicates of them count again without it"
    )
    if isinstance(content, DifferenceError):
        yield content
        return
    if content is None:
        if expected:
            yield difference("missing", path, "a file", "none", lost)
        return
    if not expected:
        yield difference("unknown", path, "no file", "a file", "remove the file")
        return
    for wrong in _stamped(path, content):
        yield difference(wrong.what, path, wrong.expected, wrong.found, lost)
        return
    read = _read(path, content)
    if isinstance(read, DifferenceError):
        yield read
    elif rows_checksum(read[0]) != expected:
        yield difference(
            "sealed rows changed", path, f"rows of checksum {expected}", rows_checksum(read[0]), lost
        )


def _sums(rows: pl.DataFrame) -> dict[str, Decimal]:
    return exact_totals(rows.lazy(), MEASURED).sums


def _text(totals: dict[str, Decimal]) -> str:
    return ", ".join(f"{name} {value:f}" for name, value in totals.items())
