"""What the lake has concluded about each partition of a meter: one small file a meter, which planning reads.

The same record is in the metadata of every aggregate file, so the state can be rebuilt from those.
"""

from __future__ import annotations

import datetime as dt
import hashlib

import msgspec
import polars as pl

from lake import paths
from lake.lateness import Lateness
from lake.storage import Storage, StoredFile
from schemas.errors import BrokenLakeError
from schemas.meter import Meter

# The key of a Parquet file's key-value metadata under which the record of its partition stands.
METADATA_KEY = "meterlake"
# Beside the tables in `PartitionState.checksums`: the settled winners.
SETTLED = "settled"


class PartitionState(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """The record of one partition as of its last aggregation: its inputs, and what was made of them.

    It can be part of no cycle, and a large lake has so many that collecting garbage would look at nothing else.
    """

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
    late: Lateness | None = None
    # Of the rows in each table and, once sealed, of the settled winners, if there are any; none where none were written.
    checksums: dict[str, str] = msgspec.field(default_factory=dict)
    aggregated_at: dt.datetime
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
    # The export's files as they were left, and of its last revision the manifest's sha256 and inputs, and the checksum
    # of the quantities that it states: while the files are those, they need not be read again.
    files: str = ""
    manifest_sha256: str = ""
    manifest_inputs: str = ""
    quantities: str = ""


class MeterState(msgspec.Struct, kw_only=True):
    """The records of a meter's partitions by date."""

    partitions: dict[dt.date, PartitionState] = msgspec.field(default_factory=dict)
    # Spares reading the definition where its file is still listed with this identity.
    definition: KnownMeter | None = None
    # By month like `2026-06`; of the months that the last night exported.
    exported: dict[str, ExportedMonth] = msgspec.field(default_factory=dict)
    # Of this file, with this field empty.
    checksum: str = ""

    @property
    def sealed(self) -> set[dt.date]:
        """Dates whose aggregates are final."""
        return {date for date, partition in self.partitions.items() if partition.sealed_at}


class _Knowing(msgspec.Struct):
    """Of a state what it knows of its meter."""

    definition: KnownMeter | None = None


def load_state(storage: Storage, meter: str) -> MeterState:
    """The state of a meter, read and told as of `told_state`."""
    return told_state(storage, meter, storage.read(paths.state(meter)))


def told_state(storage: Storage, meter: str, body: bytes | None) -> MeterState:
    """The state that a meter's file says; without a file rebuilt from the aggregates' metadata, and without a checksum.

    Raises BrokenLakeError if the file is not a state.
    """
    return rebuild_state(storage, meter) if body is None else _decoded(meter, body)


def known_definition(body: bytes) -> KnownMeter | None:
    """The definition that a state's file knows, without the rest of it; None if none, or if it is no state."""
    try:
        return msgspec.json.decode(body, type=_Knowing).definition
    except msgspec.DecodeError:
        return None


def save_state(storage: Storage, meter: str, state: MeterState, stored: str = "") -> str:
    """Publish the state of a meter unless what is `stored` has its checksum; gives the checksum."""
    state.partitions = dict(sorted(state.partitions.items()))
    body = _encoded(state)
    if state.checksum != stored:
        storage.publish(paths.state(meter), body)
    return state.checksum


def rebuild_state(storage: Storage, meter: str) -> MeterState:
    """The state as the metadata of the aggregate files tells it; reads footers only.

    The record in `usage` counts, or where it can't be read that of another table. Raises BrokenLakeError if none can,
    and the partition's raw events are gone: it must not be taken for a new one.
    """
    state = MeterState()
    dates: dict[dt.date, list[StoredFile]] = {}
    for table in paths.TABLES:
        for file in storage.list(paths.aggregates(table, meter)):
            if (place := paths.split_partition(file.path)) and place.file == paths.PART:
                dates.setdefault(place.date, []).append(file)
    for date, files in sorted(dates.items()):
        record = next(filter(None, (read_record(storage, file) for file in files)), None)
        if record:
            state.partitions[date] = record
        elif not storage.list(paths.events(meter, date)):
            raise BrokenLakeError(
                "no aggregate file of this partition can be read, and its raw events are gone",
                where=files[0].path,
                hint="restore the file from a backup, or remove the partition's aggregate files to give them up",
            )
    return state


def read_record(storage: Storage, file: StoredFile) -> PartitionState | None:
    """The record in the metadata of an aggregate file; None if the file has none or can't be read."""
    try:
        metadata = storage.metadata(file)
    except (pl.exceptions.PolarsError, OSError):
        return None
    return decode_record(metadata)


def decode_record(metadata: dict[str, str]) -> PartitionState | None:
    """The record in an aggregate file's key-value metadata; None if there is none."""
    try:
        return msgspec.json.decode(metadata.get(METADATA_KEY, ""), type=PartitionState)
    except msgspec.DecodeError:
        return None


def _decoded(meter: str, body: bytes) -> MeterState:
    """The state that a meter's file says. Raises BrokenLakeError if it says none."""
    hint = "remove it; the next run rebuilds it from the aggregates"
    try:
        state = msgspec.json.decode(body, type=MeterState)
    except msgspec.DecodeError as error:
        raise BrokenLakeError(
            "not a state file",
            where=paths.state(meter),
            expected="the JSON of a state",
            found=str(error),
            hint=hint,
        ) from error
    expected = hashlib.sha256(
        body.replace(state.checksum.encode(), b"", 1) if state.checksum else body
    ).hexdigest()
    if state.checksum != expected:
        raise BrokenLakeError(
            "the state file was changed",
            where=paths.state(meter),
            expected=expected,
            found=state.checksum or "no checksum",
            hint=hint,
        )
    return state


def _encoded(state: MeterState) -> bytes:
    """The state as its file has it, with the checksum put in."""
    state.checksum = ""
    state.checksum = hashlib.sha256(msgspec.json.encode(state)).hexdigest()
    return msgspec.json.encode(state)
