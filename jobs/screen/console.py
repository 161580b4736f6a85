"""Write to the terminal, or to what replaces it: texts that are safe for it, in its width. Imports nothing heavy."""

from __future__ import annotations

import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from schemas.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

# The width of an unknown screen; and the least width, since numbers do not fit into less.
SCREEN_WIDTH, MIN_WIDTH = 80, 20
# Marks above and below one letter; more of them would reach into other lines.
MAX_MARKS = 4
# Longer lists are cut for people, and the output says so.
MAX_LINES = 20


def as_json(document: Any) -> str:
    """Return one indented JSON document; dates as ISO text."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def for_people(show: Callable[[Console], None], *, on_screen: bool = True) -> str:
    """Return what `show` prints as text; coloured only if stdout is a terminal and the text is `on_screen`."""
    # Into memory first, since rich handles a failing stdout in its own way.
    page = _Page(sys.stdout.encoding or "utf-8" if on_screen else "utf-8")
    show(console_on(page, page if not on_screen else sys.stdout))
    return "".join(f"{line.rstrip()}\n" for line in page.getvalue().splitlines())


def console_on(file: IO[str], stream: IO[str] | None = None) -> Console:
    """Return a console that writes to a file, in the width and colours of the stream that will show it."""
    from rich.console import Console

    class Steady(Console):
        """A console that survives a closed pipe: the command continues without output."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _discard_output(self.file)

    columns, _ = shutil.get_terminal_size((SCREEN_WIDTH, 0))
    # Names come from users: markup in them must not work.
    return Steady(
        file=file,
        force_terminal=(stream or file).isatty(),
        width=max(columns, MIN_WIDTH),
        markup=False,
        highlight=False,
        emoji=False,
    )


def write(text: str) -> None:
    """Write to stdout and flush. A closed pipe is no failure; raises StorageError for a full disk."""
    with _on_stdout():
        sys.stdout.write(text)
        sys.stdout.flush()


def write_bytes(content: bytes) -> None:
    """Write to stdout as `write` does, byte for byte."""
    with _on_stdout():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def replace_file(path: Path, content: bytes, what: str) -> None:
    """Replace a file of the user at once and whole. Raises StorageError that names `what` where it can't be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        # The failure that is reported is the first; where its folder is none, there is no part either.
        with suppress(OSError):
            part.unlink()
        raise StorageError(
            f"could not write {what}", where=str(path), found=error.strerror or str(error)
        ) from error


def write_json(document: Any) -> None:
    """Write a JSON document to stdout in UTF-8, whatever the encoding of the terminal."""
    write_bytes(as_json(document).encode())


def plain(text: str) -> str:
    """Return the text with control characters escaped, so that a name can't control a terminal or fake a line.

    Combining marks without a letter, or too many of them on one, are escaped too.
    """
    if text.isascii() and text.isprintable():
        return text
    safe, marks = [], MAX_MARKS
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in {"Mn", "Me"} else 0
        is_safe = character.isprintable() and marks <= MAX_MARKS
        safe.append(character if is_safe else character.encode("unicode_escape").decode())
    return "".join(safe)


class _Page(io.TextIOWrapper):
    """A buffer for text that will be written to a stream of this encoding."""

    def __init__(self, encoding: str | None) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="\n")

    def getvalue(self) -> str:
        """Return the text written so far."""
        self.seek(0)
        return self.read()


@contextmanager
def _on_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # The command's work is done. The interpreter's last flush must not fail either.
        _discard_output(sys.stdout)
    except OSError as error:
        _discard_output(sys.stdout)
        raise StorageError(
            "could not write the answer", where="standard output", found=error.strerror or str(error)
        ) from error


def _discard_output(stream: IO[str]) -> None:
    """Discard everything that is written to a stream from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
