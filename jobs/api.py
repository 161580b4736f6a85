"""Run jobs from Python: one function a job, which does what the command of that name does.

Each function opens the lake (a `Lake`, a folder or a URL), takes the lease if the command does, writes the run report
to `runs/`, and returns it: `exit_code` is that of the command, `errors` are what did not stop the run. An error that
stops the run is raised as MeterlakeError, after the report was written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import partial
from os import PathLike, fspath

from jobs.aggregate import job as aggregate_job
from jobs.export import job as export_job
from jobs.export.billing import parse_period
from jobs.export.month import Options
from jobs.land import job as land_job
from jobs.nightly import nightly as nightly_job
from jobs.retain import retain as retain_job
from jobs.run_job import run_job
from jobs.run_report import RunReport
from lake import Lake

__all__ = ["aggregate", "export", "land", "nightly", "retain"]

LakeOrUrl = Lake | str | PathLike[str]


def land(
    lake: LakeOrUrl, files: Sequence[str | PathLike[str]], *, file_format: str | None = None
) -> RunReport:
    """Land events from files of `file_format` (`json`, `jsonl`, `csv` or `parquet`; None: detect it); takes no lease.

    Landing the same input twice adds nothing. `events_landed` and `quarantined` count the rows, `inputs` has one entry
    for each file.
    """

    def work(lake: Lake, report: RunReport) -> None:
        land_job.land(lake, [fspath(file) for file in files], report, file_format)

    return run_job(_opened(lake), "land", work, lease=False)


def aggregate(
    lake: LakeOrUrl, *, meter: str | None = None, rebuild: bool = False, wait: bool = False
) -> RunReport:
    """Deduplicate, and bring the aggregate tables of one meter or all up to date.

    `partitions` has one entry for each computed partition. With `rebuild`, every open partition is computed again; with
    `wait`, the run waits while another job holds the lease, instead of raising RefusedError.
    """
    work = partial(aggregate_job.aggregate, meter=meter, rebuild=rebuild)
    return run_job(_opened(lake), "aggregate", work, wait=wait)


def export(  # noqa: PLR0913 - what to export, and how
    lake: LakeOrUrl,
    period: str,
    *,
    meter: str | None = None,
    group_by: Sequence[str] = (),
    columns: str = "default",
    csv_safe: bool = False,
    close: bool = False,
    wait: bool = False,
) -> RunReport:
    """Write a billing revision of a month (`2026-06`) for one meter or all, if anything changed.

    `exports` has one entry for each meter, with the folder and number of its newest revision. `group_by` are dimensions
    beside the subject, `columns` is `default`, `open-spanner` or `focus`. With `close`, the month becomes final.
    """
    options = Options(tuple(group_by), columns, csv_safe)

    def work(lake: Lake, report: RunReport) -> None:
        # Parsed within the run, so that a wrong period is in its report too.
        export_job.export(lake, report, parse_period(period), meter=meter, options=options, close=close)

    return run_job(_opened(lake), "export", work, wait=wait)


def retain(
    lake: LakeOrUrl,
    *,
    as_of: dt.date | None = None,
    dry_run: bool = False,
    trust_clock: bool = False,
    wait: bool = False,
) -> RunReport:
    """Seal and drop the raw events of partitions that have expired on `as_of` (default today, UTC).

    `partitions` has one entry for each dropped partition. With `dry_run` the report is the same, nothing is changed, and
    no report is stored.
    """
    work = partial(retain_job, as_of=as_of, dry_run=dry_run, trust_clock=trust_clock)
    return run_job(_opened(lake), "retain", work, dry_run=dry_run, wait=wait)


def nightly(
    lake: LakeOrUrl, *, as_of: dt.date | None = None, trust_clock: bool = False, wait: bool = False
) -> RunReport:
    """Aggregate, export this month, the last and every earlier one that changed, and retain."""
    work = partial(nightly_job, as_of=as_of, trust_clock=trust_clock)
    return run_job(_opened(lake), "nightly", work, wait=wait)


def _opened(lake: LakeOrUrl) -> Lake:
    return lake if isinstance(lake, Lake) else Lake(fspath(lake))
