"""What the lake has concluded about each partition of a meter: one small file a meter, which planning reads.

The same record is in the metadata of every aggregate file, so the state can be rebuilt from those.
"""

from __future__ import annotations

import datetime as dt

import msgspec
import polars as pl

from lake import paths
from lake.storage import Storage, StoredFile
from schemas.errors import BrokenLakeError
from schemas.meter import Meter

# The key of a Parquet file's key-value metadata under which the record of its partition stands.
METADATA_KEY = "meterlake"


class PartitionState(msgspec.Struct, kw_only=True, frozen=True):
    """The record of one partition as of its last aggregation: its inputs, and what was made of them."""

    meter_version: str
    # Identity of each file that was read, by its name in the partition's folder.
    files: dict[str, str]
    # Files that could not be read, by name, with what was wrong; they are not counted.
    rejected: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    # The inputs as sixteen hex digits: files and meter version.
    fingerprint: str
    # Which of the rows lost to a copy, here or in another partition, as sixteen hex digits.
    losers: str
    # Counted events, copies that lost, those of them with another payload, and rows that broke a rule.
    events: int
    duplicates: int = 0
    conflicts: int = 0
    invalid: dict[str, int] = msgspec.field(default_factory=dict)
    # received_at minus timestamp of the counted events: median, 95th percentile and maximum.
    late_seconds: tuple[float, float, float] | None = None
    aggregated_at: dt.datetime
    # Of the rows of all three tables, taken when the partition was sealed.
    checksum: str | None = None
    # Set once retention has decided to drop the raw events; the aggregates are final from then on.
    sealed_at: dt.datetime | None = None


class KnownMeter(msgspec.Struct, frozen=True):
    """The definition that was last read, and the identity of its file then."""

    identity: str
    meter: Meter


class ExportedMonth(msgspec.Struct, frozen=True, kw_only=True):
    """What the last nightly export of a month found, and of what: nothing is to be done while that is the same."""

    fingerprint: str
    action: str
    revision: int
    closed: bool


class MeterState(msgspec.Struct, kw_only=True):
    """The records of a meter's partitions by date."""

    partitions: dict[dt.date, PartitionState] = msgspec.field(default_factory=dict)
    # Spares reading the definition where its file is still listed with this identity.
    definition: KnownMeter | None = None
    # By month like `2026-06`; of the months that the last night exported.
    exported: dict[str, ExportedMonth] = msgspec.field(default_factory=dict)

    @property
    def sealed(self) -> set[dt.date]:
        """Dates whose aggregates are final."""
        return {date for date, partition in self.partitions.items() if partition.sealed_at}


def load_state(storage: Storage, meter: str) -> MeterState:
    """The state of a meter; rebuilt from the aggregates' metadata where its file is missing.

    Raises BrokenLakeError if the file is there but is not a state.
    """
    body = storage.read(paths.state(meter))
    return rebuild_state(storage, meter) if body is None else decode_state(meter, body)


def decode_state(meter: str, body: bytes) -> MeterState:
    """The state that a meter's file says. Raises BrokenLakeError if it says none."""
    try:
        return msgspec.json.decode(body, type=MeterState)
    except msgspec.DecodeError as error:
        raise BrokenLakeError(
            "not a state file",
            where=paths.state(meter),
            found=str(error),
            hint="remove it; the next run rebuilds it from the aggregates",
        ) from error


def save_state(storage: Storage, meter: str, state: MeterState, stored: bytes | None = None) -> bytes:
    """Publish the state of a meter unless it is the same as what is `stored`; gives the file's content now."""
    state.partitions = dict(sorted(state.partitions.items()))
    body = msgspec.json.encode(state)
    if body != stored:
        storage.publish(paths.state(meter), body)
    return body


def rebuild_state(storage: Storage, meter: str) -> MeterState:
    """The state as the metadata of the `usage` files tells it; reads footers only."""
    state = MeterState()
    for file in storage.list(paths.aggregates("usage", meter)):
        place = paths.split_partition(file.path)
        record = read_record(storage, file)
        if place and record:
            state.partitions[place.date] = record
    return state


def read_record(storage: Storage, file: StoredFile) -> PartitionState | None:
    """The record in the metadata of an aggregate file; None if the file has none or can't be read."""
    try:
        metadata = storage.metadata(file)
    except (pl.exceptions.PolarsError, OSError):
        return None
    body = metadata.get(METADATA_KEY)
    return msgspec.json.decode(body, type=PartitionState) if body else None
