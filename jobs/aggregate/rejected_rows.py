"""Rows of producers' files that break a rule: kept in quarantine, once a file."""

from __future__ import annotations

from jobs.run_report import RunReport, now
from lake.events.listing import is_compacted, read_compacted
from lake.events.partition import Partition
from lake.events.quarantine import quarantine_rows, requarantine_rows
from lake.state.changes import file_name
from lake.state.records import PartitionState


def quarantine_anew(partition: Partition, before: PartitionState, report: RunReport) -> None:
    """Keep the rows that break a rule today in the place of those that broke one of the earlier rules."""
    for file in partition.files:
        earlier = dict(read_compacted(partition.storage, file).replaces) if is_compacted(file) else {}
        name = file_name(file)
        # The same file may have another identity, since it was copied with the lake.
        if before.files.get(name, "").startswith(f"{file.size_bytes}-"):
            earlier[name] = before.files[name]
        only = partition.with_files([file])
        report.quarantine(requarantine_rows(only, file, only.invalid(), earlier, now()))


def quarantine_invalid(partition: Partition, report: RunReport) -> dict[str, int]:
    """Keep the rows that break a rule, once a file; gives all of the partition by reason.

    Those of a compacted file are kept already: only what has been aggregated is compacted.
    """
    for file in partition.files:
        if is_compacted(file):
            continue
        only = partition.with_files([file])
        report.quarantine(quarantine_rows(only, file, only.invalid(), now()))
    counts = partition.invalid().group_by("reason").len().sort("reason").collect(engine="streaming")
    return dict(counts.iter_rows())
