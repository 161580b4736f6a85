"""Run a job on a lake with everything around it: the lease, the run report, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Callable

from jobs.run_report import RunReport, reported
from lake import Lake
from lake.storage.leased_storage import leased

Work = Callable[[Lake, RunReport], None]


def run_job(  # noqa: PLR0913 - a job, and how it takes the lease
    lake: Lake,
    job: str,
    work: Work,
    *,
    dry_run: bool = False,
    lease: bool = True,
    wait: bool = False,
    take_lease: bool = False,
    on_start: Callable[[RunReport], None] | None = None,
) -> RunReport:
    """Run `work`, and return its report, which is stored in `runs/`; a dry run takes no lease and stores nothing.

    With `wait`, waits while another job holds the lease; with `take_lease`, takes over a lease that is unreadable, or
    that ends later than a lease can. `on_start` gets the report before the lease is taken. Raises RefusedError if
    another job holds the lease, and whatever `work` raises, after the report was stored.
    """
    with reported(lake, job, dry_run=dry_run) as report:
        if on_start:
            on_start(report)
        if dry_run or not lease:
            work(lake, report)
        else:
            with leased(lake.storage, job, wait=wait, take=take_lease) as storage:
                work(lake.over(storage), report)
    return report
