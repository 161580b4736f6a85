"""The settings of one command line, and how its result and its errors are printed. Imports nothing heavy."""

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
    """How a job takes the lease: whether it waits, runs without one, or takes over a broken one."""

    wait: bool = False
    none: bool = False
    take: bool = False


@dataclass
class Session:
    """The options before the command: the lake, and the form of the result."""

    url: str = DEFAULT_LAKE
    storage_options: dict[str, str] = field(default_factory=dict)
    debug: bool = False
    as_json: bool = False
    # None for a command that takes no lease.
    lease: LeaseOptions | None = None
    # The path of the running job's report, which is printed with its error.
    report_file: str | None = None

    def lake(self) -> Lake:
        """Return the lake of this command line. Raises BrokenLakeError if there is none."""
        from lake import Lake

        return Lake(self.url, self.storage_options)

    def print_result(
        self, document: Any, show: Callable[[Console], None], problems: Sequence[Mapping[str, str]] = ()
    ) -> None:
        """Print the result to stdout: the document as JSON, or for people what `show` prints.

        For people, the errors in `problems` are then printed to stderr; the document has them itself.
        """
        if self.as_json:
            write_json(document)
        else:
            write(for_people(show))
        if not self.as_json:
            print_errors(problems)

    def print_notes(self, notes: Sequence[str], hint: str) -> None:
        """Print to stderr what people should decide, unless a document has it."""
        for number, text in enumerate([] if self.as_json else notes, 1):
            print_error(text, hint if number == len(notes) else "", "note")

    def fail(self, error: BaseException) -> int:
        """Print a failure, with its traceback if asked for; return the exit code."""
        if not isinstance(error, MeterlakeError):
            from lake.storage.errors import as_storage_error, is_storage_failure

            error = as_storage_error(error, self.url) if is_storage_failure(error) else error
        if self.debug:
            print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        if isinstance(error, MeterlakeError):
            parts, exit_code = error.to_dict(), error.exit_code
            line = str(error)
        else:
            line = redacted(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "))
            parts, exit_code = {"kind": "unexpected", "what": line}, EXIT_FAILED
            parts |= {} if self.debug else {"hint": "run again with --debug, and report what it prints"}
        return self.exit_with(line, parts, exit_code)

    def exit_with(self, line: str, error: dict[str, str], exit_code: int) -> int:
        """Print why the command ends to stderr, and with --json to stdout too; return the exit code."""
        print_error(line, error.get("hint", ""))
        if self.report_file:
            print(f"report: {plain(self.report_file)}", file=sys.stderr)
        if self.as_json:
            report = {"report_file": self.report_file} if self.report_file else {}
            try:
                write_json({"error": error} | report)
            except StorageError as failure:
                print_error(str(failure))
        return exit_code


def print_error(line: str, hint: str = "", kind: str = "error") -> None:
    """Print one line to stderr, and one for the hint if there is one."""
    print(f"{kind}: {plain(redacted(line))}", file=sys.stderr)
    if hint:
        print(f"hint: {plain(redacted(hint))}", file=sys.stderr)


def print_errors(problems: Sequence[Mapping[str, str]]) -> None:
    """Print errors to stderr, a line each; a hint that the next one has too is printed only there."""
    shown = problems[:MAX_LINES]
    for number, problem in enumerate(shown, 1):
        parts = {part: problem.get(part, "") for part in ("what", "where", "expected", "found")}
        hint = problem.get("hint", "")
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
    """Formats log records, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def steady_streams() -> None:
    """Make printing safe for characters that the terminal lacks, and for streams that the caller closed."""
    # Python writes UTF-8 there too, which a terminal of that locale may not know.
    ascii_only = _locale() in {"C", "POSIX"}
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        getattr(sys, name).reconfigure(encoding="ascii" if ascii_only else None, errors="backslashreplace")


def _locale() -> str:
    """Return the locale that decides about characters; Python has set one itself if none is named."""
    return next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")
