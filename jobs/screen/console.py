"""What a terminal, or whatever stands in its place, is given: texts that are safe for it, in its width.

Imports nothing heavy.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from schemas.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

# Where nobody says how wide the screen is; and what no number fits into is taken for wider.
SCREEN_WIDTH, MIN_WIDTH = 80, 20
# Of marks above and below one letter; more of them would reach into other lines.
MAX_MARKS = 4
# Longer lists are cut for people, which is always said.
MAX_LINES = 20


def as_json(document: Any) -> str:
    """One indented JSON document; dates as ISO text."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def for_people(show: Callable[[Console], None], *, on_screen: bool = True) -> str:
    """What `show` prints, as text; coloured only where stdout is a terminal, and not what is meant for a file."""
    # Into memory first, since rich has its own ideas of what to do when stdout fails.
    page = _Page(sys.stdout.encoding or "utf-8" if on_screen else "utf-8")
    show(console_on(page, page if not on_screen else sys.stdout))
    return "".join(f"{line.rstrip()}\n" for line in page.getvalue().splitlines())


def console_on(file: IO[str], stream: IO[str] | None = None) -> Console:
    """A console that writes to a file what a stream (default the same) will show: in its width, coloured or not."""
    from rich.console import Console

    class Steady(Console):
        """A console whose reader may leave: what the command does goes on, unseen."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _unread(self.file)

    columns, _ = shutil.get_terminal_size((SCREEN_WIDTH, 0))
    # Names come from users: no markup in them is obeyed.
    return Steady(
        file=file,
        force_terminal=(stream or file).isatty(),
        width=max(columns, MIN_WIDTH),
        markup=False,
        highlight=False,
        emoji=False,
    )


def write(text: str) -> None:
    """Write to stdout now. A reader who has seen enough is no failure; a full disk is a StorageError."""
    with _on_stdout():
        sys.stdout.write(text)
        sys.stdout.flush()


def write_bytes(content: bytes) -> None:
    """Write to stdout as `write` does, byte for byte."""
    with _on_stdout():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def write_json(document: Any) -> None:
    """Write a JSON document to stdout, in UTF-8 as JSON is, whatever the encoding of the terminal."""
    write_bytes(as_json(document).encode())


def plain(text: str) -> str:
    """The text with control characters escaped, so that a name can't steer a terminal or fake a line.

    So are marks that have no letter to stand on, or pile up on one.
    """
    if text.isascii() and text.isprintable():
        return text
    said, marks = [], MAX_MARKS
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in {"Mn", "Me"} else 0
        shown = character.isprintable() and marks <= MAX_MARKS
        said.append(character if shown else character.encode("unicode_escape").decode())
    return "".join(said)


class _Page(io.TextIOWrapper):
    """What is going to be written to a stream of this encoding."""

    def __init__(self, encoding: str | None) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="\n")

    def getvalue(self) -> str:
        """What has been written."""
        self.seek(0)
        return self.read()


@contextmanager
def _on_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # What the command did is done. The interpreter's own last flush must not fail either.
        _unread(sys.stdout)
    except OSError as error:
        _unread(sys.stdout)
        raise StorageError(
            "could not write the answer", where="standard output", found=error.strerror or str(error)
        ) from error


def _unread(stream: IO[str]) -> None:
    """Send what is still written to a stream nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
