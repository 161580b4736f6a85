"""What people see of meter definitions, checked exports and values, and how counts, sizes and times are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from rich.console import Console

from jobs.define_meters import Definition
from jobs.export.verify import VerifiedRevision
from jobs.screen.table import Share, Table, line, prose, shares
from schemas.meter import Meter

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def definitions(console: Console, found: Sequence[Definition]) -> None:
    """One line per definition file that was taken."""
    for definition in found:
        if not definition.error:
            line(console, f"{definition.outcome:<9}  {definition.meter}  ({definition.file})")


def meters(console: Console, found: Sequence[Meter]) -> None:
    """One row per meter."""
    if not found:
        prose(console, "no meters yet; define one with: meterlake meter add FILE")
        return
    table = Table("meter", "unit", "=aggregation", ">days kept", "dimensions", fold=True)
    for meter in found:
        dimensions = ", ".join(meter.dimension_names)
        table.add(meter.name, meter.unit, _aggregation(meter), meter.event_retention_days, dimensions)
    table.print(console)


def meter(console: Console, found: Meter) -> None:
    """One meter, with a row per dimension."""
    prose(
        console,
        f"{found.name}: {found.aggregation} of {found.unit}, raw events kept for "
        f"{number(found.event_retention_days)} days",
    )
    for said in filter(None, (found.description, _levels(found), _unique(found))):
        prose(console, said)
    if not found.dimensions:
        line(console, "no dimensions")
        return
    table = Table("dimension", "=type", "=value", "description", fold=True)
    for dimension in found.dimensions:
        value = "deprecated" if dimension.deprecated else "required" if dimension.required else "optional"
        said = ": ".join(text for text in (dimension.display_name, dimension.description) if text)
        table.add(dimension.name, dimension.type, value, said)
    table.print(console)


def _aggregation(meter: Meter) -> str:
    """The aggregation, and of what: `last by subject, workspace`, `unique_count of user`."""
    if meter.series is not None:
        return f"{meter.aggregation} by {', '.join(['subject', *meter.series])}"
    return f"{meter.aggregation} of {meter.unique}" if meter.unique else meter.aggregation


def _levels(meter: Meter) -> str:
    """How the levels of a gauge are added up; empty for other meters."""
    if meter.series is None:
        return ""
    carried = (
        f"; a silent one keeps its last level for {counted(meter.carry_days, 'day')}"
        if meter.carry_days
        else ""
    )
    return f"series: {' and '.join(['subject', *meter.series])}, whose levels are added{carried}"


def _unique(meter: Meter) -> str:
    return f"unique: the distinct values of {meter.unique} are counted" if meter.unique else ""


def verified(console: Console, found: Sequence[VerifiedRevision]) -> None:
    """One line per revision that was checked."""
    for each in found:
        result = f"{len(each.problems)} wrong" if each.problems else "ok"
        of = (
            f"{each.meter} {each.period}, {each.files} files, {number(each.rows)} rows: "
            if each.meter
            else ""
        )
        line(console, f"{result:<7}  {of}{each.folder}")


def values(console: Console, dimension: str, found: pl.DataFrame) -> None:
    """One row per value, the most frequent first."""
    table = Table(dimension, ">events", "|")
    bars: list[Share] = shares(found["events"])
    for (value, events), bar in zip(found.iter_rows(), bars, strict=True):
        table.add("(none)" if value is None else value, events, bar)
    table.print(console)


def reasons(counts: Mapping[str, int]) -> str:
    """Counts by reason, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number(count)} {reason}" for reason, count in ordered)


def number(count: int) -> str:
    """A whole number with its commas."""
    return f"{count:,}"


def counted(count: int, word: str) -> str:
    """A whole number of things."""
    return f"{number(count)} {word if count == 1 else f'{word}s'}"


def size(size_bytes: int) -> str:
    """A size in its largest fitting unit: `999 bytes`, `8.1 kB`."""
    rest = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if rest < 1000:
            return f"{rest:.0f} {unit}" if unit == "bytes" else f"{rest:.1f} {unit}"
        rest /= 1000
    return f"{rest:,.1f} TB"


def duration(seconds: float) -> str:
    """A span of time in its largest fitting unit: `45 s`, `12 min`, `3.5 h`, `2 d`; negative ones too."""
    for unit_seconds, unit in UNITS:
        if abs(seconds) >= unit_seconds:
            return f"{seconds / unit_seconds:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
