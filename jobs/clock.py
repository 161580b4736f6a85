"""Check the date that retention counts from: with a clock that is years ahead, it would drop everything."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from lake import paths
from lake.decoding import Moment, check_moments, decode
from lake.storage import Storage
from schemas.errors import RefusedError

MAX_AHEAD = dt.timedelta(days=31)
_HINT = "nothing was dropped; set the clock, or if it is right run once with --trust-clock"


class ClockNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored result of earlier checks; both times are by the clock that was checked.

    `doubted_since` is when retention was first refused: later times are no evidence, since they may be by the same wrong
    clock. `trusted_at` is when retention last ran because somebody trusts the clock, which ends the doubt.
    """

    doubted_since: Moment | None = None
    trusted_at: Moment | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for moments that no run has written."""
        check_moments(self.doubted_since, self.trusted_at)


class Evidence(NamedTuple):
    """A time that has passed, and its source."""

    at: dt.datetime
    what: str


def check_as_of(as_of: dt.date | None, started_at: dt.datetime) -> None:
    """Raise RefusedError for a date after today (UTC): events that have not expired yet would be dropped."""
    today = started_at.date()
    if as_of and as_of > today:
        raise RefusedError(
            "a date after today is refused",
            where="--as-of",
            expected=f"{today} (today, UTC) or earlier",
            found=str(as_of),
            hint="nothing was done; to see the effect of a later date: meterlake retain --dry-run --as-of DATE",
        )


def check_clock(
    storage: Storage,
    started_at: dt.datetime,
    as_of: dt.date | None = None,
    *,
    trust: bool = False,
    dry_run: bool = False,
) -> None:
    """Raise RefusedError if the date to count from is more than `MAX_AHEAD` ahead of all evidence from before this run.

    Evidence is the date of the storage's server, if it has one, else the reports of runs, or the times of landed files
    and events. After a refused run, later times are no evidence until a run with `trust`, which is valid as long as
    retention runs every month. The result is stored in the lake, unless in a `dry_run`.
    """
    moment = started_at
    if as_of and as_of < started_at.date():
        moment = dt.datetime.combine(as_of + dt.timedelta(days=1), dt.time(), dt.UTC)
    server = storage.server_time()
    if server and moment - server <= MAX_AHEAD and not trust:
        return
    note = _read_note(storage)
    if server:
        found = _behind(moment, Evidence(server, "the storage's server"))
    else:
        found = _behind(moment, _latest(storage, started_at, note)) or _behind(
            moment, _disk_time(storage, dry_run=dry_run)
        )
    trusted = trust or bool(found and note.trusted_at and moment - note.trusted_at <= MAX_AHEAD)
    concluded = ClockNote(trusted_at=moment) if trusted else note
    if found and not trusted:
        since = min(note.doubted_since or started_at, started_at)
        concluded = ClockNote(doubted_since=since, trusted_at=note.trusted_at)
    if concluded != note and not dry_run:
        storage.publish(paths.CLOCK, msgspec.json.encode(concluded))
    if found and not trusted:
        raise RefusedError(
            "this machine's clock is too far ahead for retention",
            where=storage.url,
            expected=f"at most {MAX_AHEAD.days} days after {found.at:%Y-%m-%d %H:%M} UTC, the time of {found.what}",
            found=f"{moment:%Y-%m-%d %H:%M} UTC",
            hint=_HINT,
        )


def _behind(moment: dt.datetime, latest: Evidence | None) -> Evidence | None:
    """Return the evidence if the moment is too far ahead of it, else None."""
    return latest if latest and moment - latest.at > MAX_AHEAD else None


def _latest(storage: Storage, started_at: dt.datetime, note: ClockNote) -> Evidence | None:
    """Return the latest time in the lake from before this run, and before the first refused one."""
    before = min(started_at, note.doubted_since or started_at)
    latest = max((each for each in _runs(storage) if each.at < before), default=None)
    if latest and started_at - latest.at <= MAX_AHEAD:
        return latest
    # At least one request for each file, which is needed only if no job ran for a month.
    return max((each for each in (latest, *_files(storage)) if each and each.at < before), default=None)


def _runs(storage: Storage) -> Iterator[Evidence]:
    for file in storage.list(paths.RUNS):
        if run := paths.split_run(file.path):
            yield Evidence(run[0], file.path)


def _files(storage: Storage) -> Iterator[Evidence]:
    for file in [*storage.list(paths.LANDED), *storage.list(paths.EVENTS)]:
        if modified := storage.modified(file.path):
            yield Evidence(modified, file.path)


def _disk_time(storage: Storage, *, dry_run: bool) -> Evidence:
    """Return the time of a file that is written now: a network disk has its own clock. A dry run writes elsewhere."""
    folder = None if dry_run else storage.scratch("").parent
    with tempfile.TemporaryFile(dir=folder) as file:
        modified = os.fstat(file.fileno()).st_mtime
    return Evidence(dt.datetime.fromtimestamp(modified, dt.UTC), "a file written just now")


def _read_note(storage: Storage) -> ClockNote:
    body = storage.read(paths.CLOCK)
    if body is None:
        return ClockNote()
    return decode(body, ClockNote, "not a note about clocks", where=paths.CLOCK, hint="remove the file")
