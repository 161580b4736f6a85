"""The input of the demo: a season of a small product's usage, with everything that goes wrong in real life.

Seeded and dated, so that it is the same every time.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator, Sequence
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
        "series": ["workspace"],
        "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace")],
    },
    {
        "name": "users",
        "description": "Who was active: one event per user and day",
        "unit": "user",
        "aggregation": "unique_count",
        "unique": "user",
        "event_retention_days": 180,
        "dimensions": [{"name": name, "type": "string"} for name in ("plan", "workspace", "role", "user")],
    },
)


class Customer(NamedTuple):
    """A customer: its plan, the seats of each of its workspaces at first, and when it is one (until: no more)."""

    subject: str
    plan: str
    workspaces: tuple[int, ...]
    since: dt.date = EXPIRED
    until: dt.date = TODAY + dt.timedelta(days=1)
    # Before this date it had the lesser plan.
    upgraded: dt.date = dt.date.min
    plan_before: str = ""

    def plan_at(self, date: dt.date) -> str:
        """The plan that it had on a date."""
        return self.plan if date >= self.upgraded else self.plan_before


CUSTOMERS = (
    Customer("org_acme", "enterprise", (24, 16, 9)),
    Customer("org_globex", "enterprise", (18, 12)),
    Customer("org_initech", "enterprise", (14, 6), upgraded=dt.date(2026, 5, 11), plan_before="team"),
    Customer("org_umbrella", "team", (9, 5)),
    Customer("org_hooli", "team", (11,)),
    Customer("org_stark", "team", (6, 4), since=dt.date(2026, 4, 20)),
    Customer(
        "org_wayne", "team", (5,), dt.date(2026, 5, 4), upgraded=dt.date(2026, 5, 18), plan_before="free"
    ),
    Customer("org_tyrell", "free", (3,), since=dt.date(2026, 5, 11)),
    Customer("org_cyberdyne", "free", (2,), since=dt.date(2026, 6, 1)),
    Customer("org_soylent", "free", (2,), until=dt.date(2026, 6, 1)),
)
# They tried it and left again.
TRIALS = (
    Customer("org_wonka", "free", (4,), dt.date(2026, 4, 13), dt.date(2026, 5, 18)),
    Customer("org_vandelay", "free", (3,), dt.date(2026, 4, 20), dt.date(2026, 5, 4)),
    Customer("org_aperture", "free", (2,), dt.date(2026, 5, 4), dt.date(2026, 5, 18)),
)
RETRIED_EVERY = 60
ROLES = ("admin", "editor", "editor", "viewer", "viewer", "viewer")
SOURCES = ("dashboard", "dashboard", "api", "mobile")
# How long the snapshots of a customer that has left say that it has no seats.
FAREWELL = dt.timedelta(days=7)


class Inputs(NamedTuple):
    """The files of the demo: meter definitions, what is landed at first, and what comes late."""

    meters: list[Path]
    first: list[Path]
    late: list[Path]


def write_inputs(folder: Path) -> Inputs:
    """Write the demo's files, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    meters = [folder / f"{meter['name']}.json" for meter in METERS]
    for path, meter in zip(meters, METERS, strict=True):
        path.write_text(json.dumps(meter, indent=2) + "\n")
    activity = list(_activity(CUSTOMERS, random.Random(1)))
    trials = list(_activity(TRIALS, random.Random(4)))
    files = {
        "activity.jsonl": [*activity, *trials, *_invalid()],
        "users.jsonl": [*map(_user, activity), *map(_user, trials)],
        "retries.jsonl": [*_retries(activity), _conflict(activity)],
        "seats.jsonl": list(_snapshots(random.Random(2))),
        "history.jsonl": list(_activity_of(EXPIRED, CUSTOMERS, random.Random(3))),
    }
    first = [_write(folder / name, events) for name, events in files.items()]
    late = [event for date in LATE_DATES for event in _late(date)]
    return Inputs(meters, first, [_write(folder / "late.jsonl", [*late, *map(_user, late)])])


def _activity(customers: Sequence[Customer], chance: random.Random) -> Iterator[dict[str, Any]]:
    for number in range((TODAY - FIRST).days + 1):
        yield from _activity_of(FIRST + dt.timedelta(days=number), customers, chance)


def _activity_of(
    date: dt.date, customers: Sequence[Customer], chance: random.Random
) -> Iterator[dict[str, Any]]:
    likely = 0.75 if date.weekday() < 5 else 0.15
    for customer in customers:
        if date >= customer.until:
            continue
        for number, seats in enumerate(customer.workspaces, 1):
            for user in range(seats):
                if chance.random() < likely:
                    body = _active(customer, number, user, date, chance)
                    # Drawn before it is a customer too, so that its first date changes no other's numbers.
                    if date >= customer.since:
                        yield body


def _active(
    customer: Customer, workspace: int, user: int, date: dt.date, chance: random.Random
) -> dict[str, Any]:
    at = dt.datetime.combine(date, dt.time(7 + chance.randrange(12), chance.randrange(60)), dt.UTC)
    name = _workspace(customer, workspace)
    metadata = {
        "plan": customer.plan_at(date),
        "workspace": name,
        "role": ROLES[user % 6],
        "source": chance.choice(SOURCES),
    }
    return _body("active_users", f"active_{name}_{user}_{date}", customer.subject, 1, at, metadata)


def _user(activity: dict[str, Any]) -> dict[str, Any]:
    """The same activity as an event of the meter that counts users."""
    key = activity["idempotency_key"].removeprefix("active_")
    dimensions = {name: value for name, value in activity["metadata"].items() if name != "source"}
    return activity | {
        "meter": "users",
        "idempotency_key": f"user_{key}",
        "metadata": dimensions | {"user": key.rpartition("_")[0]},
    }


def _snapshots(chance: random.Random) -> Iterator[dict[str, Any]]:
    for number in range((TODAY - FIRST).days + 1):
        date = FIRST + dt.timedelta(days=number)
        at = dt.datetime.combine(date, dt.time(23), dt.UTC)
        for customer in (*CUSTOMERS, *TRIALS):
            if not customer.since <= date < customer.until + FAREWELL:
                continue
            for workspace, seats in enumerate(customer.workspaces, 1):
                name = _workspace(customer, workspace)
                yield _body(
                    "seats",
                    f"seats_{name}_{date}",
                    customer.subject,
                    _seats(seats, date) if date < customer.until else 0,
                    at + dt.timedelta(seconds=chance.randrange(60)),
                    {"plan": customer.plan_at(date), "workspace": name},
                )


def _seats(at_first: int, date: dt.date) -> int:
    """Workspaces grow by about a quarter in the season, large ones sooner."""
    growth = 2 * (at_first // 8)
    return at_first + min(growth, growth * (date - FIRST).days // (90 - at_first))


def _workspace(customer: Customer, number: int) -> str:
    return f"{customer.subject.removeprefix('org_')}_{number}"


def _retries(activity: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Forty bodies of June sent again within minutes, ten of the last of May again on the next day, dated anew."""
    june = [body for body in activity if body["timestamp"] >= "2026-06-01"]
    for body in june[: 40 * RETRIED_EVERY : RETRIED_EVERY]:
        yield body | {"received_at": _later(body["received_at"], minutes=5)}
    for body in [body for body in activity if body["timestamp"].startswith("2026-05-31")][:10]:
        again = {name: _later(body[name], minutes=24 * 60) for name in ("timestamp", "received_at")}
        yield body | again


def _conflict(activity: list[dict[str, Any]]) -> dict[str, Any]:
    """A key that was used before, with another quantity."""
    first = next(body for body in activity if body["timestamp"].startswith("2026-06-17"))
    return first | {"quantity": 2, "received_at": _later(first["received_at"], minutes=1)}


def _late(date: dt.date) -> Iterator[dict[str, Any]]:
    """What a phone without a connection sends on the last day."""
    received = dt.datetime.combine(TODAY, dt.time(21), dt.UTC)
    for user in range(20, 24):
        body = _active(CUSTOMERS[0], 1, user + 100, date, random.Random(user))
        yield body | {"received_at": _text(received)}


def _invalid() -> list[Any]:
    at = dt.datetime.combine(TODAY, dt.time(9), dt.UTC)
    metadata = {"plan": "enterprise", "workspace": "acme_1", "role": "admin", "source": "api"}
    good = _body("active_users", "broken", "org_acme", 1, at, metadata)
    return [
        good | {"subject": "Acme, Inc."},
        good | {"quantity": "many"},
        good | {"quantity": 0},
        good | {"timestamp": "2026-06-30T09:00:00"},
        good | {"timestamp": "2027-06-30T09:00:00Z"},
        good | {"metadata": metadata | {"plan": 7}},
        good | {"meter": "active_user"},
        '{"meter": "active_users", "subject": "org_ac',
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
