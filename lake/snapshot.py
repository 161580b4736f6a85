"""What a run starts from: each meter's definition, listed event files and state, read with few requests.

Listings are shared by all meters, and a definition that the state has is not read again: one request a meter.
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
    """One meter as of the start of a run; the run updates `state` as it goes."""

    meter: Meter
    files: dict[dt.date, list[StoredFile]]
    # Existing files whose rows are in a compacted file, and since when.
    replaced: dict[StoredFile, dt.datetime]
    # An error for every file that is in no partition.
    unexpected: list[MeterlakeError]
    state: MeterState
    # The checksum of the state's file; empty if there is none.
    stored: str
    # Whether a later step of the run saves the state, so that this one need not, unless it changed much.
    saved_later: bool = False

    def save_begun(self, storage: Storage, dates: Mapping[dt.date, Iterable[str]]) -> None:
        """Publish the state with these dates marked as interrupted; `dates` has the names of their files."""
        if dates:
            records = self.state.partitions
            self.save_with(
                storage, {date: interrupted_record(records.get(date), names) for date, names in dates.items()}
            )

    def save_with(self, storage: Storage, records: Mapping[dt.date, PartitionState]) -> None:
        """Publish the state with these records instead of its own; `state` is not changed."""
        state = msgspec.structs.replace(self.state, partitions={**self.state.partitions, **records})
        self.stored = save_state(storage, self.meter.name, state)

    def refresh(self, storage: Storage) -> None:
        """List and read the meter again, and replace everything that is known of it."""
        (current,) = scan_meters(storage, self.meter.name)
        self.meter, self.files, self.replaced, self.unexpected = (
            current.meter,
            current.files,
            current.replaced,
            current.unexpected,
        )
        self.state, self.stored = current.state, current.stored

    def save(self, storage: Storage) -> None:
        """Publish the state, unless its file is the same."""
        self.stored = save_state(storage, self.meter.name, self.state, self.stored)


def scan_meters(
    storage: Storage, meter: str | None = None, on_error: Callable[[MeterlakeError], None] | None = None
) -> Iterator[MeterSnapshot]:
    """Yield all meters of the lake in order of their names, or one. States are decoded one by one, to save memory.

    Raises BadInputError if there is no such meter. The error of a meter whose definition or state is broken is passed
    to `on_error`, and the others follow; without `on_error`, it is raised. With `on_error` and no `meter`, unexpected
    files in the folder of events are passed to it at the end.
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
            # Popped, so that the memory is free for the next meter.
            state = decode_or_rebuild_state(storage, name, body_of(bodies.pop(name)))
            meter_definition = _meter_definition(storage, state, name, definitions)
            state.definition = KnownMeter(identities[name], meter_definition)
            of_meter = _current_files(storage, name, listed_files, state)
            meter_snapshot = MeterSnapshot(meter_definition, *of_meter, state, state.checksum)
        except MeterlakeError as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            yield meter_snapshot
    if on_error and meter is None:
        for stray in unexpected_files(files):
            on_error(stray)


def stale_dates(
    storage: Storage, meter: Meter, state: MeterState, since: dt.date, until: dt.date
) -> dict[dt.date, str]:
    """Return why each stale partition with since <= date < until is stale, by date. Lists files, and reads none."""
    files = list_events(storage, meter.name, state).files
    stale = stale_partitions(files, state, meter.version, meter.earlier_version)
    return {date: change.why for date, change in stale.items() if since <= date < until}


def _current_files(
    storage: Storage, meter: str, listed: Sequence[StoredFile], state: MeterState
) -> CurrentFiles:
    try:
        return current_files(storage, listed, state)
    except FilesChangedError:
        return list_events(storage, meter, state)


def _definition_bodies(
    storage: Storage, states: Mapping[str, Body], identities: Mapping[str, str]
) -> dict[str, Body]:
    """Return the contents of the definitions that differ from those in the states, by meter."""
    unknown = []
    for name, body in states.items():
        known = known_definition(body) if isinstance(body, bytes) else None
        if not (known and known.identity == identities[name] and known.meter.name == name):
            unknown.append(name)
    bodies = read_each(storage, [paths.meter_definition(name) for name in unknown])
    return dict(zip(unknown, bodies, strict=True))


def _meter_definition(storage: Storage, state: MeterState, name: str, bodies: Mapping[str, Body]) -> Meter:
    if state.definition and name not in bodies:
        return state.definition.meter
    body = body_of(bodies[name])
    # A definition that was removed since it was listed ends in the error of a missing one.
    return load_meter(storage, name) if body is None else stored_meter(body, name)
