"""Progress: nothing for short work, lines where nobody watches, a bar where somebody does."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from jobs import progress
from jobs.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_through_and_short_work_says_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    with caplog.at_level(logging.INFO, "meterlake"):
        assert list(track(range(5), "count")) == [0, 1, 2, 3, 4]
    assert caplog.text == ""


def test_long_work_says_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(0, 1_000, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(moments)))
    with caplog.at_level(logging.INFO, "meterlake"):
        list(track(range(20), "count"))
        list(track(iter(range(20)), "stream"))
    assert "count: 1 of 20 after" in caplog.text
    assert "stream: 1 of ? after" in caplog.text
    assert 2 < len(caplog.records) < 40


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track([1, 2, 3], "count")) == [1, 2, 3]
    assert "count" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
