"""What a run starts from: of each meter its definition, its listed event files, and its state, in few requests.

Listings are shared by all meters, and a definition that the state knows is not read again: one request a meter.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from lake import paths
from lake.compacted import standing
from lake.meters import load_meter, stored_meter
from lake.state import KnownMeter, MeterState, decode_state, rebuild_state, save_state
from lake.storage import Storage, StoredFile
from schemas.errors import MeterlakeError
from schemas.meter import Meter

T = TypeVar("T")


@dataclass
class MeterView:
    """One meter as a run has found it; the run keeps `state` up to date with what it does."""

    meter: Meter
    files: dict[dt.date, list[StoredFile]]
    # Files that are there still though a compacted file has their rows, and since when it has.
    replaced: dict[StoredFile, dt.datetime]
    # A complaint for every file that no partition can hold.
    strays: list[MeterlakeError]
    state: MeterState
    # The checksum of the state's file as it is now; empty if there is none.
    stored: str

    def save(self, storage: Storage) -> None:
        """Publish the state, unless it is what is there already."""
        self.stored = save_state(storage, self.meter.name, self.state, self.stored)


def survey(
    storage: Storage, meter: str | None = None, problem: Callable[[MeterlakeError], None] | None = None
) -> list[MeterView]:
    """All meters of the lake by name, or one. Raises BadInputError if there is no such meter.

    A meter whose definition or state is broken is given to `problem`, and the others go on; without it, it is raised.
    """
    listed = {paths.meter_of_definition(file.path): file.identity for file in storage.list(paths.METERS)}
    identities = {name: identity for name, identity in listed.items() if name is not None}
    if meter is not None and meter not in identities:
        load_meter(storage, meter)
    names = sorted(identities) if meter is None else [meter]
    states, checksums = _states(storage, names, problem)
    definitions = _definition_bodies(storage, states, identities)
    meters = _each(states, lambda name: _definition(storage, states[name], name, definitions), problem)
    folder = paths.EVENTS if meter is None else paths.events(meter)
    files = _by_folder(storage.list(folder))
    views = []
    for name, found in meters.items():
        states[name].definition = KnownMeter(identities[name], found)
        of_meter = standing(storage, files.get(paths.events(name), []), states[name])
        views.append(MeterView(found, *of_meter, states[name], checksums[name]))
    return views


def _each(
    names: Iterable[str], load: Callable[[str], T], problem: Callable[[MeterlakeError], None] | None
) -> dict[str, T]:
    """What is loaded of each meter, without those whose failure `problem` has taken."""
    found = {}
    for name in names:
        try:
            found[name] = load(name)
        except MeterlakeError as error:
            if problem is None:
                raise
            problem(error)
    return found


def _states(
    storage: Storage, names: list[str], problem: Callable[[MeterlakeError], None] | None
) -> tuple[dict[str, MeterState], dict[str, str]]:
    """The states, and the checksums of those that are stored."""
    bodies = dict(zip(names, storage.read_all([paths.state(name) for name in names]), strict=True))
    missing = {name for name, body in bodies.items() if body is None}
    # Each body is let go once it is decoded: those of a large lake take as much memory as a third of the states.
    states = _each(names, lambda name: _state(storage, name, bodies.pop(name)), problem)
    return states, {name: "" if name in missing else state.checksum for name, state in states.items()}


def _state(storage: Storage, name: str, body: bytes | None) -> MeterState:
    return rebuild_state(storage, name) if body is None else decode_state(name, body)


def _definition_bodies(
    storage: Storage, states: Mapping[str, MeterState], identities: Mapping[str, str]
) -> dict[str, bytes | None]:
    """The files of those definitions that the state does not know as they are now."""
    unknown = []
    for name, state in states.items():
        known = state.definition
        if not (known and known.identity == identities[name] and known.meter.name == name):
            unknown.append(name)
    bodies = storage.read_all([paths.meter_definition(name) for name in unknown])
    return dict(zip(unknown, bodies, strict=True))


def _definition(storage: Storage, state: MeterState, name: str, bodies: Mapping[str, bytes | None]) -> Meter:
    if state.definition and name not in bodies:
        return state.definition.meter
    body = bodies[name]
    # One that was removed since it was listed is told as any other that is not there.
    return load_meter(storage, name) if body is None else stored_meter(body, name)


def _by_folder(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    """The files by `events/meter=…/`."""
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        found.setdefault("/".join(file.path.split("/")[:2]) + "/", []).append(file)
    return found
