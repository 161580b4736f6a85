"""Progress of long work on stderr: a bar where that is a terminal, plain log lines where it is not."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
LOG = logging.getLogger("meterlake")
# Short work shows nothing, so that a nightly log stays short.
QUIET_SECONDS = 2.0
LOG_EVERY_SECONDS = 10.0


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass the items on, and show how many are done and how many are left."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    shown = _bar(items, what, total) if sys.stderr.isatty() else _lines(items, what, total)
    yield from shown


def _bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=what)


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    start = time.monotonic()
    said = start + QUIET_SECONDS - LOG_EVERY_SECONDS
    for done, item in enumerate(items):
        if time.monotonic() - said >= LOG_EVERY_SECONDS and done:
            said = time.monotonic()
            LOG.info(
                "%s: %d of %s after %.0f s", what, done, total if total is not None else "?", said - start
            )
        yield item
