"""The state of a meter: one record for each partition, in one small file a meter, from which runs are planned.

The same record is in the metadata of every aggregate file, so the state can be rebuilt from those.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import msgspec

from lake import paths
from lake.decoding import Count, Moment, check_moments
from lake.state.lateness import Lateness
from schemas.errors import BadInputError, MeterlakeError
from schemas.meter import Meter, check_meter

# The key of a Parquet file's key-value metadata that has the record of its partition.
METADATA_KEY = "meterlake"
# The key that has the path of the file, so that a copy in another place is not taken for the file of that place.
PLACE_KEY = "meterlake-path"
# The version of the rules by which files and rows are read; 0 in records of programs that did not record it.
READING_RULES = 1
# The key of the sealed winners in `PartitionState.checksums`, beside the tables.
SEALED_WINNERS = "settled"
# The order in which a partition's tables are published; they are removed in the reverse order.
PUBLISH_ORDER = ("usage_by_dimension", "usage_by_subject", "usage")

# The version in the record of a partition whose aggregation was interrupted; no meter has it.
INTERRUPTED_VERSION = ""
# The rule in the record of a sealed partition whose tables have different rules of `quantity`; no meter has it.
INTERRUPTED_RULE = "interrupted"
UNKNOWN_TIME = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class RejectedFile(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """An event file that could not be read: its identity then, and the parts of the error."""

    identity: str
    kind: str = ""
    what: str
    where: str
    expected: str = ""
    found: str = ""
    hint: str = ""

    @classmethod
    def of(cls, identity: str, error: MeterlakeError) -> RejectedFile:
        """Return the record of a file of this identity."""
        return cls(identity=identity, **error.to_dict())

    def error(self) -> BadInputError:
        """Return the error, as it is reported again in each run."""
        return BadInputError(
            self.what, where=self.where, expected=self.expected, found=self.found, hint=self.hint
        )

    def error_parts(self) -> dict[str, str]:
        """Return the parts of the error that are not empty, as `MeterlakeError.to_dict` does."""
        parts = msgspec.structs.asdict(self)
        return {name: text for name, text in parts.items() if text and name != "identity"}


class PartitionState(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """The record of one partition as of its last aggregation: its inputs and its results.

    Not tracked by the garbage collector (`gc=False`): it can't be part of a cycle, and a large lake has very many.
    """

    meter_version: str
    # Identity of each file that was read, by its name in the partition's folder.
    files: dict[str, str]
    # Names of the files whose types are not the lake's own, which are converted while they are read.
    converted: list[str] = msgspec.field(default_factory=list)
    # Files that could not be read, by name; they are not counted.
    rejected: dict[str, RejectedFile] = msgspec.field(default_factory=dict)
    # The reading rules of the program that made the record.
    rules: Count = 0
    # The inputs as sixteen hex digits: files, meter version and reading rules.
    fingerprint: str
    # Fingerprint, as sixteen hex digits, of the rows that lost to a duplicate here or in another partition.
    losers: str
    # Winning events, duplicates that lost, those of them with another payload, and rows that broke a rule.
    events: Count
    duplicates: Count = 0
    conflicts: Count = 0
    invalid: dict[str, Count] = msgspec.field(default_factory=dict)
    late: Lateness | None = None
    # Checksums of the rows in each table and, once sealed, of the sealed winners; absent where none were written.
    checksums: dict[str, str] = msgspec.field(default_factory=dict)
    aggregated_at: Moment
    # The rule by which `quantity` was computed, see `Meter.quantity_rule`; unset where it is empty.
    quantity_rule: str | msgspec.UnsetType = msgspec.UNSET
    # The earlier checksums of a sealed partition whose `quantity` was computed again by another rule.
    earlier_checksums: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    # How many subjects have several levels, for a gauge with dimensions and no `series`; see lake.aggregates.ambiguity.
    ambiguous_subjects: Count | msgspec.UnsetType = msgspec.UNSET
    # Set when retention decides to drop the raw events; the aggregates are final from then on.
    sealed_at: Moment | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for moments that no run has written, and for files in another folder."""
        check_moments(self.aggregated_at, self.sealed_at)
        paths.check_stored_names(self.files)
        if self.rejected:
            paths.check_stored_names(self.rejected)


class KnownMeter(msgspec.Struct, frozen=True):
    """The definition that was read last, and the identity of its file then."""

    identity: str
    meter: Meter

    def __post_init__(self) -> None:
        """Raise ValueError for a definition that breaks a rule."""
        try:
            check_meter(self.meter, "")
        except BadInputError as error:
            raise ValueError(str(error)) from error


class ExportedMonth(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the last nightly export of a month, and its inputs: while they are the same, nothing needs to be done.

    `pending` is how many rows of a closed month differ because its definition or the program changed; nights don't
    adjust these.
    """

    fingerprint: str
    action: str
    revision: int
    closed: bool
    # The fingerprint of the export's files. While it is the same, the last revision was made from `manifest_inputs` by
    # `meter_version`; rows of a closed month that differ though its events are the same differ by the rules.
    files: str = ""
    manifest_inputs: str = ""
    meter_version: str = ""
    carry_days: int = 0
    event_rows: str = ""
    event_files: str = ""
    pending: int = 0


class MeterState(msgspec.Struct, kw_only=True):
    """The records of a meter's partitions by date."""

    partitions: dict[dt.date, PartitionState] = msgspec.field(default_factory=dict)
    # Saves reading the definition while its file is listed with this identity.
    definition: KnownMeter | None = None
    # By month like `2026-06`, for forms other than the usual one followed by their folders: `2026-06/by=plan/csv=safe`.
    exported: dict[str, ExportedMonth] = msgspec.field(default_factory=dict)
    # The reading rules of the last program that checked open partitions for rows that earlier rules had counted.
    rules: Count = 0
    # The sha256 of this file with this field empty.
    checksum: str = ""

    @property
    def sealed(self) -> set[dt.date]:
        """Dates whose aggregates are final."""
        return {date for date, partition in self.partitions.items() if partition.sealed_at}


def interrupted_record(record: PartitionState | None, names: Iterable[str]) -> PartitionState:
    """Return the record of a partition while its tables are published, which is stale whatever files exist.

    Its files are those of the last record, whose keys may be needed; without a record, those with these `names`.
    """
    return (
        msgspec.structs.replace(record, meter_version=INTERRUPTED_VERSION)
        if record
        else unfinished_record(names)
    )


def is_same_record(one: PartitionState | None, other: PartitionState) -> bool:
    """Return whether two records are the same, apart from counts that are added later in the state alone."""
    return one is not None and _without_counts(one) == _without_counts(other)


def is_sealed_alike(one: PartitionState, other: PartitionState) -> bool:
    """Return whether two records are of one sealed partition, before or after its `quantity` was computed again."""
    return one.sealed_at is not None and _without_quantity(one) == _without_quantity(other)


def unfinished_record(names: Iterable[str]) -> PartitionState:
    """Return a record without meter version and file identities, which is stale whatever files exist."""
    return PartitionState(
        meter_version=INTERRUPTED_VERSION,
        files=dict.fromkeys(sorted(names), ""),
        fingerprint="",
        losers="",
        events=0,
        aggregated_at=UNKNOWN_TIME,
    )


def before_sealing(record: PartitionState) -> PartitionState:
    """Return the record as it was before its partition was sealed, without times."""
    checksums = {table: checksum for table, checksum in record.checksums.items() if table != SEALED_WINNERS}
    return msgspec.structs.replace(record, aggregated_at=UNKNOWN_TIME, sealed_at=None, checksums=checksums)


def _without_quantity(record: PartitionState) -> PartitionState:
    """Return the record without the parts that depend on the rule of `quantity`."""
    winners = {name: checksum for name, checksum in record.checksums.items() if name == SEALED_WINNERS}
    return msgspec.structs.replace(
        _without_counts(record),
        checksums=winners,
        quantity_rule=msgspec.UNSET,
        earlier_checksums=msgspec.UNSET,
    )


def _without_counts(record: PartitionState) -> PartitionState:
    return msgspec.structs.replace(record, ambiguous_subjects=msgspec.UNSET)
