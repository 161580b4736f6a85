"""Show the progress of long work on stderr: a bar on a terminal, log lines elsewhere."""

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
    """Yield the items, and show how many of them are done."""
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
    logged_at = start + QUIET_SECONDS - LOG_EVERY_SECONDS
    for done, item in enumerate(items):
        if time.monotonic() - logged_at >= LOG_EVERY_SECONDS and done:
            logged_at = time.monotonic()
            of_total = total if total is not None else "?"
            LOG.info("%s: %d of %s after %.0f s", what, done, of_total, logged_at - start)
        yield item
