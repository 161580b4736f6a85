"""One command line's settings, where its answer goes, and how its failure is told. Imports nothing heavy."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from schemas.errors import MeterlakeError, StorageError
from schemas.redaction import redacted

if TYPE_CHECKING:
    from rich.console import Console

    from lake import Lake

DEFAULT_LAKE = "meterlake-data"
EXIT_FAILED = 3
# Where nobody says how wide the screen is; and what no number fits into is taken for wider.
SCREEN_WIDTH, MIN_WIDTH = 80, 20
# Of marks above and below one letter; more of them would reach into other lines.
MAX_MARKS = 4
# Longer lists are cut for people, which is always said.
MAX_LINES = 20
LOG = logging.getLogger("meterlake")


@dataclass
class Session:
    """What a command line asked for besides its command: the lake, and how to tell the answer."""

    url: str = DEFAULT_LAKE
    storage_options: dict[str, str] = field(default_factory=dict)
    debug: bool = False
    as_json: bool = False
    # Where the report of the job that runs is kept, for the one who reads why it failed.
    report_file: str | None = None

    def lake(self) -> Lake:
        """The lake of this command line. Raises BrokenLakeError if there is none."""
        from lake import Lake

        return Lake(self.url, self.storage_options)

    def answer(
        self, document: Any, show: Callable[[Console], None], problems: Sequence[Mapping[str, str]] = ()
    ) -> None:
        """Write the answer to stdout: the document as JSON, or what `show` prints for people.

        People are then told the problems on stderr; the document has them itself.
        """
        if self.as_json:
            write_json(document)
        else:
            write(for_people(show))
        if not self.as_json:
            complain_of_all(problems)

    def note(self, notes: Sequence[str], hint: str) -> None:
        """Tell people on stderr what they should decide; a document has it itself."""
        for number, text in enumerate([] if self.as_json else notes, 1):
            complain(text, hint if number == len(notes) else "", "note")

    def fail(self, error: BaseException) -> int:
        """Tell a failure, the traceback only where asked for; gives the exit code."""
        if not isinstance(error, MeterlakeError):
            from lake.storage.errors import as_storage_error, is_storage_failure

            error = as_storage_error(error, self.url) if is_storage_failure(error) else error
        if self.debug:
            print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        if isinstance(error, MeterlakeError):
            said, exit_code = error.to_dict(), error.exit_code
            line = str(error)
        else:
            line = redacted(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "))
            said, exit_code = {"kind": "unexpected", "what": line}, EXIT_FAILED
            said |= {} if self.debug else {"hint": "run again with --debug, and report what it prints"}
        return self.refuse(line, said, exit_code)

    def refuse(self, line: str, said: dict[str, str], exit_code: int) -> int:
        """Tell on stderr why the command ends, and on stdout too where JSON was asked for."""
        complain(line, said.get("hint", ""))
        if self.report_file:
            print(f"report: {plain(self.report_file)}", file=sys.stderr)
        if self.as_json:
            report = {"report_file": self.report_file} if self.report_file else {}
            try:
                write_json({"error": said} | report)
            except StorageError as error:
                complain(str(error))
        return exit_code


def complain(line: str, hint: str = "", kind: str = "error") -> None:
    """One error line on stderr, and one for the hint."""
    print(f"{kind}: {plain(redacted(line))}", file=sys.stderr)
    if hint:
        print(f"hint: {plain(redacted(hint))}", file=sys.stderr)


def complain_of_all(problems: Sequence[Mapping[str, str]]) -> None:
    """The problems on stderr, each as a line; a hint that the next one has too is told only there."""
    shown = problems[:MAX_LINES]
    for number, said in enumerate(shown, 1):
        parts = {part: said.get(part, "") for part in ("what", "where", "expected", "found")}
        hint = said.get("hint", "")
        again = number < len(shown) and shown[number].get("hint", "") == hint
        complain(str(MeterlakeError(**parts)), "" if again else hint)
    if len(problems) > MAX_LINES:
        complain(f"… and {len(problems) - MAX_LINES:,} more errors; --json has all")


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


def log_to_stderr() -> None:
    """Send the log to stderr as plain lines: time (UTC) and message."""
    formatter = _Redacting("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    LOG.handlers = [handler]
    LOG.setLevel(logging.INFO)


class _Redacting(logging.Formatter):
    """What is logged, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def steady_streams() -> None:
    """Make sure that printing can't fail for its characters, or for a stream that the caller has closed."""
    # Python writes UTF-8 there too, which a terminal of that locale may not know.
    ascii_only = _locale() in {"C", "POSIX"}
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        getattr(sys, name).reconfigure(encoding="ascii" if ascii_only else None, errors="backslashreplace")


class _Page(io.TextIOWrapper):
    """What is going to be written to a stream of this encoding."""

    def __init__(self, encoding: str | None) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="\n")

    def getvalue(self) -> str:
        """What has been written."""
        self.seek(0)
        return self.read()


def _locale() -> str:
    """The locale that decides which characters there are; Python has set one itself where none is named."""
    return next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")


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
