"""Print meter definitions, verified exports and values for people; format counts, sizes and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from rich.console import Console

from jobs.define_meters import Definition
from jobs.export.verify import VerifiedRevision
from jobs.screen.table import Share, Table, line, prose, shares
from schemas.meter import Meter

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def definitions(console: Console, results: Sequence[Definition]) -> None:
    """Print one line per accepted definition file."""
    for definition in results:
        if not definition.error:
            line(console, f"{definition.outcome:<9}  {definition.meter}  ({definition.file})")


def meters(console: Console, all_meters: Sequence[Meter]) -> None:
    """Print one row per meter."""
    if not all_meters:
        prose(console, "no meters yet; define one with: meterlake meter add FILE")
        return
    table = Table("meter", "unit", "=aggregation", ">days kept", "dimensions", fold=True)
    for meter in all_meters:
        dimensions = ", ".join(meter.dimension_names)
        table.add(meter.name, meter.unit, _aggregation(meter), meter.event_retention_days, dimensions)
    table.print(console)


def meter(console: Console, definition: Meter) -> None:
    """Print one meter, with a row per dimension."""
    prose(
        console,
        f"{definition.name}: {definition.aggregation} of {definition.unit}, raw events kept for "
        f"{number(definition.event_retention_days)} days",
    )
    for text in filter(None, (definition.description, _levels(definition), _unique(definition))):
        prose(console, text)
    if not definition.dimensions:
        line(console, "no dimensions")
        return
    table = Table("dimension", "=type", "=value", "description", fold=True)
    for dimension in definition.dimensions:
        value = "deprecated" if dimension.deprecated else "required" if dimension.required else "optional"
        about = ": ".join(text for text in (dimension.display_name, dimension.description) if text)
        table.add(dimension.name, dimension.type, value, about)
    table.print(console)


def _aggregation(meter: Meter) -> str:
    """Return the aggregation with its arguments: `last by subject, workspace`, `unique_count of user`."""
    if meter.series is not None:
        return f"{meter.aggregation} by {', '.join(['subject', *meter.series])}"
    return f"{meter.aggregation} of {meter.unique}" if meter.unique else meter.aggregation


def _levels(meter: Meter) -> str:
    """Return how the levels of a gauge are added; empty for meters without series."""
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


def verified(console: Console, revisions: Sequence[VerifiedRevision]) -> None:
    """Print one line per verified revision."""
    for each in revisions:
        result = f"{len(each.problems)} wrong" if each.problems else "ok"
        of = (
            f"{each.meter} {each.period}, {each.files} files, {number(each.rows)} rows: "
            if each.meter
            else ""
        )
        line(console, f"{result:<7}  {of}{each.folder}")


def values(console: Console, dimension: str, rows: pl.DataFrame) -> None:
    """Print one row per value, the most frequent first."""
    table = Table(dimension, ">events", "|")
    bars: list[Share] = shares(rows["events"])
    for (value, events), bar in zip(rows.iter_rows(), bars, strict=True):
        table.add("(none)" if value is None else value, events, bar)
    table.print(console)


def reasons(counts: Mapping[str, int]) -> str:
    """Return counts by reason as text, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number(count)} {reason}" for reason, count in ordered)


def number(count: int) -> str:
    """Return a whole number with commas."""
    return f"{count:,}"


def counted(count: int, word: str) -> str:
    """Return a number of things: `1 row`, `1,234 rows`."""
    return f"{number(count)} {word if count == 1 else f'{word}s'}"


def size(size_bytes: int) -> str:
    """Return a size in its largest fitting unit: `999 bytes`, `8.1 kB`."""
    rest = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if rest < 1000:
            return f"{rest:.0f} {unit}" if unit == "bytes" else f"{rest:.1f} {unit}"
        rest /= 1000
    return f"{rest:,.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration in its largest fitting unit: `45 s`, `12 min`, `3.5 h`, `2 d`; negative ones too."""
    for unit_seconds, unit in UNITS:
        if abs(seconds) >= unit_seconds:
            return f"{seconds / unit_seconds:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
