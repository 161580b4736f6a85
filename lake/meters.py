"""The meter definitions of a lake: list them, read one, add or change one."""

from __future__ import annotations

from lake import paths
from lake.storage import Storage
from schemas.errors import BadInputError
from schemas.meter import Meter, check_change, parse_meter


def load_meters(storage: Storage) -> list[Meter]:
    """All meters of the lake, sorted by name."""
    names = (paths.meter_of_definition(file.path) for file in storage.list(paths.METERS))
    return [load_meter(storage, name) for name in sorted(name for name in names if name is not None)]


def load_meter(storage: Storage, name: str) -> Meter:
    """One meter by its name. Raises BadInputError listing the known names if there is none."""
    path = paths.meter_definition(name)
    body = storage.read(path)
    if body is None:
        known = ", ".join(sorted(repr(meter.name) for meter in load_meters(storage)))
        raise BadInputError(
            f"no meter {name!r} in this lake",
            expected=f"one of {known}" if known else "a defined meter",
            hint="define it with: meterlake meter add FILE",
        )
    return parse_meter(body, path)


def save_meter(storage: Storage, meter: Meter) -> str:
    """Add a meter or change its definition; gives `added`, `changed` or `unchanged`.

    Raises RefusedError if the meter has data that the change would contradict.
    """
    path = paths.meter_definition(meter.name)
    body = storage.read(path)
    if body is None:
        # Exclusive, so that of two writers with different definitions one is told.
        return "added" if storage.create(path, meter.to_json()) else save_meter(storage, meter)
    if body == meter.to_json():
        return "unchanged"
    if _has_data(storage, meter.name):
        check_change(parse_meter(body, path), meter)
    storage.publish(path, meter.to_json())
    return "changed"


def _has_data(storage: Storage, meter: str) -> bool:
    folders = [paths.events(meter), *(paths.aggregates(table, meter) for table in paths.TABLES)]
    return any(storage.list(folder) for folder in folders)
