"""Every path inside a lake, built and parsed here and nowhere else. Pure: no input or output.

All paths are relative to the lake's root and use `/`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from schemas.meter import encode_name

MARKER = "lake.json"
METERS = "meters/"
EVENTS = "events/"
AGGREGATES = "aggregates/"
QUARANTINE = "quarantine/"
INDEX = "index/"
SEALED_WINNERS = "settled/"
STATE = "state/"
# Written by earlier versions; nothing reads it.
RECENT = "recent/"
LANDED = "landed/"
RUNS = "runs/"
LEASE = "lease/"
CLOCK = f"{LEASE}clock.json"
EXPORTS = "exports/"
TEMPORARY = ".tmp/"

TABLES = ("usage", "usage_by_subject", "usage_by_dimension")
# What Hive writes for a null partition value: rows that name no meter at all.
NO_METER = "__HIVE_DEFAULT_PARTITION__"
PART = "part.parquet"
# The prefix of the names of event files that have the rows of several others.
COMPACTED = "compacted-"
# The prefix of the names of event files that `land` has written.
LANDED_EVENTS = "land-"
MANIFEST = "manifest.json"
CLOSED = "closed.json"
# The file beside the revisions that names the last of them.
LATEST = "latest.json"

_RUN = re.compile(r"runs/(?P<start>\d{8}T\d{6}\.\d{6}Z)-(?P<job>.+)\.json")
_LANDED_FILE = re.compile(LANDED_EVENTS + r"(?P<sha256>[0-9a-f]{16})-\d{4,}\.parquet")
_COMPACTED_FILE = re.compile(COMPACTED + r"[0-9a-f]{16}\.parquet")
_REVISION = re.compile(r"revision=(?P<number>\d{4,})")
# Files deeper in a revision's folder belong to its export, too.
_EXPORT = re.compile(
    rf"{EXPORTS}(?P<meter>[^/]+)/period=(?P<period>[^/]+)(?P<variant>(?:/(?!revision=)[^/]+)*)(?:/revision=.*)?"
)
_PARTITION = re.compile(
    rf"(?:{EVENTS}|{QUARANTINE}|{SEALED_WINNERS}|{AGGREGATES}(?:{'|'.join(TABLES)})/)"
    r"meter=(?P<meter>[^/]+)/date=(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
)


class Partitioned(NamedTuple):
    """The parts of a file's path in a partition of events, quarantined rows, sealed winners or an aggregate table."""

    meter: str
    date: dt.date
    file: str


class ExportPlace(NamedTuple):
    """The parts of the folder of an export's revisions: the meter, the month as text, the folders of the form."""

    meter: str
    period: str
    variant: tuple[str, ...]


def meter_definition(meter: str) -> str:
    """Return `meters/<encoded name>.json`."""
    return f"{METERS}{encode_name(meter)}.json"


def events(meter: str, date: dt.date | None = None) -> str:
    """Return the folder of a meter's raw events, or of one partition of them."""
    return f"{EVENTS}{_folder(meter, date)}"


def aggregates(table: str, meter: str, date: dt.date | None = None) -> str:
    """Return the folder of a meter's rows in one aggregate table."""
    return f"{AGGREGATES}{table}/{_folder(meter, date)}"


def aggregate(table: str, meter: str, date: dt.date) -> str:
    """Return the one file of a partition in one aggregate table."""
    return aggregates(table, meter, date) + PART


def quarantine(meter: str | None, date: dt.date | None = None) -> str:
    """Return the folder of rejected rows by landing date; `None` is for rows that name no meter."""
    if meter is None:
        return f"{QUARANTINE}meter={NO_METER}/" + (f"date={date.isoformat()}/" if date else "")
    return f"{QUARANTINE}{_folder(meter, date)}"


def indexes(meter: str) -> str:
    """Return the folder of a meter's key index."""
    return f"{INDEX}{_folder(meter, None)}"


def index(meter: str, name: str) -> str:
    """Return the file of a segment of a meter's key index; it can always be rebuilt."""
    return f"{indexes(meter)}{name}.parquet"


def sealed_winners(meter: str, date: dt.date | None = None) -> str:
    """Return the folder, or with a date the file, of sealed winners that have duplicates in open partitions."""
    return f"{SEALED_WINNERS}{_folder(meter, date)}" + (PART if date else "")


def state(meter: str) -> str:
    """Return the file of a meter's state; it can be rebuilt from the aggregates' metadata."""
    return f"{STATE}{encode_name(meter)}.json"


def landed(sha256: str) -> str:
    """Return the file of the record of one landed input, by the sha256 of its content."""
    return f"{LANDED}{sha256}.json"


def landed_files(sha256: str) -> str:
    """Return the prefix of the names of the event files of one landed input."""
    return f"{LANDED_EVENTS}{sha256[:16]}-"


def landed_file(sha256: str, number: int) -> str:
    """Return the name of one of the event files of a landed input."""
    return f"{landed_files(sha256)}{number:04}.parquet"


def landed_input(name: str) -> str | None:
    """Return the begin of the input's sha256 from the name of one of its event files; None for any other file."""
    match = _LANDED_FILE.fullmatch(name)
    return match["sha256"] if match else None


def compacted_file(fingerprint: str) -> str:
    """Return the name of the event file that replaces others, by their fingerprint."""
    return f"{COMPACTED}{fingerprint}.parquet"


def is_compacted(name: str) -> bool:
    """Return whether this is the name of an event file that replaces others."""
    return bool(_COMPACTED_FILE.fullmatch(name))


def rejected_file(fingerprint: str) -> str:
    """Return the name of the quarantine file for rows of a producer's file, by its fingerprint."""
    return f"producer-{fingerprint}.parquet"


def run(start: dt.datetime, job: str) -> str:
    """Return `runs/<start>-<job>.json`; the start sorts as text."""
    return f"{RUNS}{start:%Y%m%dT%H%M%S.%fZ}-{job}.json"


def lease(number: int) -> str:
    """Return the file of the lease of this number; the highest number counts."""
    return f"{LEASE}{number:012d}.json"


def exclusive_create_note(server: str) -> str:
    """Return the file that notes that exclusive create works on this server; it is no lease and has no number."""
    return f"{LEASE}probed/{server}.txt"


def lease_number(path: str) -> int:
    """Return the number of a lease from its path; 0 for any other file."""
    name = path.removeprefix(LEASE).removesuffix(".json")
    return int(name) if path.startswith(LEASE) and name.isdecimal() else 0


def meter_exports(meter: str) -> str:
    """Return the folder of a meter's exports."""
    return f"{EXPORTS}{encode_name(meter)}/"


def exports(meter: str, period: str, *variant: str) -> str:
    """Return the folder of a period's revisions; `variant` are the folders of a form other than the usual one."""
    return f"{meter_exports(meter)}period={period}/" + "".join(f"{part}/" for part in variant)


def export_form(folder: str) -> str:
    """Return the month and, unless it is the usual form, its options from a folder of revisions: `2026-06/by=plan`."""
    return folder.partition("period=")[2].rstrip("/")


def revision(folder: str, number: int) -> str:
    """Return the folder of one revision below a folder of revisions."""
    return f"{folder}{revision_name(number)}/"


def revision_name(number: int) -> str:
    """Return the name of a revision's folder."""
    return f"revision={number:04d}"


def latest(folder: str) -> str:
    """Return the file in a folder of revisions that names the last of them."""
    return f"{folder}{LATEST}"


def revision_number(folder: str, path: str) -> int | None:
    """Return the number of the revision that a file below a folder of revisions belongs to; None for any other file."""
    match = _REVISION.fullmatch(path.removeprefix(folder).split("/")[0])
    return int(match["number"]) if match and path.startswith(folder) else None


def split_export(path: str) -> ExportPlace | None:
    """Return the export that a file of a revision, or beside the revisions, belongs to; None for any other file."""
    return _split_export_folder(path.rpartition("/")[0])


def split_partition(path: str) -> Partitioned | None:
    """Return the meter, date and file name of a file directly in a partition's folder; None for any other file.

    A folder of the same name further down, such as a backup, is no partition, and neither is one that encodes the
    meter's name differently than this module.
    """
    folder, _, file = path.rpartition("/")
    place = _split_folder(folder)
    return Partitioned(*place, file) if place and file else None


def check_stored_names(names: Iterable[str]) -> None:
    """Raise ValueError unless these are names of files in one folder, as a stored record must have."""
    names = list(names)
    if "/" in "".join(names) or not {"", ".", ".."}.isdisjoint(names):
        wrong = next(name for name in names if "/" in name or name in {"", ".", ".."})
        raise ValueError(f"expected the name of a file, found {wrong!r}")


def check_stored_paths(stored: Iterable[str], root: str, start: str) -> None:
    """Raise ValueError unless each path in a stored record is of a file directly in a partition's folder.

    It must be below `root`, such as `EVENTS`, and its name must begin with `start`: a record may name only files of its
    own kind.
    """
    for path in stored:
        place = split_partition(path)
        if not (place and path.startswith(root) and place.file.startswith(start)):
            raise ValueError(f"expected {root}meter=…/date=…/{start}…, found {path!r}")


def is_hidden(path: str) -> bool:
    """Return whether a name in the path begins with `.` or `_`: other programs' markers and unfinished output, as in Hive."""
    return path.startswith((".", "_")) or "/." in path or "/_" in path


def split_run(path: str) -> tuple[dt.datetime, str] | None:
    """Return the start and the job of a run report's path; None for any other file."""
    match = _RUN.fullmatch(path)
    if not match:
        return None
    try:
        start = dt.datetime.fromisoformat(match["start"])
    except ValueError:
        return None
    return start, match["job"]


def meter_of_definition(path: str) -> str | None:
    """Return the meter's name from the path of its definition; None for any other file."""
    name = path.removeprefix(METERS)
    return unquote(name.removesuffix(".json")) if name.endswith(".json") and "/" not in name else None


@lru_cache(maxsize=4096)
def _split_export_folder(folder: str) -> ExportPlace | None:
    match = _EXPORT.fullmatch(folder)
    if not match or encode_name(unquote(match["meter"])) != match["meter"]:
        return None
    variant = tuple(part for part in match["variant"].split("/") if part)
    return ExportPlace(unquote(match["meter"]), match["period"], variant)


@lru_cache(maxsize=4096)
def _split_folder(folder: str) -> tuple[str, dt.date] | None:
    # A partition has up to thousands of files, so its folder is parsed once.
    match = _PARTITION.fullmatch(folder)
    if not match:
        return None
    meter = unquote(match["meter"])
    try:
        date = dt.date.fromisoformat(match["date"])
    except ValueError:
        return None
    return (meter, date) if encode_name(meter) == match["meter"] else None


def _folder(meter: str, date: dt.date | None) -> str:
    # %Y has no leading zeros for years before 1000 on every platform; isoformat has.
    return f"meter={encode_name(meter)}/" + (f"date={date.isoformat()}/" if date else "")
