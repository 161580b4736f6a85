"""The files of partitions in a listing, and unexpected files that belong to no partition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from lake import paths
from lake.storage import Storage, StoredFile, not_regular_error
from schemas.errors import BadInputError, MeterlakeError, StorageError


def part_files(storage: Storage, folder: str) -> dict[dt.date, StoredFile]:
    """Return the `part.parquet` of each date in a meter's folder of such files, in order of the dates.

    Anything else there, such as a copy, is ignored; `verify` names it. Raises BrokenLakeError where the folder of a
    date can't be listed, since its rows would be missing silently.
    """
    files = {}
    for file in storage.list(folder):
        if file.unreadable and paths.split_partition(f"{file.path}/{paths.PART}"):
            raise not_regular_error(file.path, file.unreadable)
        place = paths.split_partition(file.path)
        if place and place.file == paths.PART:
            files[place.date] = file
    return files


def by_date(files: Iterable[StoredFile]) -> tuple[dict[dt.date, list[StoredFile]], list[MeterlakeError]]:
    """Return the listed event files of one meter by date, and an error for every file that is in no partition.

    Files and folders whose names begin with `_` or `.` are other programs' and are ignored, as by Hive readers.
    """
    dates: dict[dt.date, list[StoredFile]] = {}
    unexpected: list[MeterlakeError] = []
    for file in files:
        if paths.is_hidden(file.path):
            continue
        place = paths.split_partition(file.path)
        if file.unreadable:
            unexpected.append(_unreadable(file))
        elif place and place.file.endswith(".parquet"):
            dates.setdefault(place.date, []).append(file)
        else:
            unexpected.append(
                BadInputError(
                    "stray file",
                    where=file.path,
                    expected="date=YYYY-MM-DD/<name>.parquet directly below the meter's folder",
                    found="/".join(file.path.split("/")[2:]) or file.path,
                    hint="move or remove the file; it is left where it is and not counted",
                )
            )
    return dates, unexpected


def unlisted_dates(files: Iterable[StoredFile]) -> dict[dt.date, StoredFile]:
    """Return by date the folders of dates that can't be listed, such as a link that leads nowhere.

    Raises StorageError if the folder of the whole meter can't be listed: then nothing is known of its dates.
    """
    folders = {}
    for file in (file for file in files if file.unreadable):
        if file.path.count("/") == 1:
            raise StorageError(
                "the events of this meter can't be listed",
                where=file.path,
                expected="a folder",
                found=file.unreadable,
                hint="nothing of the meter was changed; make the folder readable",
            )
        if place := paths.split_partition(f"{file.path}/x"):
            folders[place.date] = file
    return folders


def by_meter_folder(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    """Return the listed event files by the entry of `events/` that they are in: `events/meter=m/`, or a file."""
    folders: dict[str, list[StoredFile]] = {}
    for file in files:
        first, slash, _ = file.path.removeprefix(paths.EVENTS).partition("/")
        # A meter's folder that can't be listed stands for all its files.
        is_folder = slash or (file.unreadable and first.startswith("meter="))
        folders.setdefault(f"{paths.EVENTS}{first}{'/' if is_folder else ''}", []).append(file)
    return folders


def unexpected_files(folders: Mapping[str, Sequence[StoredFile]]) -> list[MeterlakeError]:
    """Return an error for each of these entries of `events/`, which belong to no defined meter."""
    return [
        BadInputError(
            "stray files in the folder of events",
            where=folder,
            expected="meter=<encoded name>/ of a meter that is defined",
            found=files[0].unreadable or f"{len(files):,} {'file' if len(files) == 1 else 'files'}",
            hint="define the meter with: meterlake meter add FILE; or move the files away; they are not counted",
        )
        for folder, files in sorted(folders.items())
        if not paths.is_hidden(folder)
    ]


def _unreadable(file: StoredFile) -> MeterlakeError:
    is_folder = paths.split_partition(f"{file.path}/x")
    return BadInputError(
        "this can't be read",
        where=file.path,
        expected="a folder" if is_folder else "a regular file with a name in UTF-8",
        found=file.unreadable,
        hint="make the folder readable; until then its events count as in the last run"
        if is_folder
        else "replace or remove it; it is left where it is and not counted",
    )
