"""The command line: every command for people and as JSON, every exit code, and every way to fail."""

import datetime as dt
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from jobs import retain as retain_job
from jobs.aggregate import job as aggregate_job
from jobs.cli import app
from jobs.run_report import PartitionReport, RunReport
from lake import Lake
from schemas.errors import BadInputError, RefusedError, StorageError
from support import ROOT

METER = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "dimensions": [{"name": "plan", "type": "string"}],
}
COMMANDS = [
    ["init"],
    ["meter", "add"],
    ["meter", "list"],
    ["meter", "show"],
    ["land"],
    ["aggregate"],
    ["retain"],
    ["export"],
    ["query"],
    ["values"],
    ["nightly"],
    ["status"],
    ["demo"],
]


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def meterlake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in an empty folder, and checks what is true of all of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METERLAKE_LAKE", raising=False)

    def run(*arguments: str) -> Ran:
        code = app.run(arguments)
        ran = Ran(code, *capsys.readouterr())
        assert "Traceback" not in ran.err
        assert "\x1b" not in ran.out + ran.err
        if "--json" in arguments:
            json.loads(ran.out)
        else:
            assert not [line for line in ran.out.splitlines() if line != line.rstrip()]
        return ran

    return run


@pytest.fixture
def lake(meterlake: Run, tmp_path: Path) -> Path:
    """An empty lake where the command line looks for it."""
    assert meterlake("init").code == 0
    return tmp_path / "meterlake-data"


def definition(tmp_path: Path, **fields: Any) -> str:
    path = tmp_path / f"{fields.get('name', 'seats')}.json"
    path.write_text(json.dumps(METER | fields))
    return path.name


def job(monkeypatch: pytest.MonkeyPatch, does: Callable[[Lake, RunReport], None]) -> None:
    """Put something else in the place of the aggregate job."""
    monkeypatch.setattr(aggregate_job, "aggregate", lambda lake, report, **_: does(lake, report))


def process(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, text=True, capture_output=True, check=False, env=environment, **more)


# Help and wrong usage


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(meterlake: Run, command: list[str]) -> None:
    ran = meterlake(*command, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert f"meterlake {' '.join(command)}" in ran.out
    assert "--json" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_help_lists_every_command(meterlake: Run) -> None:
    ran = meterlake("--help")
    assert ran.code == 0
    assert {command[0] for command in COMMANDS} <= set(ran.out.split())
    # Short enough that none is cut.
    assert "..." not in ran.out.replace("[ARGS]...", "")


def timed(code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run code in a process of its own; gives the seconds of a processor, which are more on a slow machine only."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ran, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_nightly_job_loads_pyarrow_only_for_new_files() -> None:
    timed("import sys, jobs.nightly; assert 'pyarrow' not in sys.modules")


def test_help_starts_fast_and_loads_nothing_heavy() -> None:
    code = "import sys; from jobs.cli.app import run; run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    ran, seconds = timed(code)
    # Beside what the least of a command line takes on this machine; about four times what is measured.
    assert seconds < 6 * timed("import typer")[1]
    heavy = {"polars", "pandera", "pyarrow", "fsspec", "s3fs", "botocore", "rich", "lake", "pandas", "numpy"}
    assert not heavy & set(eval(ran.stderr))  # noqa: S307


@pytest.mark.parametrize(
    ("given", "arenas"), [("dirty_decay_ms:700", max(1, (os.cpu_count() or 1) // 2)), ("narenas:7", 7)]
)
def test_the_allocator_has_few_arenas_unless_told_otherwise(tmp_path: Path, given: str, arenas: int) -> None:
    Lake.init(str(tmp_path))
    # As where a process that has loaded Polars starts another: there are options already.
    environment = os.environ | {"_RJEM_MALLOC_CONF": f"{given},stats_print:true"}
    command = [sys.executable, "-m", "jobs.cli", "--lake", str(tmp_path), "status"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert f"opt.narenas: {arenas}\n" in ran.stderr
    assert "narenas" in given or "opt.dirty_decay_ms: 700 " in ran.stderr


def test_the_version(meterlake: Run) -> None:
    ran = meterlake("--version")
    assert ran.code == 0
    assert ran.out.startswith("meterlake ")


@pytest.mark.parametrize("group", [[], ["meter"]])
def test_no_command_shows_the_help_on_stderr(meterlake: Run, group: list[str]) -> None:
    ran = meterlake(*group)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: meterlake")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lnd"], "No such command 'lnd'. Did you mean 'land'?"),
        (["meter", "remove"], "No such command 'remove'"),
        (["status", "--nope"], "No such option: --nope"),
        (["land"], "Missing argument 'FILE'"),
        (["meter", "add"], "Missing argument 'FILE'"),
        (["meter", "show"], "Missing argument 'NAME'"),
        (["meter", "list", "more"], "unexpected extra argument"),
        (["retain", "--as-of", "2026-13-01"], "expected a date like 2026-06-19, found '2026-13-01'"),
        (["retain", "--as-of", "20260619"], "expected a date like 2026-06-19"),
        (["nightly", "--as-of", "today"], "expected a date like 2026-06-19"),
        (["status", "--runs", "-1"], "--runs"),
        (["status", "--runs", "many"], "--runs"),
        (["--lake", "", "status"], "expected a folder or a URL, found empty text"),
        (["--lake"], "--lake"),
        (["land", "x", "--format", "xml"], "--format"),
    ],
)
def test_wrong_usage(meterlake: Run, arguments: list[str], said: str) -> None:
    ran = meterlake(*arguments)
    assert (ran.code, ran.out) == (2, "")
    error, hint = ran.err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: see: meterlake ")
    assert hint.endswith(" --help")
    as_json = meterlake(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.document["error"]["kind"] == "wrong usage"


@pytest.mark.parametrize("option", ["--lake", "--debug"])
def test_a_global_option_after_the_command_says_where_it_stands(meterlake: Run, option: str) -> None:
    ran = meterlake("status", option, "x")
    assert ran.code == 2
    assert "before the command: meterlake --lake URL COMMAND" in ran.err


def test_no_command_as_json(meterlake: Run) -> None:
    ran = meterlake("--json")
    assert ran.code == 2
    assert ran.document["error"]["what"] == "a command is missing"


# The lake


@pytest.mark.parametrize(
    "command",
    [
        ["meter", "add", "x"],
        ["meter", "list"],
        ["meter", "show", "x"],
        ["land", "x"],
        ["aggregate"],
        ["retain"],
        ["nightly"],
        ["status"],
    ],
    ids=" ".join,
)
def test_without_a_lake(meterlake: Run, tmp_path: Path, command: list[str]) -> None:
    ran = meterlake(*command)
    folder = tmp_path / "meterlake-data"
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == f"error: {folder}: no lake here\nhint: make one with: meterlake --lake {folder} init\n"
    error = meterlake(*command, "--json").document["error"]
    assert error == {
        "kind": "broken lake",
        "what": "no lake here",
        "where": str(folder),
        "hint": f"make one with: meterlake --lake {folder} init",
    }
    assert not folder.exists()


def test_init(meterlake: Run, tmp_path: Path) -> None:
    folder = tmp_path / "meterlake-data"
    assert meterlake("init") == Ran(0, f"made a lake: {folder}\n", "")
    assert meterlake("init") == Ran(0, f"there is a lake already: {folder}\n", "")
    assert meterlake("--lake", "other", "init", "--json").document == {
        "lake": str(tmp_path / "other"),
        "made": True,
    }
    assert meterlake("--lake", "other", "init", "--json").document["made"] is False


def test_the_lake_is_named_by_option_or_environment(
    meterlake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERLAKE_LAKE", "from-environment")
    assert meterlake("init", "--json").document["lake"] == str(tmp_path / "from-environment")
    assert meterlake("--lake", "named", "init", "--json").document["lake"] == str(tmp_path / "named")
    assert meterlake("status", "--json").document["lake"] == str(tmp_path / "from-environment")


def test_a_lake_of_another_program(meterlake: Run, lake: Path) -> None:
    (lake / "lake.json").write_text('{"meterlake": 99}')
    ran = meterlake("status")
    assert ran.code == 3
    assert "made by another program or version" in ran.err
    assert meterlake("init").code == 3


def test_a_url_of_another_kind(meterlake: Run) -> None:
    ran = meterlake("--lake", "gopher://x/y", "status")
    assert ran.code == 3
    assert "gopher://" in ran.err


# Meters


def test_meters_are_added_changed_and_left(meterlake: Run, lake: Path, tmp_path: Path) -> None:
    seats, users = definition(tmp_path, series=[]), definition(tmp_path, name="users", series=[])
    ran = meterlake("meter", "add", seats, users)
    assert ran == Ran(0, "added      seats  (seats.json)\nadded      users  (users.json)\n", "")
    definition(tmp_path, description="new", series=[])
    ran = meterlake("meter", "add", seats, users)
    assert ran == Ran(0, "changed    seats  (seats.json)\nunchanged  users  (users.json)\n", "")
    assert Lake(str(lake)).meter("seats").description == "new"


@pytest.mark.usefixtures("lake")
def test_a_bad_file_does_not_stop_the_others(meterlake: Run, tmp_path: Path) -> None:
    (tmp_path / "typo.json").write_text('{"name": "x", "untit": "y"}')
    (tmp_path / "folder").mkdir()
    files = ["typo.json", "missing.json", "folder", definition(tmp_path, series=[])]
    ran = meterlake("meter", "add", *files)
    assert (ran.code, ran.out) == (1, "added      seats  (seats.json)\n")
    unreadable = "could not read this file: expected a JSON file with one meter definition, found"
    assert ran.err.splitlines() == [
        "error: typo.json: not a meter definition: Object contains unknown field `untit`",
        "hint: known fields: name, unit, description, aggregation, event_retention_days, dimensions, series, carry_days, unique",
        f"error: missing.json: {unreadable} No such file or directory",
        f"error: folder: {unreadable} Is a directory",
    ]
    found = meterlake("meter", "add", *files, "--json")
    assert found.code == 1
    assert [each["outcome"] for each in found.document["meters"]] == ["refused"] * 3 + ["unchanged"]
    assert found.document["meters"][0]["error"]["where"] == "typo.json"


@pytest.mark.usefixtures("lake")
def test_a_definition_from_stdin(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(METER).encode())))
    assert meterlake("meter", "add", "-").out == "added      seats  (standard input)\n"


def test_a_change_that_data_forbids_is_refused(meterlake: Run, lake: Path, tmp_path: Path) -> None:
    meterlake("meter", "add", definition(tmp_path))
    landed = lake / "events" / "meter=seats" / "date=2026-06-19" / "a.parquet"
    landed.parent.mkdir(parents=True)
    landed.write_bytes(b"")
    ran = meterlake("meter", "add", definition(tmp_path, unit="chair"))
    assert (ran.code, ran.out) == (1, "")
    assert "its unit can't be changed: expected seat, found chair" in ran.err
    assert "hint: define a new meter" in ran.err


@pytest.mark.usefixtures("lake")
def test_listing_meters(meterlake: Run, tmp_path: Path) -> None:
    assert "no meters yet" in meterlake("meter", "list").out
    assert meterlake("meter", "list", "--json").document == {"meters": []}
    meterlake(
        "meter", "add", definition(tmp_path, name="[red]ä\x1b[31m"), definition(tmp_path, name="b" * 100)
    )
    ran = meterlake("meter", "list")
    # A name is shown as it is, but does not steer the terminal; a long one is folded, not cut.
    assert "[red]ä\\x1b[31m" in ran.out
    assert ran.out.count("b") >= 100
    assert max(map(len, ran.out.splitlines())) <= 80
    assert [each["name"] for each in meterlake("meter", "list", "--json").document["meters"]] == [
        "[red]ä\x1b[31m",
        "b" * 100,
    ]


@pytest.mark.usefixtures("lake")
def test_showing_a_meter(meterlake: Run, tmp_path: Path) -> None:
    dimensions = [
        {"name": "plan", "type": "string", "display_name": "Plan", "description": "What they pay for"},
        {"name": "region", "type": "string", "required": False},
        {"name": "old", "type": "number", "deprecated": True},
    ]
    meterlake("meter", "add", definition(tmp_path, description="Seats", dimensions=dimensions))
    assert meterlake("meter", "show", "seats").out == (
        "seats: last of seat, raw events kept for 90 days\n"
        "Seats\n"
        "dimension  type    value       description\n"
        "plan       string  required    Plan: What they pay for\n"
        "region     string  optional\n"
        "old        number  deprecated\n"
    )
    (tmp_path / "again.json").write_text(meterlake("meter", "show", "seats", "--json").out)
    assert meterlake("meter", "add", "again.json").out.startswith("unchanged")


@pytest.mark.usefixtures("lake")
def test_showing_a_meter_that_is_not_there(meterlake: Run, tmp_path: Path) -> None:
    meterlake("meter", "add", definition(tmp_path))
    ran = meterlake("meter", "show", "seat")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: no meter 'seat' in this lake: expected one of 'seats'\nhint: ")


# Jobs and their reports


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


# Failures


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


# As a process


def test_a_process_ends_with_the_exit_code(tmp_path: Path) -> None:
    assert process("init", cwd=tmp_path).returncode == 0
    assert process("meter", "show", "x", cwd=tmp_path).returncode == 1
    assert process("nope", cwd=tmp_path).returncode == 2
    assert process("--lake", "elsewhere", "status", cwd=tmp_path).returncode == 3


@pytest.mark.usefixtures("lake")
def test_logs_go_to_stderr_as_plain_lines(meterlake: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.cli.session import LOG

    job(monkeypatch, lambda *_: LOG.info("indexed %d", 7))
    ran = meterlake("aggregate", "--json")
    assert ran.err.endswith("Z indexed 7\n")
    assert len(ran.err.splitlines()) == 1


def test_a_reader_that_closed_the_pipe_is_no_failure(lake: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.cli", "--lake", str(lake), "status"]
    ran = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_answer_that_cannot_be_written_is_a_failure(lake: Path, more: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.cli", "--lake", str(lake), "status", *more]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert ran.returncode == 3
    assert ran.stderr.startswith("error: standard output: could not write the answer: found No space left")
    assert "Traceback" not in ran.stderr


def test_names_that_the_terminal_cannot_show(lake: Path, tmp_path: Path) -> None:
    file = definition(tmp_path, name="日本")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "jobs.cli", "--lake", str(lake), "meter", "add", str(tmp_path / file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0
    assert "\\u65e5\\u672c" in ran.stdout


# The demo's folder


def demo_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put something small in the place of the demo; gives the folders it was asked for."""
    made: list[str] = []

    class Stub:
        @staticmethod
        def demo(folder: str, console: Any, program: str) -> dict[str, str]:  # noqa: ARG004
            made.append(folder)
            console.print("the demo")
            return {"lake": Lake.init(folder).url}

    monkeypatch.setitem(sys.modules, "jobs.demo.job", Stub)
    return made


def test_the_demo_replaces_only_a_demo(
    meterlake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = demo_of(monkeypatch)
    assert meterlake("demo") == Ran(0, "the demo\n", "")
    (tmp_path / "demo-lake" / "old").write_text("")
    assert meterlake("demo").code == 0
    assert not (tmp_path / "demo-lake" / "old").exists()
    (tmp_path / "empty").mkdir()
    assert meterlake("demo", "empty").code == 0
    assert made == ["demo-lake", "demo-lake", "empty"]


def test_the_demo_leaves_other_folders_alone(
    meterlake: Run, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = demo_of(monkeypatch)
    before = sorted(lake.rglob("*"))
    for target in (str(lake), str(lake / "lake.json")):
        ran = meterlake("demo", target)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"error: {target}: this is not a demo's folder")
        assert meterlake("demo", target, "--json").document["error"]["kind"] == "refused"
    assert sorted(lake.rglob("*")) == before
    assert made == []


def test_a_demo_whose_reader_has_left_is_made_to_its_end(tmp_path: Path) -> None:
    code = """
import sys, types
from lake import Lake
def demo(folder, console, program):
    for number in range(20000):
        console.print(f"line {number}")
    return {"lake": Lake.init(folder).url}
sys.modules["jobs.demo.job"] = types.SimpleNamespace(demo=demo)
from jobs.cli.app import main
main()
"""
    command = f"'{sys.executable}' -c '{code}' demo | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "line 0\n", "")
    assert Lake(str(tmp_path / "demo-lake")).meters() == []


def test_the_demo_as_json(meterlake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo_of(monkeypatch)
    ran = meterlake("demo", "--json")
    assert ran.document == {"lake": str(tmp_path / "demo-lake")}
    assert ran.err == "the demo\n"
