"""The one family of errors that Meterlake raises on purpose."""

from __future__ import annotations

from typing import ClassVar

from schemas.redaction import redacted


class MeterlakeError(Exception):
    """An error that a person can act on: what happened, where, what was expected, what was found, and a hint.

    `str(error)` is one line without the hint; `exit_code` is what the command line ends with.
    """

    exit_code: ClassVar[int] = 3
    kind: ClassVar[str] = "error"

    def __init__(
        self, what: str, *, where: str = "", expected: str = "", found: str = "", hint: str = ""
    ) -> None:
        """Store each part by its name, with secrets redacted, so that reports can show them separately."""
        self.what, self.where, self.expected, self.found, self.hint = map(
            redacted, (what, where, expected, found, hint)
        )
        super().__init__(self._line())

    def _line(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        found = f"found {self.found}" if self.found else ""
        expected = f"expected {self.expected}" if self.expected else ""
        both = ", ".join(part for part in (expected, found) if part)
        return " ".join(f"{line}: {both}".split("\n")) if both else " ".join(line.split("\n"))

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython and Jupyter show for it in place of a traceback."""
        return [f"{type(self).__name__}: {self}", *([f"hint: {self.hint}"] if self.hint else [])]

    def to_dict(self) -> dict[str, str]:
        """Return the parts that are not empty, for run reports and `--json`."""
        parts = {"kind": self.kind, "what": self.what, "where": self.where}
        parts |= {"expected": self.expected, "found": self.found, "hint": self.hint}
        return {name: text for name, text in parts.items() if text}


class BadInputError(MeterlakeError):
    """A definition, a file or a row from outside is not valid."""

    exit_code = 1
    kind = "bad input"


class RefusedError(MeterlakeError):
    """A possible step is refused, since it would make a number wrong."""

    exit_code = 1
    kind = "refused"


class SumTooLargeError(RefusedError):
    """A sum exceeds decimal(38, 9), so its answer, group or date has no number."""


class DifferenceError(MeterlakeError):
    """Numbers in the lake differ from what its events add up to."""

    exit_code = 1
    kind = "difference"


class LeaseLostError(MeterlakeError):
    """The job has lost the lease of the lake, so it publishes nothing more."""

    kind = "lease lost"


class StorageError(MeterlakeError):
    """The storage below the lake failed or denied an operation."""

    kind = "storage failure"


class PathRefusedError(StorageError):
    """A path would leave the lake or go through a link; the storage itself works."""


class BrokenLakeError(MeterlakeError):
    """The lake itself is missing, incomplete or contradicts itself."""

    kind = "broken lake"
