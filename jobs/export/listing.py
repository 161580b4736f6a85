"""Group the files of all exports by meter, month and form, from one listing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jobs.export.billing import Period, parse_period
from jobs.export.month import Options
from lake import paths
from lake.storage import StoredFile, not_regular_error
from schemas.errors import BadInputError


class MonthForm(NamedTuple):
    """A month in one form: the usual one, or one with other options."""

    period: Period
    options: Options

    def __str__(self) -> str:
        """Return the name in the state and below a meter's folder of exports: `2026-06/by=plan`."""
        return "/".join((str(self.period), *self.options.variant))

    def folder(self, meter: str) -> str:
        """Return the folder of a meter's revisions of this month and form."""
        return paths.exports(meter, str(self.period), *self.options.variant)


Files = dict[MonthForm, list[StoredFile]]


class ExportListing:
    """All files of exports as they were listed; files that belong to no export are ignored."""

    def __init__(self, files: Iterable[StoredFile]) -> None:
        """`files` is the listing of `exports/`."""
        by_place: dict[paths.ExportPlace, list[StoredFile]] = {}
        self._unreadable: dict[str, StoredFile] = {}
        for file in files:
            # A folder that can't be listed is listed itself, as one unreadable file.
            is_folder = file.unreadable and "=" in file.path.rpartition("/")[2]
            place = paths.split_export(f"{file.path}/" if is_folder else file.path)
            if place:
                by_place.setdefault(place, []).append(file)
            elif file.unreadable:
                self._unreadable[f"{file.path}/"] = file
        self._by_meter: dict[str, Files] = {}
        for place, of_form in by_place.items():
            form = _form_of(place)
            if form:
                self._by_meter.setdefault(place.meter, {})[form] = of_form

    def of(self, meter: str) -> Files:
        """Return the files of a meter's exports. Raises BrokenLakeError where its folder can't be listed."""
        broken = self._unreadable.get(paths.meter_exports(meter))
        if broken:
            # Without files, all revisions would be made again.
            raise not_regular_error(broken.path, broken.unreadable)
        return self._by_meter.get(meter, {})


def _form_of(place: paths.ExportPlace) -> MonthForm | None:
    options = Options.of_variant(place.variant)
    try:
        return MonthForm(parse_period(place.period), options) if options else None
    except BadInputError:
        return None
