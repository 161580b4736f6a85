"""Lines of JSON to typed columns, by the fastest way that gives what the careful way would."""

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

# Below this, cutting a block in two costs more than reading its lines one by one.
CAREFUL_LINES = 256


def parse(lines: bytes, meters: Mapping[str, Meter]) -> Parsed:
    """The events of the lines by meter, and every other line with its reason, in order; blank lines are passed over.

    A block that is not plainly right is cut in two, so that one bad line keeps few others from the fast way. Lines of
    too many values for memory are rejected unread.
    """
    # Only so long a line can have so many.
    texts = lines.split(b"\n") if has_long_line(lines, value_limit.MAX_VALUES // 2) else []
    large = [number for number, text in enumerate(texts) if has_too_many_values(text)]
    if not large:
        return _parse(lines, meters)
    others = _parse_some(texts, sorted(set(range(len(texts))).difference(large)), meters)
    return concat([others, Parsed([], [Rejected(line, None, "too_large", TOO_MANY) for line in large])])


def _parse(lines: bytes, meters: Mapping[str, Meter]) -> Parsed:
    found = parse_by_column(lines, meters)
    # The fast way takes none with blank lines, and to search for two bytes costs a tenth of it.
    if found is None and (b"\n\n" in lines or lines.startswith(b"\n")):
        texts = lines.split(b"\n")
        return _parse_some(texts, [number for number, text in enumerate(texts) if text.strip()], meters)
    if found is None and (nested := with_nested_metadata(lines, meters)):
        lines = nested
        found = parse_by_column(lines, meters)
    found = found or parse_rest(lines, meters)
    if found is not None:
        return found
    number = lines.count(b"\n") + 1
    middle = lines.find(b"\n", len(lines) // 2)
    if number <= CAREFUL_LINES or middle < 0:
        return parse_by_line(lines, meters)
    before, after = lines[:middle], lines[middle + 1 :]
    return concat([_parse(before, meters), shift_lines(_parse(after, meters), before.count(b"\n") + 1)])


def _parse_some(texts: list[bytes], numbers: list[int], meters: Mapping[str, Meter]) -> Parsed:
    """Parse the lines of these numbers alone."""
    if not numbers:
        return Parsed([], [])
    return at_lines(_parse(b"\n".join(texts[number] for number in numbers), meters), numbers)
