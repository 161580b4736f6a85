"""One command line's settings, where its answer goes, and how its failure is told. Imports nothing heavy."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.screen.console import MAX_LINES, for_people, plain, write, write_json
from schemas.errors import MeterlakeError, StorageError
from schemas.redaction import redacted

if TYPE_CHECKING:
    from rich.console import Console

    from lake import Lake

DEFAULT_LAKE = "meterlake-data"
EXIT_FAILED = 3
LOG = logging.getLogger("meterlake")


class LeaseOptions(NamedTuple):
    """How a job takes the lake's lease: whether it waits for it, does without it, or takes over one that is broken."""

    wait: bool = False
    none: bool = False
    take: bool = False


@dataclass
class Session:
    """What a command line asked for besides its command: the lake, and how to tell the answer."""

    url: str = DEFAULT_LAKE
    storage_options: dict[str, str] = field(default_factory=dict)
    debug: bool = False
    as_json: bool = False
    # None for a command that takes no lease.
    lease: LeaseOptions | None = None
    # Where the report of the job that runs is kept, for the one who reads why it failed.
    report_file: str | None = None

    def lake(self) -> Lake:
        """The lake of this command line. Raises BrokenLakeError if there is none."""
        from lake import Lake

        return Lake(self.url, self.storage_options)

    def print_result(
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
            print_errors(problems)

    def print_notes(self, notes: Sequence[str], hint: str) -> None:
        """Tell people on stderr what they should decide; a document has it itself."""
        for number, text in enumerate([] if self.as_json else notes, 1):
            print_error(text, hint if number == len(notes) else "", "note")

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
        return self.exit_with(line, said, exit_code)

    def exit_with(self, line: str, said: dict[str, str], exit_code: int) -> int:
        """Tell on stderr why the command ends, and on stdout too where JSON was asked for."""
        print_error(line, said.get("hint", ""))
        if self.report_file:
            print(f"report: {plain(self.report_file)}", file=sys.stderr)
        if self.as_json:
            report = {"report_file": self.report_file} if self.report_file else {}
            try:
                write_json({"error": said} | report)
            except StorageError as error:
                print_error(str(error))
        return exit_code


def print_error(line: str, hint: str = "", kind: str = "error") -> None:
    """One error line on stderr, and one for the hint."""
    print(f"{kind}: {plain(redacted(line))}", file=sys.stderr)
    if hint:
        print(f"hint: {plain(redacted(hint))}", file=sys.stderr)


def print_errors(problems: Sequence[Mapping[str, str]]) -> None:
    """The problems on stderr, each as a line; a hint that the next one has too is told only there."""
    shown = problems[:MAX_LINES]
    for number, said in enumerate(shown, 1):
        parts = {part: said.get(part, "") for part in ("what", "where", "expected", "found")}
        hint = said.get("hint", "")
        again = number < len(shown) and shown[number].get("hint", "") == hint
        print_error(str(MeterlakeError(**parts)), "" if again else hint)
    if len(problems) > MAX_LINES:
        print_error(f"… and {len(problems) - MAX_LINES:,} more errors; --json has all")


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


def _locale() -> str:
    """The locale that decides which characters there are; Python has set one itself where none is named."""
    return next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")
