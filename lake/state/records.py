"""What the lake has concluded about each partition of a meter: one small file a meter, which planning reads.

The same record is in the metadata of every aggregate file, so the state can be rebuilt from those.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import msgspec

from lake import paths
from lake.decoding import Count, Moment, check_moments
from lake.state.lateness import Lateness
from schemas.errors import BadInputError
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


def interrupted_record(record: PartitionState | None, names: Iterable[str]) -> PartitionState:
    """Return the record of a partition while its tables are published: out of date, whatever files there are.

    The files are those of its last record, whose keys may be wanted; without one, `names` are those that are read now.
    """
    return msgspec.structs.replace(record, meter_version=NO_VERSION) if record else unfinished_record(names)


def is_same_record(one: PartitionState | None, other: PartitionState) -> bool:
    """Return whether two records are the same but for what may have been counted later, in the state alone."""
    return one is not None and _uncounted(one) == _uncounted(other)


def is_sealed_alike(one: PartitionState, other: PartitionState) -> bool:
    """Return whether two records are of one sealed partition, before or after its `quantity` was computed anew."""
    return one.sealed_at is not None and _without_quantity(one) == _without_quantity(other)


def unfinished_record(names: Iterable[str]) -> PartitionState:
    """Return a record of no meter version and of no file as it is, which is out of date whatever there is."""
    return PartitionState(
        meter_version=NO_VERSION,
        files=dict.fromkeys(sorted(names), ""),
        fingerprint="",
        losers="",
        events=0,
        aggregated_at=NEVER,
    )


def before_sealing(record: PartitionState) -> PartitionState:
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
