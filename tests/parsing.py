"""What tests of parsing share: meters, lines, and that every way of parsing gives the same."""

from __future__ import annotations

import json
from typing import Any

from jobs.land.parse.by_column import parse_by_column
from jobs.land.parse.by_line import parse_by_line
from jobs.land.parse.choose import parse
from jobs.land.parse.parsed import Parsed
from jobs.land.parse.rest import parse_rest
from schemas.event_rules import REASONS
from schemas.meter import Meter, parse_meter


def meter_of(name: str, *dimensions: tuple[str, str]) -> Meter:
    body = {
        "name": name,
        "unit": "u",
        "dimensions": [{"name": n, "type": t, "required": False} for n, t in dimensions],
    }
    return parse_meter(json.dumps(body).encode(), "test")


METERS = {
    meter.name: meter
    for meter in (
        meter_of(
            "m", ("plan", "string"), ("seats", "number"), ("trial", "boolean"), ("service.tier", "string")
        ),
        meter_of("other", ("region", "string")),
        meter_of("bare"),
    )
}


def line(metadata: Any = None, **changes: Any) -> str:
    body = {
        "idempotency_key": "k",
        "subject": "s",
        "meter": "m",
        "quantity": 1,
        "timestamp": "2026-06-19T10:00:00Z",
    }
    body |= {"metadata": metadata} if metadata is not None else {}
    return json.dumps({name: value for name, value in (body | changes).items() if value is not ...})


def assert_same(found: Parsed, exact: Parsed) -> None:
    assert found.rejected == exact.rejected
    assert [meter.name for meter, _ in found.events] == [meter.name for meter, _ in exact.events]
    for (_, one), (_, other) in zip(found.events, exact.events, strict=True):
        assert one.equals(other)
        assert one.schema == other.schema


def assert_every_way_gives_the_same(lines: bytes) -> None:
    exact = parse_by_line(lines, METERS)
    assert {said.reason for said in exact.rejected} <= REASONS.keys()
    for found in (parse_by_column(lines, METERS), parse_rest(lines, METERS), parse(lines, METERS)):
        if found is not None:
            assert_same(found, exact)
