"""Working on the next items while what the last one gave is taken, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# pyarrow and Polars leave Python free to go on. More threads would hold more in memory, and gain little.
THREADS = 2


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """What `work` gives of each item, in their order; at most `THREADS` + 1 are held. Raises what `work` raises."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
