"""The one file that a partition has in an aggregate table, or of sealed winners, found by listing."""

from __future__ import annotations

import datetime as dt

from lake import paths
from lake.storage import Storage, StoredFile, not_regular


def part_files(storage: Storage, folder: str) -> dict[dt.date, StoredFile]:
    """Return the `part.parquet` of each date in a meter's folder of such files, in order of the dates.

    Whatever else lies there, such as a copy, is passed over: `verify` names it. Raises BrokenLakeError where the
    folder of a date can't be listed, whose rows would be missing in silence.
    """
    found = {}
    for file in storage.list(folder):
        if file.unreadable and paths.split_partition(f"{file.path}/{paths.PART}"):
            raise not_regular(file.path, file.unreadable)
        place = paths.split_partition(file.path)
        if place and place.file == paths.PART:
            found[place.date] = file
    return found
