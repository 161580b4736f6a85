"""Working on the next item while the one before is being used, so that no core waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, small: Callable[[Item], bool]
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order. While one is used the next is worked on, if both are small.

    `small` says whether two such fit into memory. An exception of `work` is raised where its result is due.
    """
    with ThreadPoolExecutor(max_workers=1) as worker:
        waiting: tuple[Item, Future[Result]] | None = None
        for item in items:
            if waiting and not (small(item) and small(waiting[0])):
                yield waiting[0], waiting[1].result()
                waiting = None
            following = item, worker.submit(work, item)
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], waiting[1].result()
