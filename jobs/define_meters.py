"""Add and change meter definitions from files; a bad file does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lake import Lake
from lake.aggregates.ambiguity import may_be_ambiguous
from lake.meters import save_meter
from schemas.errors import BadInputError, MeterlakeError
from schemas.meter import parse_meter
from schemas.redaction import redacted

STDIN = "-"
NOTE = "meter {!r} is a gauge with dimensions and without series: where a subject has several levels, nothing says that they are added"


class Definition(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The outcome of one definition file: `added`, `changed`, `unchanged` or `refused`."""

    file: str
    outcome: str
    meter: str | None = None
    error: dict[str, str] | None = None
    note: str | None = None
    exit_code: int = 0


def define(lake: Lake, files: Sequence[str]) -> list[Definition]:
    """Add or change the meters of the files; return the outcome of each file, in their order."""
    return [_define_one(lake, file) for file in files]


def _define_one(lake: Lake, file: str) -> Definition:
    where = "standard input" if file == STDIN else redacted(file)
    name = None
    try:
        meter = parse_meter(_content(file, where), where)
        name = meter.name
        lake.upgrade()
        note = NOTE.format(name) if may_be_ambiguous(meter) else None
        return Definition(file=where, meter=name, outcome=save_meter(lake.storage, meter), note=note)
    except MeterlakeError as error:
        return Definition(
            file=where, meter=name, outcome="refused", error=error.to_dict(), exit_code=error.exit_code
        )


def _content(file: str, where: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise BadInputError(
            "could not read this file",
            where=where,
            expected="a JSON file with one meter definition",
            found=error.strerror or str(error),
        ) from error
