"""What reading loads: nothing that only publishing needs, since each takes longer to load than an answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import app
from support import DAY, a_lake, event, put

ROOT = Path(__file__).parents[1]
HEAVY = {"pandera", "pyarrow", "fsspec", "s3fs", "aiobotocore", "botocore", "numpy", "pandas", "jinja2"}
# The first one publishes, and the next has nothing to do.
NIGHT = ("nightly", "--as-of", "2026-06-20")


@pytest.fixture(scope="module")
def lake(scratch_of_session: Path) -> str:
    lake, meter = a_lake(scratch_of_session / "lake")
    put(lake, meter, "a.parquet", event("k"))
    assert app.run(["--lake", lake.url, *NIGHT]) == 0
    return lake.url


def loaded(code: str) -> set[str]:
    """The packages that are loaded once this code has run in a process of its own."""
    shown = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stderr.splitlines()[-1].split())


def test_import_lake_loads_little_beside_polars() -> None:
    assert not loaded("import lake") & (HEAVY | {"rich", "typer", "pydantic", "asyncio", "jobs"})


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "status",
        "meter list",
        f"query --meter active_users --from {DAY} --to 2026-06-20",
        f"query --meter active_users --from {DAY} --to 2026-06-20 --bucket hour",
        " ".join(NIGHT),
    ],
)
def test_commands_that_publish_no_rows_load_nothing_that_only_publishing_needs(
    lake: str, command: str
) -> None:
    arguments = ["--lake", lake, *command.split()]
    code = f"from jobs.cli.app import run\nif run({arguments!r}): sys.exit('it failed')"
    found = loaded(code)
    assert not found & HEAVY
    assert ("polars" in found) is (command != "--help")
