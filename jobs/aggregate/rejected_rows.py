"""Put rows of producers' files that break a rule into quarantine, once for each file."""

from __future__ import annotations

from jobs.run_report import RunReport, now
from lake.events.listing import is_compacted, read_compacted
from lake.events.partition import Partition
from lake.events.quarantine import quarantine_rows, requarantine_rows
from lake.state.changes import file_name
from lake.state.records import PartitionState


def quarantine_again(partition: Partition, before: PartitionState, report: RunReport) -> None:
    """Replace quarantined rows that broke an earlier version's rules by those that break today's."""
    for file in partition.files:
        earlier = dict(read_compacted(partition.storage, file).replaces) if is_compacted(file) else {}
        name = file_name(file)
        # In a copied lake, the same file has another identity.
        if before.files.get(name, "").startswith(f"{file.size_bytes}-"):
            earlier[name] = before.files[name]
        only = partition.with_files([file])
        report.quarantine(requarantine_rows(only, file, only.invalid(), earlier, now()))


def quarantine_invalid(partition: Partition, report: RunReport) -> dict[str, int]:
    """Put rows that break a rule into quarantine, once for each file; return the partition's counts by reason.

    Rows of a compacted file are in quarantine already: only aggregated files are compacted.
    """
    for file in partition.files:
        if is_compacted(file):
            continue
        only = partition.with_files([file])
        report.quarantine(quarantine_rows(only, file, only.invalid(), now()))
    counts = partition.invalid().group_by("reason").len().sort("reason").collect(engine="streaming")
    return dict(counts.iter_rows())
