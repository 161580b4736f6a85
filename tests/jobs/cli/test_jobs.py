"""Jobs on the command line: their reports, and every way to fail."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from commands import Ran, Run, job
from jobs import retain as retain_job
from jobs.aggregate import job as aggregate_job
from jobs.cli import app
from jobs.run_report import PartitionReport, RunReport
from lake import Lake
from schemas.errors import BadInputError, RefusedError, StorageError


@pytest.mark.parametrize(
    "command",
    [["aggregate"], ["aggregate", "--rebuild"], ["export", "--period", "2026-06"], ["retain"], ["nightly"]],
    ids=" ".join,
)
def test_a_job_with_nothing_to_do(meterlake: Run, lake: Path, command: list[str]) -> None:
    ran = meterlake(*command)
    assert ran.code == 0
    *_, first, last = ran.out.splitlines()
    assert first.startswith(f"{command[0]}: nothing to do; ")
    report = Path(last.removeprefix("report: "))
    assert json.loads(report.read_text())["job"] == command[0]
    document = meterlake(*command, "--json").document
    assert document["exit_code"] == 0
    assert Path(document["report_file"]).is_relative_to(lake / "runs")


def test_a_dry_run_leaves_no_report(meterlake: Run, lake: Path) -> None:
    ran = meterlake("retain", "--dry-run", "--as-of", "2026-06-19")
    assert ran.code == 0
    assert "retain: dry run, nothing touched; nothing to do" in ran.out
    assert "report:" not in ran.out
    assert meterlake("retain", "--dry-run", "--json").document["report_file"] is None
    assert not (lake / "runs").exists()


@pytest.mark.usefixtures("lake")
def test_options_reach_the_job(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(aggregate_job, "aggregate", lambda *_, meter, rebuild: seen.append((meter, rebuild)))
    assert meterlake("aggregate").code == 0
    assert meterlake("aggregate", "--meter", "seats", "--rebuild").code == 0
    assert seen == [(None, False), ("seats", True)]


@pytest.mark.usefixtures("lake")
def test_a_dry_run_says_what_would_be(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def does(_lake: Lake, report: RunReport, **_: object) -> None:
        report.add_partition(
            PartitionReport(meter="m", date=dt.date(2026, 6, 19), action="dropped", reason="expired")
        )

    monkeypatch.setattr(retain_job, "retain", does)
    lines = meterlake("retain", "--dry-run").out.splitlines()
    assert lines[:2] == [
        "would drop  dates  events     size  from        to          why",
        "m               1       0  0 bytes  2026-06-19  2026-06-19  expired",
    ]
    assert "; 1 partition would be dropped; " in " ".join(lines)


@pytest.mark.usefixtures("lake")
def test_an_unknown_meter_of_a_job(meterlake: Run) -> None:
    ran = meterlake("aggregate", "--meter", "nope")
    assert (ran.code, ran.out) == (1, "")
    error, hint, report = ran.err.splitlines()
    assert error.startswith("error: no meter 'nope' in this lake")
    assert hint.startswith("hint: ")
    assert json.loads(Path(report.removeprefix("report: ")).read_text())["errors"][0]["kind"] == "bad input"
    document = meterlake("aggregate", "--meter", "nope", "--json").document
    assert document["error"]["what"] == "no meter 'nope' in this lake"
    assert Path(document["report_file"]).exists()


@pytest.mark.usefixtures("lake")
def test_what_people_see_of_a_run(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def does(_: Lake, report: RunReport) -> None:
        why: dict[str, Any] = {
            "action": "aggregated",
            "reason": "files added",
            "duplicates": 2,
            "conflicts": 1,
        }
        report.add_partition(PartitionReport(meter="seats", date=dt.date(2026, 6, 19), events=1234567, **why))
        report.add_partition(
            PartitionReport(meter="users", date=dt.date(2026, 6, 20), action="dropped", reason="expired")
        )
        report.events_read, report.rows_written, report.bytes_written = 1234569, 1, 2_500_000
        report.quarantine({"subject_missing": 1, "quantity_invalid": 3})
        for name in "ab":
            report.add_error(BadInputError("unreadable file", where=f"{name}.parquet", hint="replace it"))
        report.add_error(RefusedError("not dropped", where="c"))

    job(monkeypatch, does)
    ran = meterlake("aggregate")
    assert ran.code == 1
    *lines, totals, more, duplicates, quarantined, wrote, report = ran.out.splitlines()
    assert lines == [
        "aggregated  date           events  why",
        "seats       2026-06-19  1,234,567  files added",
        "",
        "dropped  dates  events     size  from        to          why",
        "users        1       0  0 bytes  2026-06-20  2026-06-20  expired",
        "",
    ]
    assert totals == "aggregate: done; 1 partition aggregated, 1 partition dropped, 1,234,569 events"
    assert more.startswith("  read; 3 warnings; 0.")
    assert duplicates == "2 duplicates, 1 with a different payload"
    assert quarantined == "quarantined 4 rows: 3 quantity_invalid, 1 subject_missing"
    assert wrote == "wrote 1 row, 2.5 MB"
    assert report.startswith("report: ")
    # A hint that several errors share is said once.
    assert ran.err.splitlines() == [
        "error: a.parquet: unreadable file",
        "error: b.parquet: unreadable file",
        "hint: replace it",
        "error: c: not dropped",
    ]


@pytest.mark.usefixtures("lake")
def test_long_lists_are_cut_for_people_and_whole_as_json(
    meterlake: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def does(_: Lake, report: RunReport) -> None:
        for number in range(1, 31):
            report.add_partition(
                PartitionReport(meter="m", date=dt.date(2026, 6, number), action="aggregated", reason="new")
            )
            report.add_error(BadInputError("bad", where=f"{number}"))

    job(monkeypatch, does)
    ran = meterlake("aggregate")
    assert ran.out.splitlines()[:2] == [
        "aggregated  dates  events     size  from        to          why",
        "m              30       0  0 bytes  2026-06-01  2026-06-30  new",
    ]
    assert ran.err.count("error: ") == 21
    assert ran.err.endswith("error: … and 10 more errors; --json has all\n")
    document = meterlake("aggregate", "--json").document
    assert len(document["partitions"]) == len(document["errors"]) == 30


def raises(error: BaseException) -> Callable[[Lake, RunReport], NoReturn]:
    def does(_lake: Lake, _report: RunReport) -> NoReturn:
        raise error

    return does


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInputError("x"), 1),
        (RefusedError("x"), 1),
        (StorageError("x"), 3),
        (ValueError("a\nb"), 3),
        (KeyError(), 3),
        (MemoryError(), 3),
        (BaseException("a panic"), 3),
    ],
    ids=repr,
)
def test_a_failing_job(
    meterlake: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    job(monkeypatch, raises(error))
    ran = meterlake("aggregate")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    kept = json.loads(Path(ran.err.splitlines()[-1].removeprefix("report: ")).read_text())
    assert kept["exit_code"] == code
    assert len(kept["errors"]) == 1
    assert meterlake("aggregate", "--json").document["error"]["what"]


@pytest.mark.usefixtures("lake")
def test_an_unexpected_failure_is_one_line(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    job(monkeypatch, raises(ValueError("first\n  second")))
    error, hint, _ = meterlake("aggregate").err.splitlines()
    assert error == "error: unexpected ValueError: first second"
    assert hint.startswith("hint: run again with --debug")


@pytest.mark.usefixtures("lake")
def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(monkeypatch, raises(ValueError("x")))
    assert app.run(["--debug", "aggregate"]) == 3
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "error: unexpected ValueError: x\n" in err
    assert "run again with --debug" not in err


def test_an_interrupt_is_quiet(meterlake: Run, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(monkeypatch, raises(KeyboardInterrupt()))
    assert meterlake("aggregate") == Ran(130, "", "")
    (report,) = (lake / "runs").iterdir()
    assert "KeyboardInterrupt" in report.read_text()


@pytest.mark.usefixtures("lake")
def test_control_characters_do_not_reach_the_terminal(meterlake: Run) -> None:
    ran = meterlake("meter", "show", "x\x1b[2J\nerror: fake")
    assert "\\x1b[2J" in ran.err
    assert "\nerror: fake" not in ran.err
