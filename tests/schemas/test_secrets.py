"""Secrets are struck out of whatever a person, a report or a log gets to read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jobs.aggregate import job
from jobs.cli.app import run
from lake import Lake
from schemas.errors import MeterlakeError
from schemas.redaction import redacted

SECRET = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105 - no real one


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("METERLAKE_TOKENS_SEEN", "true")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:pass@bucket/x failed", "s3://***@bucket/x failed"),
        ("https://h/x?X-Amz-Signature=abc&n=1", "https://h/x?X-Amz-Signature=***&n=1"),
        ("https://h/x?sig=abc", "https://h/x?sig=***"),
        (f"said {SECRET}.", "said ***."),
        ("an e-mail a@b.c and s3://bucket/a@b, true", "an e-mail a@b.c and s3://bucket/a@b, true"),
    ],
)
def test_what_is_struck_out(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_no_part_of_an_error_holds_a_secret() -> None:
    error = MeterlakeError(SECRET, where=f"s3://k:{SECRET}@b", expected=SECRET, found=SECRET, hint=SECRET)
    assert SECRET not in str(error) + str(error.to_dict())


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("command", [["land"], ["meter", "add"]])
def test_credentials_in_the_url_of_an_input_are_not_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str], more: list[str]
) -> None:
    Lake.init(str(tmp_path / "lake"))
    url = "s3://AKIDEXAMPLE:hunter2hunter2@bucket/x.jsonl"
    assert run(["--lake", str(tmp_path / "lake"), "--debug", *command, url, *more]) == 1
    told = "".join(capfd.readouterr())
    kept = "".join(file.read_text() for file in (tmp_path / "lake" / "runs").glob("*"))
    assert "hunter2" not in told + kept
    assert "s3://***@bucket/x.jsonl" in told


def test_a_failure_that_nobody_has_foreseen_tells_no_secret_either(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        logging.getLogger("meterlake").info("trying with %s", SECRET)
        raise RuntimeError(f"denied for {SECRET}")

    monkeypatch.setattr(job, "aggregate", failing)
    Lake.init(str(tmp_path / "lake"))
    assert run(["--lake", str(tmp_path / "lake"), "--debug", "aggregate", "--json"]) == 3
    told = "".join(capfd.readouterr())
    kept = "".join(file.read_text() for file in (tmp_path / "lake" / "runs").glob("*"))
    assert "denied for ***" in told
    assert "denied for ***" in kept
    assert "trying with ***" in told
    assert SECRET not in told + kept
