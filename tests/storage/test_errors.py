"""A storage that fails: what passes by itself is tried again, what does not is told at once, and nothing is half."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse

import botocore.retries.standard
import pytest

from jobs.aggregate.job import aggregate
from lake import Lake, paths
from lake.storage import download_cache, open_storage, s3_connection
from schemas.errors import MeterlakeError, StorageError
from storage.lakes import as_json, defined, put, ran
from storage.server import CUT, KEY, SECRET, Answer, Request, Server, error, times
from support import DAY, event, usage

OPTIONS = {"max_attempts": "3"}
# A slow machine may answer other requests late too, so there are attempts to spare.
HASTY = {"max_attempts": "10", "read_timeout_seconds": "0.5"}
Where = Callable[[Request], bool]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between attempts, without which there is no waiting here."""
    monkeypatch.setattr(botocore.retries.standard.ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    monkeypatch.setattr(s3_connection, "MAX_PAUSE_SECONDS", 0.01)


@pytest.fixture
def lake(bucket: str) -> Lake:
    """A lake with one aggregated partition, and a new file in it."""
    lake = Lake.init(f"{bucket}/lake", OPTIONS)
    meter = defined(lake)
    put(lake, meter, "a.parquet", DAY, event("a"))
    ran(lake, lambda report: aggregate(lake, report))
    put(lake, meter, "b.parquet", DAY, event("b", quantity="2"))
    return lake


def of_events(request: Request) -> bool:
    return request.method == "GET" and "/events/" in request.path


def listing(request: Request) -> bool:
    return request.kind == "LIST"


def publishing(request: Request) -> bool:
    return request.method == "PUT" and "/aggregates/usage/" in request.path


def when(where: Where, answer: Answer) -> Callable[[Request], Answer | None]:
    return lambda request: answer if where(request) else None


def slow(start: StartResponse) -> Iterable[bytes]:
    time.sleep(1)
    return error("500 Internal Server Error", "InternalError")(start)


SLOW_DOWN = error("503 Slow Down", "SlowDown", "Please reduce your request rate.")
CONFLICT = error("409 Conflict", "ConditionalRequestConflict", "A conflicting operation occurred.")
INTERNAL = error("500 Internal Server Error", "InternalError")
DENIED = error("403 Forbidden", "AccessDenied", "User is not authorized to perform this action")
EXPIRED = error("400 Bad Request", "ExpiredToken", "The provided token has expired.")
TRANSIENT = {"SlowDown": SLOW_DOWN, "500": INTERNAL, "cut off": CUT, "no answer in time": slow}
PLACES = {"listing": listing, "copying": of_events, "reading": of_events, "publishing": publishing}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Where:
    """The requests that fail. Small files are copied; others are read by Polars itself."""
    if request.param == "reading":
        monkeypatch.setattr(download_cache, "SMALL_BYTES", 0)
    return PLACES[request.param]


def the_old_or_the_new(lake: Lake) -> list[Any]:
    """Quantities by each table that there are; a reader of another process."""
    opened = Lake(lake.url)
    return [
        opened.usage("active_users").collect()["quantity"].sum(),
        opened.usage_by_subject("active_users").collect()["quantity"].sum(),
    ]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_what_passes_by_itself_is_tried_again(lake: Lake, server: Server, fault: str, place: Where) -> None:
    if TRANSIENT[fault] is slow:
        lake = Lake(lake.url, HASTY)
    with server.spoiling(times(2, when(place, TRANSIENT[fault]))):
        report = ran(lake, lambda report: aggregate(lake, report))
    assert report.exit_code == 0
    assert usage(lake, lake.meters()[0])[0][2] == 3


def test_a_conflict_of_two_writers_is_tried_again(lake: Lake, server: Server) -> None:
    def written(request: Request) -> bool:
        return request.method == "PUT" and request.path.endswith("/new")

    with server.spoiling(times(2, when(written, CONFLICT))):
        assert lake.storage.create("lease/new", b"1")
    with server.spoiling(times(2, when(written, CONFLICT))):
        assert lake.storage.create("lease/new", b"2") is None
    with server.spoiling(times(2, when(written, CONFLICT))):
        lake.storage.publish("lease/new", b"3")
    assert lake.storage.read("lease/new") == b"3"
    with (
        server.counting() as requests,
        server.spoiling(when(written, CONFLICT)),
        pytest.raises(StorageError, match="409") as caught,
    ):
        lake.storage.create("lease/new", b"1")
    assert len(requests) == 3
    assert "asked several times" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "is_tried"),
    [
        (error("503 Slow Down", "SlowDown"), True),
        (error("409 Conflict", "ConditionalRequestConflict"), True),
        (error("400 Bad Request", "InvalidRequest"), False),
        (error("405 Method Not Allowed", "MethodNotAllowed"), False),
    ],
)
@pytest.mark.parametrize("attempts", ["1", "2"])
def test_a_hint_says_that_it_was_tried_several_times_only_where_it_was(
    lake: Lake, server: Server, answer: Answer, attempts: str, *, is_tried: bool
) -> None:
    storage = open_storage(lake.url, {"max_attempts": attempts})
    with (
        server.counting() as requests,
        server.spoiling(lambda _: answer),
        pytest.raises(StorageError) as caught,
    ):
        storage.publish("runs/x", b"1")
    assert len(requests) > 1 or not is_tried or attempts == "1"
    assert ("asked several times" in caught.value.hint) == (len(requests) > 1)


@pytest.mark.parametrize("answer", [SLOW_DOWN, error("400 Bad Request", "InvalidRequest")])
def test_what_polars_itself_has_tried_is_told_so(
    lake: Lake, server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(download_cache, "SMALL_BYTES", 0)
    with (
        server.counting() as requests,
        server.spoiling(when(of_events, answer)),
        pytest.raises(StorageError) as caught,
    ):
        ran(lake, lambda report: aggregate(lake, report))
    asked = [request.path for request in requests if of_events(request)]
    assert ("asked several times" in caught.value.hint) == (len(asked) > len(set(asked)))


@pytest.mark.parametrize("fault", ["SlowDown", "500"])
def test_what_does_not_pass_is_given_up_and_leaves_whole_partitions(
    lake: Lake, server: Server, fault: str, place: Where
) -> None:
    spoiling = server.spoiling(when(place, TRANSIENT[fault]))
    with server.counting() as requests, spoiling, pytest.raises(StorageError) as caught:
        ran(lake, lambda report: aggregate(lake, report))
    assert sum(place(request) for request in requests) <= 30
    assert caught.value.exit_code == 3
    assert all(number in (1, 3) for number in the_old_or_the_new(lake))
    report = ran(lake, lambda report: aggregate(lake, report))
    assert (report.exit_code, the_old_or_the_new(lake)) == (0, [3, 3])


REFUSALS = {"AccessDenied": (DENIED, "policy"), "ExpiredToken": (EXPIRED, "new credentials")}


@pytest.mark.parametrize("code", REFUSALS)
def test_what_is_refused_is_told_at_once(lake: Lake, server: Server, code: str, place: Where) -> None:
    answer, hint = REFUSALS[code]
    spoiling = server.spoiling(when(place, answer))
    with server.counting() as requests, spoiling, pytest.raises(MeterlakeError) as caught:
        ran(lake, lambda report: aggregate(lake, report))
    said = as_json(caught.value.to_dict())
    assert isinstance(caught.value, StorageError), said
    assert code in caught.value.found
    assert hint in caught.value.hint
    assert sum(place(request) for request in requests) <= 4
    assert KEY not in said
    assert SECRET not in said
    # A file that could not be reached is not a bad file: the next run counts it.
    report = ran(lake, lambda report: aggregate(lake, report))
    assert (report.exit_code, the_old_or_the_new(lake)) == (0, [3, 3])


def test_a_bucket_that_is_not_there(s3_environment: Server) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket") as caught:
        Lake(f"s3://nobody-has-this/{s3_environment.url[-4:]}")
    assert "bucket" in caught.value.hint


def test_no_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match="NoCredentials") as caught:
        Lake(bucket)
    assert "AWS_PROFILE" in caught.value.hint


def test_no_server(bucket: str) -> None:
    with pytest.raises(StorageError, match="EndpointConnectionError"):
        Lake(bucket, {"endpoint_url": "http://127.0.0.1:9", "max_attempts": "2"})


def test_an_unknown_option_names_those_that_are_known(bucket: str) -> None:
    with pytest.raises(StorageError, match="access_key_id") as caught:
        Lake(bucket, {"secret_key": SECRET})
    assert SECRET not in as_json(caught.value.to_dict())


def test_a_prefix_whose_state_can_not_be_read_is_named(lake: Lake, server: Server) -> None:
    def state(request: Request) -> bool:
        return request.method == "GET" and f"/{paths.STATE}" in request.path

    with server.spoiling(when(state, DENIED)):
        report = ran(lake, lambda report: aggregate(lake, report))
    (problem,) = report.errors
    assert (problem["where"], report.exit_code) == (paths.state("active_users"), 3)
    assert "AccessDenied" in problem["found"]
