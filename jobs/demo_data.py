"""The input of the demo: a season of a small product's usage, with everything that goes wrong in real life.

Seeded and dated, so that it is the same every time.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TODAY = dt.date(2026, 6, 30)
FIRST = dt.date(2026, 4, 1)
# Older than the 180 days that the activity meter keeps its events.
EXPIRED = dt.date(2025, 12, 29)
LATE_DATES = (dt.date(2026, 6, 23), dt.date(2026, 6, 24))

METERS: tuple[dict[str, Any], ...] = (
    {
        "name": "active_users",
        "description": "Meaningful user activity: one event per user, workspace and day",
        "unit": "user",
        "aggregation": "sum",
        "event_retention_days": 180,
        "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace", "role", "source")],
    },
    {
        "name": "seats",
        "description": "Seats in a workspace, as of a nightly snapshot",
        "unit": "seat",
        "aggregation": "last",
        "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace")],
    },
)
# Customer, plan, and the seats of each workspace.
CUSTOMERS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("org_acme", "enterprise", (24, 16, 9)),
    ("org_globex", "enterprise", (18, 12)),
    ("org_initech", "enterprise", (14, 6)),
    ("org_umbrella", "team", (9, 5)),
    ("org_hooli", "team", (11,)),
    ("org_stark", "team", (6, 4)),
    ("org_wayne", "team", (5,)),
    ("org_tyrell", "free", (3,)),
    ("org_cyberdyne", "free", (2,)),
    ("org_soylent", "free", (2,)),
)
ROLES = ("admin", "editor", "editor", "viewer", "viewer", "viewer")
SOURCES = ("dashboard", "dashboard", "api", "mobile")
# This customer has left: it is active in April and May only.
GONE = "org_soylent"


class Inputs(NamedTuple):
    """The files of the demo: meter definitions, what is landed at first, and what comes late."""

    meters: list[Path]
    first: list[Path]
    late: list[Path]


def write_inputs(folder: Path) -> Inputs:
    """Write the demo's files; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    meters = [folder / f"{meter['name']}.json" for meter in METERS]
    for path, meter in zip(meters, METERS, strict=True):
        path.write_text(json.dumps(meter, indent=2) + "\n")
    activity = list(_activity(random.Random(1)))
    files = {
        "activity.jsonl": [*activity, *_invalid()],
        "retries.jsonl": [*_retries(activity), _conflict(activity)],
        "seats.jsonl": list(_snapshots(random.Random(2))),
        "history.jsonl": list(_activity_of(EXPIRED, random.Random(3))),
    }
    first = [_write(folder / name, events) for name, events in files.items()]
    late = [event for date in LATE_DATES for event in _late(date)]
    return Inputs(meters, first, [_write(folder / "late.jsonl", late)])


def _activity(chance: random.Random) -> Iterator[dict[str, Any]]:
    for number in range((TODAY - FIRST).days + 1):
        yield from _activity_of(FIRST + dt.timedelta(days=number), chance)


def _activity_of(date: dt.date, chance: random.Random) -> Iterator[dict[str, Any]]:
    likely = 0.75 if date.weekday() < 5 else 0.15
    for customer, plan, workspaces in CUSTOMERS:
        if customer == GONE and date.month > 5:
            continue
        for number, seats in enumerate(workspaces, 1):
            for user in range(seats):
                if chance.random() < likely:
                    yield _active(customer, plan, number, user, date, chance)


def _active(
    customer: str, plan: str, workspace: int, user: int, date: dt.date, chance: random.Random
) -> dict[str, Any]:
    at = dt.datetime.combine(date, dt.time(7 + chance.randrange(12), chance.randrange(60)), dt.UTC)
    name = f"{customer.removeprefix('org_')}_{workspace}"
    metadata = {"plan": plan, "workspace": name, "role": ROLES[user % 6], "source": chance.choice(SOURCES)}
    return _body("active_users", f"active_{name}_{user}_{date}", customer, 1, at, metadata)


def _snapshots(chance: random.Random) -> Iterator[dict[str, Any]]:
    for number in range((TODAY - FIRST).days + 1):
        date = FIRST + dt.timedelta(days=number)
        at = dt.datetime.combine(date, dt.time(23), dt.UTC)
        for customer, plan, workspaces in CUSTOMERS:
            for workspace, seats in enumerate(workspaces, 1):
                name = f"{customer.removeprefix('org_')}_{workspace}"
                # Workspaces grow by the month; a customer that has left has none.
                count = 0 if customer == GONE and date.month > 5 else seats + (date.month - 4) * (seats // 8)
                yield _body(
                    "seats",
                    f"seats_{name}_{date}",
                    customer,
                    count,
                    at + dt.timedelta(seconds=chance.randrange(60)),
                    {"plan": plan, "workspace": name},
                )


def _retries(activity: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Forty bodies sent again within minutes, ten sent again on the next day with a new timestamp."""
    for body in activity[1000:1040]:
        yield body | {"received_at": _later(body["received_at"], minutes=5)}
    for body in activity[2000:2010]:
        again = {name: _later(body[name], minutes=24 * 60) for name in ("timestamp", "received_at")}
        yield body | again


def _conflict(activity: list[dict[str, Any]]) -> dict[str, Any]:
    """A key that was used before, with another quantity."""
    return activity[1500] | {"quantity": 2, "received_at": _later(activity[1500]["received_at"], minutes=1)}


def _late(date: dt.date) -> Iterator[dict[str, Any]]:
    """What a phone without a connection sends on the last day."""
    received = dt.datetime.combine(TODAY, dt.time(21), dt.UTC)
    for user in range(20, 24):
        body = _active("org_acme", "enterprise", 1, user + 100, date, random.Random(user))
        yield body | {"received_at": _text(received)}


def _invalid() -> list[Any]:
    at = dt.datetime.combine(TODAY, dt.time(9), dt.UTC)
    metadata = {"plan": "team", "workspace": "hooli_1", "role": "admin", "source": "api"}
    good = _body("active_users", "broken", "org_hooli", 1, at, metadata)
    return [
        good | {"subject": "Hooli, Inc."},
        good | {"quantity": "many"},
        good | {"quantity": 0},
        good | {"timestamp": "2026-06-30T09:00:00"},
        good | {"timestamp": "2027-06-30T09:00:00Z"},
        good | {"metadata": metadata | {"plan": 7}},
        good | {"meter": "active_user"},
        '{"meter": "active_users", "subject": "org_hoo',
    ]


def _body(
    meter: str, key: str, subject: str, quantity: int, at: dt.datetime, metadata: dict[str, Any]
) -> dict[str, Any]:
    return {
        "idempotency_key": key,
        "subject": subject,
        "meter": meter,
        "quantity": quantity,
        "timestamp": _text(at),
        "received_at": _text(at + dt.timedelta(seconds=2)),
        "metadata": metadata,
    }


def _later(text: str, minutes: int) -> str:
    return _text(dt.datetime.fromisoformat(text) + dt.timedelta(minutes=minutes))


def _text(at: dt.datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _write(path: Path, bodies: list[Any]) -> Path:
    lines = (body if isinstance(body, str) else json.dumps(body) for body in bodies)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
