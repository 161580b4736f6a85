"""The command line in a folder of its own, for tests of what people see of it."""

import json
from pathlib import Path

import pytest

from commands import Ran, Run
from jobs.cli import app


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
