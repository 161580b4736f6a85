"""The meters of a lake by name, read when they are first used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

from lake import paths
from lake.meters import meter_names, stored_meter
from lake.state.records import MeterState
from lake.state.state_file import decode_or_rebuild_state
from lake.storage import Body, Storage, body_of, read_each
from schemas.errors import BrokenLakeError, MeterlakeError
from schemas.meter import Meter


class MeterCatalog(Mapping[str, Meter]):
    """Definitions and states of meters, read when they are first used. Thread-safe.

    A meter whose definition or state can't be read is in `broken` and, as an undefined one, not in the mapping.
    Iterating yields the names of all that are listed, and reads none.
    """

    def __init__(self, storage: Storage) -> None:
        """List the names of the lake's meters."""
        self._storage, self._names = storage, set(meter_names(storage))
        self._meters: dict[str, Meter] = {}
        self._pinned: Mapping[str, Meter] = {}
        self.states: dict[str, MeterState] = {}
        self.broken: dict[str, MeterlakeError] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Forget what may have changed since it was read, the states and the errors, and what is pinned."""
        with self._lock:
            self.states, self.broken, self._pinned = {}, {}, {}

    def pin(self, definitions: Mapping[str, Meter]) -> None:
        """Use these definitions for the existing meters of these names, until `refresh`."""
        self._pinned = definitions

    def load(self, names: Iterable[str]) -> None:
        """Read those of these meters that are listed and have not been read, all at once."""
        with self._lock:
            unread = sorted(self._names.intersection(names) - self.states.keys() - self.broken.keys())
            if not unread:
                return
            new = [name for name in unread if name not in self._meters]
            places = [*map(paths.meter_definition, new), *map(paths.state, unread)]
            bodies = read_each(self._storage, places)
            definitions = dict(zip(new, bodies[: len(new)], strict=True))
            for name, state in zip(unread, bodies[len(new) :], strict=True):
                self._add(name, definitions.get(name), state)

    def __getitem__(self, name: str) -> Meter:
        """Return the definition of a meter. Raises KeyError if it is not defined, or broken."""
        if name not in self:
            raise KeyError(name)
        return self._pinned.get(name) or self._meters[name]

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a meter, and it can be read."""
        if isinstance(name, str) and name not in self.states:
            self.load([name])
        return name in self.states

    def __iter__(self) -> Iterator[str]:
        """Return the names of all meters that are listed."""
        return iter(sorted(self._names))

    def __len__(self) -> int:
        """Return how many meters are listed."""
        return len(self._names)

    def _add(self, name: str, definition: Body, state: Body) -> None:
        try:
            bodies = body_of(definition), body_of(state)
        except MeterlakeError as error:
            self.broken[name] = error
            return
        try:
            self._read(name, *bodies)
        except BrokenLakeError as error:
            self.broken[name] = error

    def _read(self, name: str, definition: bytes | None, state: bytes | None) -> None:
        if name not in self._meters:
            if definition is None:
                # Removed since it was listed.
                self._names.discard(name)
                return
            self._meters[name] = stored_meter(definition, name)
        self.states[name] = decode_or_rebuild_state(self._storage, name, state)
