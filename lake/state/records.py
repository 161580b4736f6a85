"""What the lake has concluded about each partition of a meter: one small file a meter, which planning reads.

The same record is in the metadata of every aggregate file, so the state can be rebuilt from those.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping

import msgspec
import polars as pl

from lake import paths
from lake.decoding import Count, Moment, check_moments, decode
from lake.partition_files import by_date, part_files
from lake.state.lateness import Lateness
from lake.storage import Storage, StoredFile
from lake.storage.errors import is_storage_failure
from schemas.errors import BadInputError, BrokenLakeError
from schemas.meter import Meter, check_meter

# The key of a Parquet file's key-value metadata under which the record of its partition stands.
METADATA_KEY = "meterlake"
# Beside it the path of the file, so that a file that was copied to another place is not taken for what belongs there.
PLACE_KEY = "meterlake-path"
# The version of the rules by which files and rows are read. Records of before it was recorded have 0.
READING_RULES = 1
# What is recorded of every rejected file; the other parts of its error may be missing.
REJECTED_PARTS = frozenset({"identity", "what", "where"})
# Beside the tables in `PartitionState.checksums`: the settled winners.
SEALED_WINNERS = "settled"
# The order in which a partition's tables are published; they are removed in the opposite one.
PUBLISH_ORDER = ("usage_by_dimension", "usage_by_subject", "usage")

# In the record of a partition whose aggregation was interrupted: no meter has it.
NO_VERSION = ""
# In that of a sealed partition of which not all tables are by one rule of `quantity`: no meter has it.
NO_RULE = "interrupted"
NEVER = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class PartitionState(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """The record of one partition as of its last aggregation: its inputs, and what was made of them.

    It can be part of no cycle, and a large lake has so many that collecting garbage would look at nothing else.
    """

    meter_version: str
    # Identity of each file that was read, by its name in the partition's folder.
    files: dict[str, str]
    # Names of those whose types are not the lake's own, and that are converted while they are read.
    converted: list[str] = msgspec.field(default_factory=list)
    # Files that could not be read, by name, with what was wrong; they are not counted.
    rejected: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    # The reading rules of the program that made it.
    rules: Count = 0
    # The inputs as sixteen hex digits: files, meter version and reading rules.
    fingerprint: str
    # Which of the rows lost to a copy, here or in another partition, as sixteen hex digits.
    losers: str
    # Counted events, copies that lost, those of them with another payload, and rows that broke a rule.
    events: Count
    duplicates: Count = 0
    conflicts: Count = 0
    invalid: dict[str, Count] = msgspec.field(default_factory=dict)
    late: Lateness | None = None
    # Of the rows in each table and, once sealed, of the settled winners, if there are any; none where none were written.
    checksums: dict[str, str] = msgspec.field(default_factory=dict)
    aggregated_at: Moment
    # The rule by which `quantity` was computed, see `Meter.quantity_rule`; not there where it is empty.
    quantity_rule: str | msgspec.UnsetType = msgspec.UNSET
    # Of a sealed partition whose `quantity` was computed anew by another rule, the checksums of before.
    earlier_checksums: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    # Of a gauge with dimensions and without `series`: the subjects that have several levels; see lake.aggregates.ambiguity.
    ambiguous_subjects: Count | msgspec.UnsetType = msgspec.UNSET
    # Set once retention has decided to drop the raw events; the aggregates are final from then on.
    sealed_at: Moment | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for moments that no run has written, and for files in another folder."""
        check_moments(self.aggregated_at, self.sealed_at)
        paths.check_stored_names(self.files)
        if self.rejected:
            paths.check_stored_names(self.rejected)


class KnownMeter(msgspec.Struct, frozen=True):
    """The definition that was last read, and the identity of its file then."""

    identity: str
    meter: Meter

    def __post_init__(self) -> None:
        """Raise ValueError for a definition that breaks a rule."""
        try:
            check_meter(self.meter, "")
        except BadInputError as error:
            raise ValueError(str(error)) from error


class ExportedMonth(msgspec.Struct, frozen=True, kw_only=True):
    """What the last nightly export of a month found, and of what: nothing is to be done while that is the same.

    `pending` is how many rows of a closed month differ since its definition or the program changed, which no night
    adjusts.
    """

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
    # The meter's version and `carry_days` of that revision, and its events; empty where an earlier program noted it.
    meter_version: str = ""
    carry_days: int = 0
    event_rows: str = ""
    event_files: str = ""
    pending: int = 0


class MeterState(msgspec.Struct, kw_only=True):
    """The records of a meter's partitions by date."""

    partitions: dict[dt.date, PartitionState] = msgspec.field(default_factory=dict)
    # Spares reading the definition where its file is still listed with this identity.
    definition: KnownMeter | None = None
    # By month like `2026-06`, and for another form than the usual its folders: `2026-06/by=plan/csv=safe`.
    exported: dict[str, ExportedMonth] = msgspec.field(default_factory=dict)
    # The reading rules of the program that has last looked for open partitions that earlier rules had counted otherwise.
    rules: Count = 0
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
    """Return the state of a meter, read and told as of `decode_or_rebuild_state`."""
    return decode_or_rebuild_state(storage, meter, storage.read(paths.state(meter)))


def decode_or_rebuild_state(storage: Storage, meter: str, body: bytes | None) -> MeterState:
    """Return the state that a meter's file says; without a file rebuilt from the aggregates' metadata, and without a checksum.

    Raises BrokenLakeError if the file is not a state.
    """
    return rebuild_state(storage, meter) if body is None else _decoded(meter, body)


def known_definition(body: bytes) -> KnownMeter | None:
    """Return the definition that a state's file knows, without the rest of it; None if none, or if it is no state."""
    try:
        return decode(body, _Knowing, "not a state file", where="").definition
    except BrokenLakeError:
        return None


def save_state(storage: Storage, meter: str, state: MeterState, stored: str = "") -> str:
    """Publish the state of a meter unless what is `stored` has its checksum; return the checksum."""
    state.partitions = dict(sorted(state.partitions.items()))
    body = _encoded(state)
    if state.checksum != stored:
        storage.publish(paths.state(meter), body)
    return state.checksum


def interrupted_record(record: PartitionState | None, names: Iterable[str]) -> PartitionState:
    """Return the record of a partition while its tables are published: out of date, whatever files there are.

    The files are those of its last record, whose keys may be wanted; without one, `names` are those that are read now.
    """
    return msgspec.structs.replace(record, meter_version=NO_VERSION) if record else _unfinished(names)


def is_same_record(one: PartitionState | None, other: PartitionState) -> bool:
    """Return whether two records are the same but for what may have been counted later, in the state alone."""
    return one is not None and _uncounted(one) == _uncounted(other)


def is_sealed_alike(one: PartitionState, other: PartitionState) -> bool:
    """Return whether two records are of one sealed partition, before or after its `quantity` was computed anew."""
    return one.sealed_at is not None and _without_quantity(one) == _without_quantity(other)


def rebuild_state(
    storage: Storage,
    meter: str,
    known: Mapping[dt.date, PartitionState] | None = None,
    tables: Mapping[dt.date, dict[str, StoredFile]] | None = None,
) -> MeterState:
    """Return the records that are `known`, and of all other partitions what the footers of their tables have.

    A partition is done only if all of its tables carry the record of the same inputs. One that is not gets a record
    that no files match, so that it is computed again. Sealed is what all readable footers call so, unless the files
    that they name are all there unchanged: then nothing was dropped, and its sealing may have been interrupted.
    `tables` are the `published_tables`, if they were listed before.
    Raises BrokenLakeError for a partition that is not done and can't be computed again, since raw events are gone.
    """
    state = MeterState(partitions=dict(known or {}))
    listed = published_tables(storage, meter) if tables is None else tables
    published = {date: files for date, files in listed.items() if date not in state.partitions}
    storage.prefetch([file for files in published.values() for file in files.values()])
    events, _ = by_date(storage.list(paths.events(meter)) if published else [])
    for date, files in sorted(published.items()):
        records = {table: read_record(storage, file) for table, file in files.items()}
        there = {file.path.rsplit("/", 1)[-1]: file.identity for file in events.get(date, ())}
        record = _finished(records, there)
        if not record and _is_lost(records, there):
            raise BrokenLakeError(
                "the tables of this partition are not of one finished aggregation, and its raw events are gone",
                where=paths.events(meter, date),
                expected="the record of the same inputs in all tables",
                found=", ".join(f"{table}: {_described(records.get(table))}" for table in paths.TABLES),
                hint="restore the files from a backup, or remove the partition's aggregate files to give them up",
            )
        if not record:
            names = {name for each in records.values() if each for name in each.files}
            record = _unfinished(names | there.keys())
        state.partitions[date] = record
    return state


def read_record(storage: Storage, file: StoredFile) -> PartitionState | None:
    """Return the record in the footer of an aggregate file; None if it has none, is of another place, or can't be read."""
    try:
        metadata = storage.metadata(file)
    except BrokenLakeError:
        return None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if is_storage_failure(error):
            raise
        return None
    return decode_record(metadata) if metadata.get(PLACE_KEY, file.path) == file.path else None


def decode_record(metadata: dict[str, str]) -> PartitionState | None:
    """Return the record in an aggregate file's key-value metadata; None if there is none."""
    try:
        record = decode(metadata.get(METADATA_KEY, ""), PartitionState, "not a record", where="")
    except BrokenLakeError:
        return None
    return None if _lacks_parts(record) else record


def _lacks_parts(record: PartitionState) -> bool:
    """Return whether a rejected file lacks what is recorded of every such file."""
    return bool(record.rejected) and not all(
        said.keys() >= REJECTED_PARTS for said in record.rejected.values()
    )


def published_tables(storage: Storage, meter: str) -> dict[dt.date, dict[str, StoredFile]]:
    """Return by date the file in each aggregate table that has one. Lists the three tables."""
    found: dict[dt.date, dict[str, StoredFile]] = {}
    for table in paths.TABLES:
        for date, file in part_files(storage, paths.aggregates(table, meter)).items():
            found.setdefault(date, {})[table] = file
    return found


def _finished(
    records: Mapping[str, PartitionState | None], there: Mapping[str, str]
) -> PartitionState | None:
    """Return the record of a partition that its tables call done; None for any other.

    `records` are by table, of those that have a file; `there` the identities of the raw files that are there, by name.
    """
    found = [record for table in PUBLISH_ORDER if (record := records.get(table))]
    if not found:
        return None
    if any(record != found[-1] for record in found) and all(
        is_sealed_alike(record, found[-1]) for record in found
    ):
        # Computing `quantity` anew was interrupted: it is due, whatever the rule is now.
        return msgspec.structs.replace(found[-1], quantity_rule=NO_RULE)
    if any(_opened(record) != _opened(found[0]) for record in found):
        return None
    sealed = [record for record in found if record.sealed_at]
    if len(sealed) == len(found) and not _all_there(found[0], there):
        return found[0]
    # A date without events has tables only while it is sealed; and one that is sealed has that in all of them.
    whole = len(found) == len(paths.TABLES) and found[0].events > 0 and (there or not sealed)
    return msgspec.structs.replace(_opened(found[0]), aggregated_at=found[0].aggregated_at) if whole else None


def _is_lost(records: Mapping[str, PartitionState | None], there: Mapping[str, str]) -> bool:
    """Return whether a partition that is not done can't be computed again either, since raw events are gone.

    Without any, it may still be what an interrupted run left of an open partition: what comes first in the order of
    publishing. That is out of date only.
    """
    found = [record for record in records.values() if record]
    if any(record.sealed_at and not _all_there(record, there) for record in found):
        return True
    left = tuple(table for table in PUBLISH_ORDER if table in records)
    interrupted = len(found) == len(records) and left == PUBLISH_ORDER[: len(left)]
    return not there and not interrupted


def _unfinished(names: Iterable[str]) -> PartitionState:
    """Return a record of no meter version and of no file as it is, which is out of date whatever there is."""
    return PartitionState(
        meter_version=NO_VERSION,
        files=dict.fromkeys(sorted(names), ""),
        fingerprint="",
        losers="",
        events=0,
        aggregated_at=NEVER,
    )


def _all_there(record: PartitionState, there: Mapping[str, str]) -> bool:
    """Return whether the files of a record are all there unchanged; of no files there is nothing to say so."""
    return bool(record.files) and record.files.items() <= there.items()


def _opened(record: PartitionState) -> PartitionState:
    """Return what a record was of the same inputs before it was sealed, whenever that was."""
    checksums = {table: checksum for table, checksum in record.checksums.items() if table != SEALED_WINNERS}
    return msgspec.structs.replace(record, aggregated_at=NEVER, sealed_at=None, checksums=checksums)


def _without_quantity(record: PartitionState) -> PartitionState:
    """Return what of a record does not depend on the rule of `quantity`."""
    settled = {name: checksum for name, checksum in record.checksums.items() if name == SEALED_WINNERS}
    return msgspec.structs.replace(
        _uncounted(record), checksums=settled, quantity_rule=msgspec.UNSET, earlier_checksums=msgspec.UNSET
    )


def _uncounted(record: PartitionState) -> PartitionState:
    return msgspec.structs.replace(record, ambiguous_subjects=msgspec.UNSET)


def _described(record: PartitionState | None) -> str:
    if record is None:
        return "none that can be read"
    return f"inputs {record.fingerprint}{' (sealed)' if record.sealed_at else ''}"


def _decoded(meter: str, body: bytes) -> MeterState:
    """Return the state that a meter's file says. Raises BrokenLakeError if it says none."""
    hint = "remove it; the next run rebuilds it from the aggregates"
    where, expected = paths.state(meter), "the JSON of a state"
    state = decode(body, MeterState, "not a state file", where=where, expected=expected, hint=hint)
    incomplete = [str(date) for date, record in state.partitions.items() if _lacks_parts(record)]
    if incomplete:
        found = f"a rejected file of {incomplete[0]} without {' or '.join(sorted(REJECTED_PARTS))}"
        raise BrokenLakeError("not a state file", where=where, expected=expected, found=found, hint=hint)
    expected = hashlib.sha256(
        body.replace(state.checksum.encode(), b"", 1) if state.checksum else body
    ).hexdigest()
    if state.checksum != expected:
        raise BrokenLakeError(
            "the state file was changed",
            where=where,
            expected=expected,
            found=state.checksum or "no checksum",
            hint=hint,
        )
    return state


def _encoded(state: MeterState) -> bytes:
    """Return the state as its file has it, with the checksum put in."""
    state.checksum = ""
    state.checksum = hashlib.sha256(msgspec.json.encode(state)).hexdigest()
    return msgspec.json.encode(state)
