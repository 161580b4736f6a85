"""Works on the next items in threads while the last result is used, so that no core waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int = 1,
    small: Callable[[Item], bool] = lambda _: True,
) -> Generator[tuple[Item, Result]]:
    """Yield each item with its result of `work`, in order.

    At most `threads` + 1 items are in work or waiting, and an item that is not `small` is alone. Raises what `work`
    raises, where its result is due. pyarrow and Polars release Python's lock, so threads are enough.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                alone = not (small(item) and all(small(other) for other, _ in waiting))
                while waiting and (alone or len(waiting) > threads):
                    yield _taken(waiting)
                waiting.append((item, pool.submit(work, item)))
                # The next item is not even made beside a large one.
                while waiting and (len(waiting) > threads or not small(item)):
                    yield _taken(waiting)
            while waiting:
                yield _taken(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _taken(waiting: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    return item, future.result()
