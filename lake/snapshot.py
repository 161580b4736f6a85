"""What a run starts from: of each meter its definition, its listed event files, and its state, in few requests.

Listings are shared by all meters, and a definition that the state knows is not read again: one request a meter.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lake import paths
from lake.events.listing import CurrentFiles, current_files, list_events
from lake.meters import load_meter, stored_meter
from lake.partition_files import by_meter_folder, unexpected_files
from lake.state.changes import stale_partitions
from lake.state.records import KnownMeter, MeterState, PartitionState, interrupted_record
from lake.state.state_file import decode_or_rebuild_state, known_definition, save_state
from lake.storage import Body, Storage, StoredFile, body_of, read_each
from lake.storage.changed_files import FilesChangedError
from schemas.errors import MeterlakeError
from schemas.meter import Meter


@dataclass
class MeterSnapshot:
    """One meter as a run has found it; the run keeps `state` up to date with what it does."""

    meter: Meter
    files: dict[dt.date, list[StoredFile]]
    # Files that are there still though a compacted file has their rows, and since when it has.
    replaced: dict[StoredFile, dt.datetime]
    # A complaint for every file that no partition can hold.
    unexpected: list[MeterlakeError]
    state: MeterState
    # The checksum of the state's file as it is now; empty if there is none.
    stored: str
    # Whether a later step of the run saves the state, so that this one need not, unless it did much.
    saved_later: bool = False

    def save_begun(self, storage: Storage, dates: Mapping[dt.date, Iterable[str]]) -> None:
        """Publish the state with these dates, given with the names of their files, out of date whatever comes or goes."""
        if dates:
            records = self.state.partitions
            self.save_with(
                storage, {date: interrupted_record(records.get(date), names) for date, names in dates.items()}
            )

    def save_with(self, storage: Storage, records: Mapping[dt.date, PartitionState]) -> None:
        """Publish the state with these records in the place of its own, which it keeps."""
        state = msgspec.structs.replace(self.state, partitions={**self.state.partitions, **records})
        self.stored = save_state(storage, self.meter.name, state)

    def refresh(self, storage: Storage) -> None:
        """Look at the meter once more, and forget what was found and concluded."""
        (now,) = scan_meters(storage, self.meter.name)
        self.meter, self.files, self.replaced, self.unexpected = (
            now.meter,
            now.files,
            now.replaced,
            now.unexpected,
        )
        self.state, self.stored = now.state, now.stored

    def save(self, storage: Storage) -> None:
        """Publish the state, unless it is what is there already."""
        self.stored = save_state(storage, self.meter.name, self.state, self.stored)


def scan_meters(
    storage: Storage, meter: str | None = None, problem: Callable[[MeterlakeError], None] | None = None
) -> Iterator[MeterSnapshot]:
    """All meters of the lake by name, or one, each as its turn comes: no more states are held than are asked for.

    Raises BadInputError if there is no such meter. A meter whose definition or state is broken is given to `problem`,
    and the others go on; without it, it is raised. With `problem`, event files of no defined meter are named at the end.
    """
    listed = {paths.meter_of_definition(file.path): file.identity for file in storage.list(paths.METERS)}
    identities = {name: identity for name, identity in listed.items() if name is not None}
    if meter is not None and meter not in identities:
        load_meter(storage, meter)
    names = sorted(identities) if meter is None else [meter]
    bodies = dict(zip(names, read_each(storage, [paths.state(name) for name in names]), strict=True))
    definitions = _definition_bodies(storage, bodies, identities)
    files = by_meter_folder(storage.list(paths.EVENTS if meter is None else paths.events(meter)))
    for name in names:
        listed_files = files.pop(paths.events(name), [])
        try:
            # What is not needed for the next is let go.
            state = decode_or_rebuild_state(storage, name, body_of(bodies.pop(name)))
            found = _definition(storage, state, name, definitions)
            state.definition = KnownMeter(identities[name], found)
            of_meter = _standing(storage, name, listed_files, state)
            view = MeterSnapshot(found, *of_meter, state, state.checksum)
        except MeterlakeError as error:
            if problem is None:
                raise
            problem(error)
        else:
            yield view
    if problem and meter is None:
        for stray in unexpected_files(files):
            problem(stray)


def out_of_date(
    storage: Storage, meter: Meter, state: MeterState, since: dt.date, until: dt.date
) -> dict[dt.date, str]:
    """Return why each partition with since <= date < until is out of date, by date. Lists files, and reads none."""
    files = list_events(storage, meter.name, state).files
    found = stale_partitions(files, state, meter.version, meter.earlier_version)
    return {date: change.why for date, change in found.items() if since <= date < until}


def _standing(storage: Storage, meter: str, listed: Sequence[StoredFile], state: MeterState) -> CurrentFiles:
    try:
        return current_files(storage, listed, state)
    except FilesChangedError:
        return list_events(storage, meter, state)


def _definition_bodies(
    storage: Storage, states: Mapping[str, Body], identities: Mapping[str, str]
) -> dict[str, Body]:
    """Return the files of those definitions that the state does not know as they are now."""
    unknown = []
    for name, body in states.items():
        known = known_definition(body) if isinstance(body, bytes) else None
        if not (known and known.identity == identities[name] and known.meter.name == name):
            unknown.append(name)
    bodies = read_each(storage, [paths.meter_definition(name) for name in unknown])
    return dict(zip(unknown, bodies, strict=True))


def _definition(storage: Storage, state: MeterState, name: str, bodies: Mapping[str, Body]) -> Meter:
    if state.definition and name not in bodies:
        return state.definition.meter
    body = body_of(bodies[name])
    # One that was removed since it was listed is told as any other that is not there.
    return load_meter(storage, name) if body is None else stored_meter(body, name)
