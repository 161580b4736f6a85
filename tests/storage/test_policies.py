"""The policies of docs/s3.md are enough for the jobs, and allow no more than it says."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from jobs.aggregate.job import aggregate
from jobs.land.job import land
from lake import Lake
from schemas.errors import StorageError
from storage.lakes import defined, put, ran
from storage.server import Answer, Request, Server, error
from support import DAY, METER, event, usage

ROOT = Path(__file__).parents[2]
ACTIONS = {"LIST": "ListBucket", "GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject"}


def policies() -> dict[str, Any]:
    text = (ROOT / "docs" / "s3.md").read_text()
    found = re.findall(r"```json\n(\{\"Version\".*?)```", text, re.DOTALL)
    return dict(zip(("land", "aggregate"), map(json.loads, found), strict=True))


def allows(policy: Any, request: Request, bucket: str) -> bool:
    action = ACTIONS.get(request.kind, "DeleteObject")
    prefix = parse_qs(request.query).get("prefix", [""])[0]
    key = prefix if action == "ListBucket" else request.path.removeprefix(f"/{bucket}/")
    for statement in policy["Statement"]:
        wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        resources = (
            statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        )
        patterns = [wanted] if wanted else [each.partition("our-bucket/")[2] for each in resources]
        if statement["Action"] == f"s3:{action}" and any(fnmatch.fnmatch(key, each) for each in patterns):
            return True
    return False


@pytest.fixture
def lake(bucket: str) -> Lake:
    lake = Lake.init(f"{bucket}/usage")
    defined(lake)
    return lake


def denying(job: str, lake: Lake) -> Any:
    bucket, policy = lake.url.split("/")[2], policies()[job]
    denied = error("403 Forbidden", "AccessDenied")

    def spoil(request: Request) -> Answer | None:
        return None if allows(policy, request, bucket) else denied

    return spoil


def test_landing_under_its_policy(lake: Lake, server: Server, tmp_path: Path) -> None:
    line = {"idempotency_key": "a", "subject": "org_1", "meter": METER["name"], "quantity": 1}
    line |= {"timestamp": "2026-06-19T12:00:00Z", "received_at": "2026-06-19T12:00:00Z"}
    source = tmp_path / "events.jsonl"
    source.write_text(json.dumps(line) + "\n" + json.dumps(line | {"subject": ""}) + "\n")
    with server.spoiling(denying("land", lake)):
        opened = Lake(lake.url)
        report = ran(opened, lambda report: land(opened, [str(source)], report))
        assert report.events_landed == 1
        with pytest.raises(StorageError, match="AccessDenied"):
            opened.storage.delete("events/anything")


def test_aggregating_under_its_policy(lake: Lake, server: Server) -> None:
    meter = lake.meters()[0]
    put(lake, meter, "a.parquet", DAY, event("a"), event("b", subject="not one"))
    with server.spoiling(denying("aggregate", lake)):
        opened = Lake(lake.url)
        for name in ("b.parquet", "c.parquet"):
            assert ran(opened, lambda report: aggregate(opened, report)).partitions != []
            server.spoil, spoil = None, server.spoil
            put(lake, meter, name, DAY, event(name))
            server.spoil = spoil
        with pytest.raises(StorageError, match="AccessDenied"):
            opened.storage.delete("events/anything")
    assert [row[1] for row in usage(lake, meter)] == ["org_1"]
