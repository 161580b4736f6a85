"""The command line on a lake on S3, and that it tells no secret."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moto.s3.models import s3_backends

from documents.pages import ROOT, blocks, of_help
from jobs.cli.app import run
from lake import Lake, paths
from storage.lakes import ACCOUNT, parquet
from storage.server import KEY, SECRET, Server, error
from support import DAY, METER, event


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "meter.json").write_text(json.dumps(METER))
    (tmp_path / "events.jsonl").write_text(
        json.dumps(
            {"idempotency_key": "a", "subject": "org_1", "meter": METER["name"], "quantity": 2}
            | {"timestamp": "2026-06-19T12:00:00Z", "received_at": "2026-06-19T12:00:00Z"}
        )
    )
    return tmp_path


def test_a_day_on_s3_from_init_to_status(
    bucket: str,
    files: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # All that is known of the server and the account is on the command line.
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    given = {"endpoint_url": server.url, "region": "us-east-1"}
    given |= {"access_key_id": KEY, "secret_access_key": SECRET}
    options = [part for name, text in given.items() for part in ("--storage-option", f"{name}={text}")]

    def meterlake(*arguments: str) -> tuple[int, Any]:
        code = run(["--lake", f"{bucket}/usage", *options, *arguments, "--json"])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        assert SECRET not in out + err
        return code, json.loads(out)

    assert meterlake("init")[0] == 0
    assert meterlake("meter", "add", str(files / "meter.json"))[0] == 0
    code, landed = meterlake("land", str(files / "events.jsonl"))
    assert (code, landed["events_landed"]) == (0, 1)
    code, night = meterlake("nightly", "--as-of", "2026-06-20")
    assert (code, night["rows_written"]) == (0, 3)
    assert night["report_file"].startswith(f"{bucket}/usage/runs/")
    code, status = meterlake("status")
    assert (code, status["meters"][0]["events"], status["lake"]) == (0, 1, f"{bucket}/usage")
    found = Lake(f"{bucket}/usage", given).usage(METER["name"]).collect()
    assert found.select("date", "subject").rows() == [(DAY, "org_1")]


def test_no_secret_is_told_by_a_server_that_repeats_it(
    bucket: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.init(bucket)
    said = f"{KEY} signed with {SECRET}<AWSAccessKeyId>{KEY}</AWSAccessKeyId>"
    refusal = error("403 Forbidden", "SignatureDoesNotMatch", said)
    with server.spoiling(lambda request: refusal if request.method == "PUT" else None):
        assert run(["--lake", lake.url, "nightly", "--json"]) == 3
    out, err = capsys.readouterr()
    assert "SignatureDoesNotMatch" in out
    assert KEY not in out + err
    assert SECRET not in out + err


@pytest.mark.parametrize("native", [False, True])
def test_no_secret_is_told_by_a_failure_to_read(
    bucket: str,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    native: bool,
) -> None:
    from lake.storage import download_cache
    from storage.lakes import defined

    monkeypatch.setattr(download_cache, "SMALL_BYTES", 0 if native else 2**20)
    lake = Lake.init(bucket)
    meter = defined(lake)
    lake.storage.publish(paths.events(meter.name, DAY) + "a.parquet", parquet(meter, event("a")))
    refusal = error("403 Forbidden", "InvalidAccessKeyId", f"no {KEY}<AWSAccessKeyId>{KEY}</AWSAccessKeyId>")
    with server.spoiling(lambda request: refusal if "/events/" in request.path else None):
        run(["--lake", lake.url, "--debug", "nightly", "--json"])
    out, err = capsys.readouterr()
    assert "InvalidAccessKeyId" in out
    assert KEY not in out + err
    reports = [lake.storage.read(file.path) or b"" for file in lake.storage.list(paths.RUNS)]
    assert [KEY.encode() in report for report in reports] == [False]


@pytest.mark.parametrize("said", ["no-equals-sign", "=value", SECRET])
def test_an_option_that_is_no_pair_is_wrong_usage(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--storage-option", said, "status"]) == 2
    assert SECRET not in capsys.readouterr().err


def test_what_the_readme_and_the_help_show_of_s3(
    s3_environment: Server, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_backends[ACCOUNT]["aws"].create_bucket("our-bucket", "us-east-1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    config = files / "aws-config"
    config.write_text(f"[profile metering]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    (files / "meter.json").rename(files / "active_users.json")
    program = files / "meterlake"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jobs.cli "$@"\n')
    program.chmod(0o755)
    page = next(block.text for block in blocks(ROOT / "docs" / "s3.md") if block.language == "sh")
    (shown,) = (line for line in of_help() if "s3://our-bucket/usage" in line)
    environment = {
        **os.environ,
        "PATH": f"{files}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AWS_CONFIG_FILE": str(config),
        "AWS_ENDPOINT_URL": s3_environment.url,
    }
    # Not the page's own region, since the bucket is in another.
    script = f"set -e\n{page}{shown}".replace("AWS_REGION=eu-central-1", "AWS_REGION=us-east-1")
    ran = subprocess.run(
        ["bash", "-c", script], cwd=files, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("nightly: done; ") == 2
    assert "wrote exports" not in ran.stdout.partition("nightly: done; ")[2]
