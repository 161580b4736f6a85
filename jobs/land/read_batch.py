"""From a batch of lines to valid events and rejected lines; changes nothing, so that batches are read in parallel."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from jobs.land.earlier_attempt import Earlier
from jobs.land.parse.choose import parse
from jobs.land.parse.parsed import LINE, Parsed, Rejected
from jobs.land.read.byte_values import count_line_ends
from jobs.land.read.line_batches import Batch
from jobs.land.validate import validate
from lake.catalog import MeterCatalog
from schemas.errors import MeterlakeError

# The reason of a row whose meter is not defined, and of one whose definition can't be read.
UNKNOWN, UNREADABLE = "unknown_meter", "meter_unreadable"


class ReadBatch(NamedTuple):
    """A batch that was parsed and validated: its lines as they were parsed, events by meter, and rejected lines.

    `rejected` has the columns `#line`, `meter`, `reason` and `detail`.
    """

    batch: Batch
    lines: bytes
    events: list[tuple[str, pl.DataFrame]]
    rejected: pl.DataFrame


def read_batch(batch: Batch, meters: MeterCatalog, landed_at: dt.datetime, earlier: Earlier) -> ReadBatch:
    """Parse and validate a batch. `landed_at` is the received_at of events without one."""
    # `replace` takes long even where it replaces nothing.
    lines = (batch.lines.replace(b"\r\n", b"\n") if b"\r" in batch.lines else batch.lines).rstrip(b"\r\n")
    parsed = _reject_all(batch) if batch.refused else parse(lines, meters)
    schema = {LINE: pl.UInt32, "meter": pl.String, "reason": pl.String, "detail": pl.String}
    lines_rejected = [_explain_broken_meter(line, meters.broken) for line in parsed.rejected]
    events, rejected = [], [pl.DataFrame(lines_rejected, schema=schema, orient="row")]
    for meter, df in parsed.events:
        state = meters.states[meter.name]
        validated = validate(df, meter, landed_at, state.sealed - earlier.dates(meter.name, state))
        events.append((meter.name, validated.events.drop(LINE)))
        rejected.append(validated.rejected.with_columns(meter=pl.lit(meter.name)))
    return ReadBatch(batch, lines, events, pl.concat(rejected, how="diagonal"))


def _reject_all(batch: Batch) -> Parsed:
    """Return every line of a refused batch as rejected."""
    why = batch.refused
    lines = range(count_line_ends(batch.lines) + 1)
    return Parsed([], [Rejected(line, None, why.reason, why.detail) for line in lines] if why else [])


def _explain_broken_meter(line: Rejected, broken: Mapping[str, MeterlakeError]) -> Rejected:
    """Return the line with another reason where its meter is defined but can't be read."""
    error = broken.get(line.meter or "")
    return line._replace(reason=UNREADABLE, detail=str(error)) if error and line.reason == UNKNOWN else line
