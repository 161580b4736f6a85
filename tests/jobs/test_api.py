"""Jobs from Python: each function does what the command of its name does, with its lease and its report."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.api import aggregate, export, land, nightly, retain
from jobs.run_report import RunReport, decode_report
from lake import Lake, paths
from lake.storage.leased_storage import leased
from schemas.errors import BadInputError, MeterlakeError, RefusedError
from support import a_lake, event, put

DAY = dt.date(2026, 6, 19)
CALLS: dict[str, Callable[[Any], RunReport]] = {
    "aggregate": aggregate,
    "export": lambda lake: export(lake, "2026-06"),
    "retain": lambda lake: retain(lake, as_of=DAY),
    "nightly": lambda lake: nightly(lake, as_of=DAY),
}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"), event("b"))
    return lake


def stored_reports(lake: Lake) -> list[RunReport]:
    return [
        decode_report(lake.storage.read(file.path) or b"", file.path)
        for file in lake.storage.list(paths.RUNS)
    ]


def test_jobs_return_the_report_that_they_store(lake: Lake, tmp_path: Path) -> None:
    line = {
        "idempotency_key": "c",
        "subject": "org_1",
        "meter": "active_users",
        "quantity": 1,
        "timestamp": f"{DAY}T12:00:00Z",
        "plan": "pro",
    }
    file = tmp_path / "usage.jsonl"
    file.write_text(json.dumps(line) + "\n{}\n")
    landed = land(lake.url, [file])
    assert (landed.exit_code, landed.events_landed, landed.quarantined) == (1, 1, {"meter_missing": 1})
    computed = aggregate(Path(lake.url))
    assert [each.date for each in computed.partitions] == [DAY]
    billed = export(lake, "2026-06", group_by=["plan"])
    assert [(each.form, each.revision) for each in billed.exports] == [("2026-06/by=plan", 1)]
    night = nightly(lake, as_of=DAY)
    assert night.exit_code == 0
    dropped = retain(lake, as_of=DAY)
    assert [each.job for each in stored_reports(lake)] == ["land", "aggregate", "export", "nightly", "retain"]
    assert stored_reports(lake) == [landed, computed, billed, night, dropped]


def test_a_dry_run_stores_no_report_and_drops_nothing(lake: Lake) -> None:
    aggregate(lake)
    plan = retain(lake, as_of=dt.datetime.now(dt.UTC).date(), dry_run=True)
    assert [(each.action, each.date) for each in plan.partitions] == [("dropped", DAY)]
    assert [each.job for each in stored_reports(lake)] == ["aggregate"]
    assert lake.storage.list(paths.events("active_users", DAY))


@pytest.mark.parametrize("job", CALLS)
def test_a_job_that_finds_the_lease_taken_says_so_in_error_and_report(lake: Lake, job: str) -> None:
    with leased(lake.storage, "compact"), pytest.raises(RefusedError, match="another job") as raised:
        CALLS[job](lake)
    (report,) = stored_reports(lake)
    assert (report.job, report.exit_code) == (job, raised.value.exit_code)
    assert report.errors == [raised.value.to_dict()]


def test_landing_needs_no_lease(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("subject,meter,quantity,plan\norg_1,active_users,1,pro\n")
    with leased(lake.storage, "compact"):
        assert land(lake, [tmp_path / "a.csv"], file_format="csv").events_landed == 1


def test_wrong_arguments_are_errors_of_the_run(lake: Lake) -> None:
    with pytest.raises(BadInputError, match="not a period"):
        export(lake, "June")
    with pytest.raises(MeterlakeError, match="no meter 'nope' in this lake"):
        aggregate(lake, meter="nope")
    assert [report.exit_code for report in stored_reports(lake)] == [1, 1]


def test_a_folder_without_a_lake_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MeterlakeError, match="no lake here"):
        nightly(tmp_path)
