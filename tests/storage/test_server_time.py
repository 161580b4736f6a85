"""The date of a lake's server decides whether retention can believe this machine's clock, and costs no request."""

from __future__ import annotations

import datetime as dt

import pytest

from jobs import run_report
from jobs.aggregate.job import aggregate
from jobs.nightly import nightly
from lake import Lake, paths
from storage.lakes import defined, put, ran
from storage.server import Server
from support import DAY, event


def test_a_listing_tells_the_servers_date(bucket: str) -> None:
    lake = Lake.init(f"{bucket}/lake")
    lake.storage.list(paths.EVENTS)
    told = lake.storage.server_time()
    assert told is not None
    assert abs(dt.datetime.now(dt.UTC) - told) < dt.timedelta(minutes=5)


def test_a_clock_years_ahead_of_the_server_drops_nothing_until_it_is_trusted(
    bucket: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.init(f"{bucket}/lake")
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("a"))
    ran(lake, lambda done: aggregate(lake, done))
    real = dt.datetime.now(dt.UTC)
    monkeypatch.setattr(run_report, "now", lambda: real + dt.timedelta(days=13_000))
    for _ in range(2):
        # What the wrong clock has landed and reported is no evidence here.
        done = ran(lake, lambda done: nightly(Lake(lake.url), done))
        (problem,) = done.errors
        assert "the storage's server" in problem["expected"]
    assert len(lake.storage.list(paths.events(meter.name))) == 1
    assert ran(lake, lambda done: nightly(lake, done, trust_clock=True)).exit_code == 0
    assert lake.storage.list(paths.events(meter.name)) == []
    # The next night goes on without being told again.
    assert ran(lake, lambda done: nightly(lake, done)).exit_code == 0
    monkeypatch.setattr(run_report, "now", lambda: real)
    with server.counting() as requests:
        assert ran(lake, lambda done: nightly(Lake(lake.url), done)).exit_code == 0
    assert [request.path for request in requests if paths.CLOCK in request.path] == []
    assert [request.path for request in requests if request.kind == "LIST" and "runs" in request.path] == []
