"""The meaning of a lake once more, as a tiny plain-Python model: dictionaries and exact decimals.

It is slow and small on purpose, and it also knows what retention does to the numbers (`Model.seal`).
An event is a dictionary with the columns of the contract; a dimension or key may be absent for null.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

Event = dict[str, Any]
Row = dict[str, Any]
Key = Callable[[Event], dict[str, Any]]

DAY_SECONDS = 86_400


class Model:
    """One meter's lake: files of events by date, sealed dates, and settled keys."""

    def __init__(self, meter_body: dict[str, Any]) -> None:
        self.aggregation: str = meter_body.get("aggregation") or "sum"
        declared: list[dict[str, Any]] = meter_body.get("dimensions") or []
        self.dimensions: dict[str, str] = {each["name"]: each["type"] for each in declared}
        self.unique: str = meter_body.get("unique") or ""
        self.files: dict[date, dict[str, list[Event]]] = {}
        self.sealed: dict[date, list[Event]] = {}
        self.settled: dict[str, Event] = {}
        # Rows of a sealed date are final: a dimension that is declared later has no row there.
        self.declared_when_sealed: dict[date, dict[str, str]] = {}

    def put(self, day: date, name: str, events: Iterable[Event]) -> None:
        """Land a file in a partition, in place of one of the same name; ignored where the date is sealed."""
        landed = [dict(event) for event in events]
        if any(event["timestamp"].astimezone(UTC).date() != day for event in landed):
            message = f"an event of file {name!r} is not of the date {day}"
            raise ValueError(message)
        if day not in self.sealed:
            self.files.setdefault(day, {})[name] = landed

    def drop(self, day: date, name: str) -> None:
        """Take a file away again; nothing happens where it is not there."""
        self.files.get(day, {}).pop(name, None)

    def seal(self, day: date) -> None:
        """Freeze the rows of a date and forget its events; nothing happens where it is sealed already.

        A key that won here and has another copy in a date that stays open is settled: no copy of it ever
        counts again. A key with all its copies in sealed dates is forgotten.
        """
        if day in self.sealed:
            return
        winners = self._open_winners()
        self.declared_when_sealed[day] = dict(self.dimensions)
        self.files.pop(day, None)
        self.sealed[day] = [event for event in winners if _date(event) == day]
        remaining = {_key(event) for event in self._open_events()}
        keyed = {key: event for event in self.sealed[day] if (key := _key(event))}
        self.settled.update({key: event for key, event in keyed.items() if key in remaining})

    def winners(self) -> list[Event]:
        """The events that count, those frozen in sealed dates included."""
        return [event for events in self.sealed.values() for event in events] + self._open_winners()

    def losers(self) -> list[Row]:
        """The events of open dates that do not count, with two more columns.

        `conflict`: the payload differs from the winner's. `settled`: the winner is in a sealed date, so its
        payload is known to this model and perhaps to nobody else.
        """
        losers = []
        for key, copies in self._by_key().items():
            winner = self.settled.get(key) or copies[0]
            rest = copies if key in self.settled else copies[1:]
            flags = ({"conflict": self._payload(copy) != self._payload(winner)} for copy in rest)
            settled = {"settled": key in self.settled}
            losers += [{**copy, **flag, **settled} for copy, flag in zip(rest, flags, strict=True)]
        return losers

    def conflicts(self) -> int:
        """How many losers contradict their winner."""
        return sum(loser["conflict"] for loser in self.losers())

    def tables(self) -> dict[str, list[Row]]:
        """The rows of the three tables for all dates, sealed ones included, in key order, nulls first."""
        day = DAY_SECONDS
        winners = self.winners()
        return {
            "usage": self._rows(winners, self._keys("date", "subject", *self.dimensions), day),
            "usage_by_subject": self._rows(winners, self._keys("date", "subject"), day),
            "usage_by_dimension": self._rows(
                self._valued(winners), self._keys("date", "dimension", "value"), day, subjects=True
            ),
        }

    def totals(self, table: str, keys: Sequence[str], dates: Iterable[date]) -> list[Row]:
        """All measures of a table over a set of dates, per `keys`, from the events that count."""
        days = set(dates)
        winners = [event for event in self.winners() if _date(event) in days]
        events = self._valued(winners) if table == "usage_by_dimension" else winners
        return self._rows(events, self._keys(*keys), DAY_SECONDS * len(days))

    def _open_events(self) -> list[Event]:
        return [event for files in self.files.values() for events in files.values() for event in events]

    def _by_key(self) -> dict[str, list[Event]]:
        """The open events with a key, winner first."""
        groups: dict[str, list[Event]] = {}
        for event in sorted(self._open_events(), key=self._winner_order):
            if key := _key(event):
                groups.setdefault(key, []).append(event)
        return groups

    def _open_winners(self) -> list[Event]:
        """One event of each key that is not settled, and every event without a key."""
        keyless = [event for event in self._open_events() if not _key(event)]
        return keyless + [copies[0] for key, copies in self._by_key().items() if key not in self.settled]

    def _winner_order(self, event: Event) -> tuple[Any, ...]:
        instants = (event["received_at"], event["timestamp"])
        values = [_sortable(event.get(name)) for name in self.dimensions]
        return (*instants, event["quantity"], _sortable(event["subject"]), *values)

    def _payload(self, event: Event) -> tuple[Any, ...]:
        return (event["subject"], event["quantity"], *(event.get(name) for name in self.dimensions))

    def _valued(self, events: Iterable[Event]) -> list[Event]:
        """Every event once for each dimension."""
        return [
            {**event, "dimension": name, "value": _text(event.get(name), kind)}
            for event in events
            for name, kind in self.declared_when_sealed.get(_date(event), self.dimensions).items()
        ]

    def _keys(self, *names: str) -> Key:
        return lambda event: {name: _date(event) if name == "date" else event.get(name) for name in names}

    def _rows(self, events: Iterable[Event], keys: Key, seconds: int, *, subjects: bool = False) -> list[Row]:
        groups: dict[tuple[Any, ...], list[Event]] = {}
        for event in events:
            groups.setdefault(tuple(_sortable(value) for value in keys(event).values()), []).append(event)
        return [self._row(groups[group], keys, seconds, subjects=subjects) for group in sorted(groups)]

    def _row(self, events: list[Event], keys: Key, seconds: int, *, subjects: bool) -> Row:
        distinct = {"subjects": len({event["subject"] for event in events})} if subjects else {}
        measures = _measures(events)
        values = {event.get(self.unique) for event in events} - {None}
        quantity = _quantity(self.aggregation, measures, seconds, len(values))
        return {**keys(events[0]), **distinct, "quantity": quantity, **measures}


def _measures(events: list[Event]) -> Row:
    """The mergeable measures of a group of events."""
    first = min(events, key=_moment)
    last = max(events, key=_moment)
    quantities = [event["quantity"] for event in events]
    return {
        "events": len(events),
        "quantity_sum": _sum(quantities),
        "quantity_min": min(quantities),
        "quantity_max": max(quantities),
        "quantity_first": first["quantity"],
        "first_at": first["timestamp"],
        "first_received_at": first["received_at"],
        "quantity_last": last["quantity"],
        "last_at": last["timestamp"],
        "last_received_at": last["received_at"],
    }


def _quantity(aggregation: str, measures: Row, seconds: int, values: int) -> Decimal:
    """The meter's own aggregation."""
    if aggregation == "unique_count":
        return Decimal(values)
    if aggregation == "count":
        return Decimal(measures["events"])
    if aggregation == "avg":
        return nine_places(Fraction(measures["quantity_sum"]) / measures["events"])
    if aggregation == "rate":
        return nine_places(Fraction(measures["events"], seconds))
    value: Decimal = measures[f"quantity_{aggregation}"]
    return value


def nine_places(number: Fraction) -> Decimal:
    """A number rounded half-even to nine places, which is what Python's `round` does with a fraction."""
    with localcontext(prec=60):
        return Decimal(round(number * 10**9)) / 10**9


def _sum(quantities: Iterable[Decimal]) -> Decimal:
    """An exact sum: the default context would round to 28 digits."""
    with localcontext(prec=60):
        return sum(quantities, Decimal(0))


def _moment(event: Event) -> tuple[Any, ...]:
    return (event["timestamp"], event["received_at"], event["quantity"])


def _date(event: Event) -> date:
    day: date = event["timestamp"].astimezone(UTC).date()
    return day


def _key(event: Event) -> str:
    """The idempotency key; empty for an event that is never a duplicate."""
    return event.get("idempotency_key") or ""


def _sortable(value: Any) -> tuple[bool, Any]:
    """A sort key with null before any value and text by its UTF-8 bytes."""
    return (value is not None, value.encode() if isinstance(value, str) else value)


def _text(value: Any, kind: str) -> str | None:
    """A dimension's value as text: shortest round-trip number without `.0`, true, false."""
    if value is None:
        return None
    if kind == "number":
        return repr(float(value)).removesuffix(".0")
    return str(value).lower() if kind == "boolean" else str(value)
