"""Storages to test on: a local folder, memory, and an S3 server on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from storage.lakes import ACCOUNT
from storage.server import KEY, SECRET, Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def s3_environment(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The environment as a user of the server sets it, and of no other account."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    return server


@pytest.fixture
def bucket(s3_environment: Server) -> str:  # noqa: ARG001 - a bucket is of use with it only
    """A new bucket, by its URL."""
    name = f"b{uuid.uuid4().hex[:16]}"
    s3_backends[ACCOUNT]["aws"].create_bucket(name, "us-east-1")
    return f"s3://{name}"


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a lake may be made."""
    if request.param == "local":
        return str(tmp_path / "lake")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/lake"
    return f"{request.getfixturevalue('bucket')}/some/lake"
