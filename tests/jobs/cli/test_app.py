"""The command line as a program: help, wrong usage, the lake it works on, and how its process ends."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from commands import Ran, Run, definition, job, process
from lake import Lake
from support import ROOT

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
