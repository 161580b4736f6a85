"""A server that ignores the condition of an exclusive create is found out before a lease is taken on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.cli.app import run
from lake import Lake, paths
from lake.storage import open_storage
from lake.storage.leased_storage import leased
from lake.storage.s3 import S3Storage
from schemas.errors import RefusedError
from storage.server import Server, kinds


@pytest.fixture
def lake(bucket: str) -> Lake:
    return Lake.init(f"{bucket}/lake")


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server takes the condition and carries the write out all the same, as some do."""

    def create(self: S3Storage, path: str, content: bytes) -> bool:
        self.publish(path, content)
        return True

    with monkeypatch.context() as patched:
        patched.setattr(S3Storage, "create", create)
        yield


@pytest.mark.usefixtures("careless")
def test_on_a_server_that_overwrites_no_lease_is_taken(lake: Lake) -> None:
    for _ in range(2):
        with pytest.raises(RefusedError, match="overwrites") as caught, leased(lake.storage, "nightly"):
            pass
        assert "--no-lease" in caught.value.hint
    assert lake.storage.list(paths.LEASE) == []


@pytest.mark.usefixtures("careless")
def test_a_job_on_such_a_server_runs_only_without_a_lease(lake: Lake) -> None:
    assert run(["--lake", lake.url, "nightly"]) == 1
    assert run(["--lake", lake.url, "nightly", "--no-lease"]) == 0
    assert lake.storage.list(paths.LEASE) == []


def test_the_server_is_tried_once_for_a_lake(lake: Lake, server: Server) -> None:
    with leased(lake.storage, "nightly"):
        pass
    with server.counting() as requests, leased(open_storage(lake.url), "nightly"):
        pass
    assert kinds(requests)["PUT"] == 2
    assert kinds(requests)["HEAD"] == 1
    notes = [file.path for file in lake.storage.list(paths.LEASE) if "probed" in file.path]
    assert [lake.storage.read(note) for note in notes] == [server.url.encode()]


def test_another_server_is_tried_again(lake: Lake) -> None:
    with leased(lake.storage, "nightly"):
        pass
    other = server_of(lake).replace("127.0.0.1", "localhost")
    opened = Lake(lake.url, {"endpoint_url": other})
    with leased(opened.storage, "nightly"):
        pass
    assert sum("probed" in file.path for file in lake.storage.list(paths.LEASE)) == 2


def server_of(lake: Lake) -> str:
    return lake.storage.server
