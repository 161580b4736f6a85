"""What a run starts from: of each meter its definition, its listed event files, and its state, in few requests.

Listings are shared by all meters, and a definition that the state knows is not read again: one request a meter.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from lake import paths
from lake.events import by_date
from lake.meters import load_meter
from lake.state import KnownMeter, MeterState, decode_state, rebuild_state, save_state
from lake.storage import Storage, StoredFile
from schemas.errors import MeterlakeError
from schemas.meter import Meter, parse_meter


@dataclass
class MeterView:
    """One meter as a run has found it; the run keeps `state` up to date with what it does."""

    meter: Meter
    files: dict[dt.date, list[StoredFile]]
    # A complaint for every file that no partition can hold.
    strays: list[MeterlakeError]
    state: MeterState
    # The state's file as it is now; None if there is none.
    stored: bytes | None

    def save(self, storage: Storage) -> None:
        """Publish the state, unless it is what is there already."""
        self.stored = save_state(storage, self.meter.name, self.state, self.stored)


def survey(storage: Storage, meter: str | None = None) -> list[MeterView]:
    """All meters of the lake by name, or one. Raises BadInputError if there is no such meter."""
    listed = {paths.meter_of_definition(file.path): file.identity for file in storage.list(paths.METERS)}
    identities = {name: identity for name, identity in listed.items() if name is not None}
    if meter is not None and meter not in identities:
        load_meter(storage, meter)
    names = sorted(identities) if meter is None else [meter]
    bodies = dict(zip(names, storage.read_all([paths.state(name) for name in names]), strict=True))
    states = {name: _state(storage, name, body) for name, body in bodies.items()}
    meters = _definitions(storage, {name: (states[name], identities[name]) for name in names})
    folder = paths.EVENTS if meter is None else paths.events(meter)
    files = _by_folder(storage.list(folder))
    views = []
    for name in names:
        states[name].definition = KnownMeter(identities[name], meters[name])
        dates, strays = by_date(files.get(paths.events(name), []))
        views.append(MeterView(meters[name], dates, strays, states[name], bodies[name]))
    return views


def _state(storage: Storage, name: str, body: bytes | None) -> MeterState:
    return rebuild_state(storage, name) if body is None else decode_state(name, body)


def _definitions(storage: Storage, known: dict[str, tuple[MeterState, str]]) -> dict[str, Meter]:
    found = {
        name: state.definition.meter
        for name, (state, identity) in known.items()
        if state.definition and state.definition.identity == identity and state.definition.meter.name == name
    }
    unknown = [name for name in known if name not in found]
    where = [paths.meter_definition(name) for name in unknown]
    for name, path, body in zip(unknown, where, storage.read_all(where), strict=True):
        # One that was removed since it was listed is told as any other that is not there.
        found[name] = parse_meter(body, path) if body is not None else load_meter(storage, name)
    return found


def _by_folder(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    """The files by `events/meter=…/`."""
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        found.setdefault("/".join(file.path.split("/")[:2]) + "/", []).append(file)
    return found
