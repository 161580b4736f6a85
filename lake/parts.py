"""The one file that a partition has in an aggregate table, or of sealed winners, found by listing."""

from __future__ import annotations

import datetime as dt

from lake import paths
from lake.storage import Storage, StoredFile


def part_files(storage: Storage, folder: str) -> dict[dt.date, StoredFile]:
    """Return the `part.parquet` of each date in a meter's folder of such files, in order of the dates.

    Whatever else lies there, such as a copy, is passed over: `verify` names it.
    """
    places = ((paths.split_partition(file.path), file) for file in storage.list(folder))
    return {place.date: file for place, file in places if place and place.file == paths.PART}
