"""The whole night: its steps, and that one that fails loses no other work."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from exporting import run
from jobs import nightly as nightly_job
from jobs.export import revision as revision_module
from jobs.export.month import MonthExport
from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from schemas.errors import BadInputError, StorageError
from schemas.meter import Meter
from support import a_lake, aggregated, define, event, put


def night(lake: Lake, as_of: dt.date) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=as_of)
    return report


def two_meters(tmp_path: Path) -> tuple[Lake, list[Meter]]:
    lake, meter = a_lake(tmp_path)
    meters = [meter, define(lake, name="zeta")]
    for each in meters:
        put(lake, each, "old.parquet", event("x"))
        put(lake, each, "new.parquet", event("y", day=dt.date(2026, 7, 18)), day=dt.date(2026, 7, 18))
    return lake, meters


def test_a_night_aggregates_exports_two_months_and_retains(tmp_path: Path) -> None:
    lake, meters = two_meters(tmp_path)
    report = night(lake, dt.date(2026, 7, 20))
    assert report.exit_code == 0
    assert [(done.meter, done.period, done.revision) for done in report.exports] == [
        (meter.name, period, 1) for meter in meters for period in ("2026-06", "2026-07")
    ]
    actions = [(each.meter, each.action) for each in report.partitions]
    assert actions.count(("zeta", "aggregated")) == 2
    assert actions.count(("zeta", "dropped")) == 1
    # Sealed dates are billed too: nothing changed, so nothing is exported.
    assert {done.action for done in night(lake, dt.date(2026, 7, 21)).exports} == {"unchanged"}


@pytest.mark.parametrize("step", ["aggregate", "export_month", "retain"])
@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(ZeroDivisionError("oops"), 3), (BadInputError("oops"), 1), (StorageError("oops"), 3)],
)
def test_a_failing_step_loses_no_other_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, exit_code: int
) -> None:
    lake, _ = two_meters(tmp_path)
    working = getattr(nightly_job, step)

    def broken(what: Lake | MonthExport, *arguments: Any, **options: Any) -> Any:
        if (what.meter.name if isinstance(what, MonthExport) else options["meter"]) == "active_users":
            raise error
        return working(what, *arguments, **options)

    monkeypatch.setattr(nightly_job, step, broken)
    report = night(lake, dt.date(2026, 7, 20))
    assert report.exit_code >= exit_code
    assert "oops" in report.errors[0]["what"]
    done = {(each.meter, each.action) for each in report.partitions}
    exports = [(each.meter, each.revision) for each in report.exports]
    assert done >= {("zeta", "aggregated"), ("zeta", "dropped")}
    assert (("active_users", "aggregated") in done) == (step != "aggregate")
    assert (("active_users", "dropped") in done) == (step == "export_month")
    assert exports.count(("zeta", 1)) == 2
    assert exports.count(("active_users", 1)) == (2 if step == "retain" else 0)


def test_a_night_ends_when_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, _ = two_meters(tmp_path)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nightly_job, "export_month", stop)
    with pytest.raises(KeyboardInterrupt):
        night(lake, dt.date(2026, 7, 20))


def test_an_export_that_fails_keeps_no_scratch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)

    def full(*_: Any) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(revision_module, "publish_revision", full)
    assert run(lake).exit_code == 3
    assert not list((tmp_path / paths.TEMPORARY).glob("*"))
