"""Working ahead: in order, with bounds on what is held, and with every exception."""

from __future__ import annotations

import threading
import time

import pytest

from lake.concurrency import map_ahead


def test_results_come_in_order_however_long_each_takes() -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number * number

    assert [*map_ahead(work, range(20), threads=3)] == [(number, number * number) for number in range(20)]


def test_the_next_is_worked_on_while_one_is_used() -> None:
    begun = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            begun.set()

    results = map_ahead(work, range(3))
    next(results)
    assert begun.wait(10)
    results.close()


def test_what_is_large_is_held_alone() -> None:
    held: list[int] = []
    most: list[tuple[int, ...]] = []

    def work(number: int) -> None:
        held.append(number)
        most.append(tuple(held))

    for number, _ in map_ahead(work, range(6), small=lambda number: number != 3):
        held.remove(number)
    assert all(3 not in together or together == (3,) for together in most)


def test_an_exception_comes_where_its_result_is_due() -> None:
    def work(number: int) -> int:
        return 6 // number

    results = map_ahead(work, [3, 0, 1])
    assert next(results) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        next(results)
