"""The meter definitions of a lake: list them, read one, add or change one."""

from __future__ import annotations

from collections.abc import Callable

from lake import paths
from lake.state.state_file import load_state
from lake.storage import Storage
from schemas.errors import BadInputError, BrokenLakeError, MeterlakeError
from schemas.meter import Meter, parse_meter
from schemas.meter_changes import check_change


def meter_names(storage: Storage) -> list[str]:
    """Return the names of the lake's meters in order, from the listing alone."""
    names = (paths.meter_of_definition(file.path) for file in storage.list(paths.METERS))
    return sorted(name for name in names if name is not None)


def load_meters(storage: Storage, on_error: Callable[[MeterlakeError], None] | None = None) -> list[Meter]:
    """Return all meters of the lake, sorted by name.

    The error of a definition that can't be read is passed to `on_error`, and the others are loaded; without it, it is
    raised.
    """
    meters = []
    for name in meter_names(storage):
        try:
            meters.append(load_meter(storage, name))
        except MeterlakeError as error:
            if on_error is None:
                raise
            on_error(error)
    return meters


def load_meter(storage: Storage, name: str) -> Meter:
    """Return one meter by its name.

    Raises BadInputError listing the known names if there is none, BrokenLakeError if its file does not define it.
    """
    body = storage.read(paths.meter_definition(name))
    if body is None:
        known = ", ".join(map(repr, meter_names(storage)))
        raise BadInputError(
            f"no meter {name!r} in this lake",
            expected=f"one of {known}" if known else "a defined meter",
            hint="define it with: meterlake meter add FILE",
        )
    return stored_meter(body, name)


def stored_meter(body: bytes, name: str) -> Meter:
    """Return the meter that the lake's file of this name defines. Raises BrokenLakeError if it defines none, or another."""
    path, hint = paths.meter_definition(name), "add the definition again: meterlake meter add FILE"
    try:
        meter = parse_meter(body, path)
    except BadInputError as error:
        raise BrokenLakeError(
            error.what, where=error.where, expected=error.expected, found=error.found, hint=hint
        ) from error
    if meter.name != name:
        raise BrokenLakeError(
            "the definition of another meter",
            where=path,
            expected=repr(name),
            found=repr(meter.name),
            hint=hint,
        )
    return meter


def save_meter(storage: Storage, meter: Meter) -> str:
    """Add a meter or change its definition; return `added`, `changed` or `unchanged`.

    Raises RefusedError if the meter has data that the change would contradict, BrokenLakeError if the definition of
    its data is unknown.
    """
    path = paths.meter_definition(meter.name)
    body = storage.read(path)
    if body is None:
        # Exclusive, so that of two writers with different definitions one gets an error.
        return "added" if storage.create(path, meter.to_json()) else save_meter(storage, meter)
    if body == meter.to_json():
        return "unchanged"
    if _has_data(storage, meter.name):
        before = _before(storage, meter.name, body)
        check_change(before, meter)
    storage.publish(path, meter.to_json())
    return "changed"


def _before(storage: Storage, name: str, body: bytes) -> Meter:
    """Return the definition by which the meter's data was made: the file's or, if that is broken, the last run's."""
    try:
        return stored_meter(body, name)
    except BrokenLakeError as error:
        known = load_state(storage, name).definition
        if known is None:
            hint = "restore the file from a backup: no run has recorded its content, and the meter has data"
            raise BrokenLakeError(
                error.what, where=error.where, expected=error.expected, found=error.found, hint=hint
            ) from error
        return known.meter


def _has_data(storage: Storage, meter: str) -> bool:
    folders = [paths.events(meter), *(paths.aggregates(table, meter) for table in paths.TABLES)]
    return any(storage.list(folder) for folder in folders)
