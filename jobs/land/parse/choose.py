"""Parse lines of JSON with the fastest parser that has the same result as the careful one."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.land.parse import value_limit
from jobs.land.parse.by_column import parse_by_column
from jobs.land.parse.by_line import parse_by_line
from jobs.land.parse.flat import with_nested_metadata
from jobs.land.parse.parsed import Parsed, Rejected, at_lines, concat, shift_lines
from jobs.land.parse.rest import parse_rest
from jobs.land.parse.value_limit import TOO_MANY, has_too_many_values
from jobs.land.read.line_batches import has_long_line
from schemas.meter import Meter

# Below this, halving a block costs more than parsing its lines one by one.
CAREFUL_LINES = 256


def parse(lines: bytes, meters: Mapping[str, Meter]) -> Parsed:
    """Return the events of the lines by meter, and the rejected lines, both in order; blank lines are skipped.

    A block that the fast parsers refuse is halved, so that one bad line slows down few others. Lines with too many
    values for memory are rejected without parsing.
    """
    # Shorter lines can't have that many.
    texts = lines.split(b"\n") if has_long_line(lines, value_limit.MAX_VALUES // 2) else []
    large = [number for number, text in enumerate(texts) if has_too_many_values(text)]
    if not large:
        return _parse(lines, meters)
    others = _parse_some(texts, sorted(set(range(len(texts))).difference(large)), meters)
    return concat([others, Parsed([], [Rejected(line, None, "too_large", TOO_MANY) for line in large])])


def _parse(lines: bytes, meters: Mapping[str, Meter]) -> Parsed:
    parsed = parse_by_column(lines, meters)
    # It refuses blank lines; searching for them first would cost a tenth of its time.
    if parsed is None and (b"\n\n" in lines or lines.startswith(b"\n")):
        texts = lines.split(b"\n")
        return _parse_some(texts, [number for number, text in enumerate(texts) if text.strip()], meters)
    if parsed is None and (nested := with_nested_metadata(lines, meters)):
        lines = nested
        parsed = parse_by_column(lines, meters)
    parsed = parsed or parse_rest(lines, meters)
    if parsed is not None:
        return parsed
    number = lines.count(b"\n") + 1
    middle = lines.find(b"\n", len(lines) // 2)
    if number <= CAREFUL_LINES or middle < 0:
        return parse_by_line(lines, meters)
    before, after = lines[:middle], lines[middle + 1 :]
    return concat([_parse(before, meters), shift_lines(_parse(after, meters), before.count(b"\n") + 1)])


def _parse_some(texts: list[bytes], numbers: list[int], meters: Mapping[str, Meter]) -> Parsed:
    """Parse only the lines of these numbers."""
    if not numbers:
        return Parsed([], [])
    return at_lines(_parse(b"\n".join(texts[number] for number in numbers), meters), numbers)
