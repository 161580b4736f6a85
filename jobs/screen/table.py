"""Tables, bars and lines that fit a screen of any width, whatever the names in them; numbers are never cut."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from jobs.screen.console import plain

GAP = "  "
# A bar is as long as there is room, within these; below, it says nothing and is left away.
BAR_CHARS = 24
SHORTEST_BAR_CHARS = 6
# Names are shortened to this much for the sake of a bar, and to this much at all; then rows are stacked.
NAME_CHARS = 24
SHORTEST_NAME_CHARS = 8
NUMBER = re.compile(r"(-?[\d,]+)(\.\d+)?")
# A number and what it is of stay together; `plain` lets no such character through.
NUMBER_AND_WORD, TIED = re.compile(r"(?<=\d) (?=\w)"), "\0"
LEVELS, ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
KINDS: dict[str, Kind] = {">": "number", "=": "fixed", "|": "bar"}
FIRST_STRONG_ISOLATE, POP_ISOLATE = "\u2068", "\u2069"

Kind = Literal["text", "number", "fixed", "bar"]


class Share(NamedTuple):
    """A cell of a bar column: how much of the longest bar, from 0 to 1."""

    of_longest: float


class Table:
    """Rows below headings, without lines; on a screen too narrow for a row, its cells one below the other.

    A heading that begins with `>` is of numbers, aligned on the decimal point; with `=` of text that is never
    shortened, such as dates; with `|` of bars. Other text is shortened in its middle, or with `fold` goes on in
    the next line.
    """

    def __init__(self, *headings: str, fold: bool = False) -> None:
        """Declare the columns."""
        self.kinds: list[Kind] = [KINDS.get(heading[:1], "text") for heading in headings]
        self.headings = [heading.lstrip(">=|") for heading in headings]
        self.fold = fold
        self.rows: list[list[str | float]] = []

    def add(self, *cells: object) -> None:
        """Add one row; whole numbers get their commas, and cells that are left away are empty."""
        self.rows.append([*map(_cell, cells), *[""] * (len(self.headings) - len(cells))])

    def print(self, console: Console) -> None:
        """Print it, within the console's width where that is possible at all."""
        texts = self._texts(console)
        widths = self._widths(texts, console.width)
        if widths is None:
            for each in self._stacked(texts, console):
                console.print(Text(each), soft_wrap=True)
            return
        headings: list[str | float] = [*self.headings]
        for number, row in enumerate([headings, *texts]):
            for each in self._row(row, widths, console):
                console.print(Text(each, "" if number else "bold"), soft_wrap=True)

    def _texts(self, console: Console) -> list[list[str | float]]:
        """The cells as this console can show them, numbers aligned."""
        columns = []
        for kind, cells in zip(self.kinds, zip(*self.rows, strict=True), strict=False):
            texts = [cell if isinstance(cell, float) else shown(cell, console) for cell in cells]
            columns.append(_aligned(texts) if kind == "number" else texts)
        return [list(row) for row in zip(*columns, strict=True)]

    def _widths(self, texts: Sequence[Sequence[str | float]], screen: int) -> list[int] | None:
        """How wide each column is, 0 for one that is left away; None where a row can't be put into a line."""
        natural = [
            BAR_CHARS if kind == "bar" else max(_width(row[number]) for row in [self.headings, *texts])
            for number, kind in enumerate(self.kinds)
        ]
        without_bars = [
            0 if kind == "bar" else width for kind, width in zip(self.kinds, natural, strict=True)
        ]
        for wanted, least in (
            (natural, {"bar": SHORTEST_BAR_CHARS, "text": NAME_CHARS}),
            (without_bars, {"text": SHORTEST_NAME_CHARS}),
        ):
            lowest = [
                min(width, least.get(kind, width)) for kind, width in zip(self.kinds, wanted, strict=True)
            ]
            room = screen - len(GAP) * (sum(map(bool, wanted)) - 1)
            if sum(lowest) <= room:
                return _shrunk(wanted, lowest, self.kinds, room)
        return None

    def _row(self, row: Sequence[str | float], widths: Sequence[int], console: Console) -> Iterator[str]:
        cells = [
            self._fitted(cell, kind, width, console)
            for cell, kind, width in zip(row, self.kinds, widths, strict=True)
        ]
        for line in range(max(map(len, cells))):
            parts = []
            for lines, kind, width in zip(cells, self.kinds, widths, strict=True):
                text = lines[line] if line < len(lines) else ""
                space = " " * (width - cell_len(text))
                if width:
                    parts.append(space + text if kind == "number" else text + space)
            yield GAP.join(parts).rstrip()

    def _fitted(self, cell: str | float, kind: Kind, width: int, console: Console) -> list[str]:
        if isinstance(cell, float):
            return [bar(cell, width, console)]
        if kind == "text" and self.fold:
            return chop_cells(cell, max(1, width)) or [""]
        return [isolated(shortened(cell, width, console) if kind == "text" else cell, console)]

    def _stacked(self, texts: Sequence[Sequence[str | float]], console: Console) -> Iterator[str]:
        """Every row as lines of heading and cell."""
        label = max(map(cell_len, self.headings))
        for number, row in enumerate(texts):
            if number:
                yield ""
            for heading, kind, cell in zip(self.headings, self.kinds, row, strict=True):
                if isinstance(cell, float) or not cell.strip():
                    continue
                text = cell.strip()
                room = console.width - label - len(GAP)
                start = heading + " " * (label - cell_len(heading)) + GAP
                if kind == "text" and not self.fold:
                    yield start + isolated(shortened(text, max(room, SHORTEST_NAME_CHARS), console), console)
                elif kind == "text":
                    first, *others = chop_cells(text, max(room, SHORTEST_NAME_CHARS))
                    yield start + first
                    yield from (" " * cell_len(start) + other for other in others)
                elif cell_len(text) <= room:
                    yield start + text
                else:
                    # Alone in its line a number has all the room there is.
                    yield heading
                    yield text


def line(console: Console, text: str = "") -> None:
    """One line of any length, such as one with a path that may be copied; a name in it can't make lines of its own."""
    console.print(Text(shown(text, console)), soft_wrap=True)


def prose(console: Console, text: str, indent: str = "") -> None:
    """Words, broken between them where the screen ends; indented from the second line on."""
    said = shown(text, console)
    line_ = " " * (len(said) - len(said.lstrip()))
    indent = indent or line_
    for word in _words(said, console.width - len(indent)):
        longer = f"{line_}{word}" if not line_.strip() else f"{line_} {word}"
        if cell_len(longer) > console.width and line_.strip():
            console.print(Text(line_), soft_wrap=True)
            longer = indent + word
        line_ = longer
    console.print(Text(line_), soft_wrap=True)


def heading(console: Console, text: str) -> None:
    """An empty line, and a heading."""
    console.print()
    console.print(Text(shortened(shown(text, console), console.width, console), "bold"), soft_wrap=True)


def shown(text: str, console: Console) -> str:
    """The text as the console can show it: no control characters, and escapes for what its encoding lacks."""
    return plain(text).encode(console.encoding, "backslashreplace").decode(console.encoding)


def shortened(text: str, width: int, console: Console) -> str:
    """The text, or as much of its begin and end as fits, with an ellipsis between: names often differ at the end."""
    if cell_len(text) <= width:
        return text
    ellipsis = "..." if console.options.ascii_only else "…"
    if width <= len(ellipsis):
        return ellipsis[:width]
    last = (width - len(ellipsis)) // 2
    first = width - len(ellipsis) - last
    return _first(text, first) + ellipsis + _last(text, last)


def isolated(text: str, console: Console) -> str:
    """The text so that a terminal that reorders right-to-left text does not reorder what stands beside it."""
    if not console.is_terminal or text.isascii():
        return text
    rightward = any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in text)
    return f"{FIRST_STRONG_ISOLATE}{text}{POP_ISOLATE}" if rightward else text


def bar(of_longest: float, width: int, console: Console) -> str:
    """A bar of at most `width` characters; at least one for what is more than nothing."""
    if of_longest <= 0 or not width:
        return ""
    return ("#" if console.options.ascii_only else "█") * max(1, round(of_longest * width))


def shares(values: Iterable[Any]) -> list[Share]:
    """The cells of a bar column for these values: nothing for null, for what is below zero and what is no number."""
    found = [float(value) if value is not None and value > 0 else 0.0 for value in values]
    longest = max(found, default=0.0)
    return [Share(value / longest if 0 < longest < float("inf") else 0.0) for value in found]


def sparkline(counts: Sequence[int], console: Console) -> str:
    """A character for each count, the higher the more; an empty place for none."""
    levels = ASCII_LEVELS if console.options.ascii_only else LEVELS
    most = max(counts, default=0)
    return "".join(levels[max(0, -(-len(levels) * count // most) - 1)] if count else " " for count in counts)


def _words(text: str, room: int) -> Iterator[str]:
    """The words of a text, a number and what it is of as one; one that no line has room for in parts."""
    for word in NUMBER_AND_WORD.sub(TIED, text).split(" "):
        if word:
            yield from chop_cells(word.replace(TIED, " "), max(1, room))


def _cell(cell: object) -> str | float:
    if isinstance(cell, Share):
        return float(cell.of_longest)
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _width(cell: str | float) -> int:
    return 0 if isinstance(cell, float) else cell_len(cell)


def _aligned(cells: list[str | float]) -> list[str | float]:
    """Numbers with as many places behind the decimal point as the longest, in spaces; if all of them are numbers."""
    texts = [str(cell) for cell in cells]
    if not all(text in {"", "-"} or NUMBER.fullmatch(text) for text in texts):
        return list(texts)
    behind = [len(text) - text.index(".") if "." in text else 0 for text in texts]
    return [text + " " * (max(behind) - places) for text, places in zip(texts, behind, strict=True)]


def _shrunk(natural: list[int], lowest: list[int], kinds: list[Kind], room: int) -> list[int]:
    """The widths with bars shortened first, and then the widest names, until all have room."""
    widths = list(natural)
    for kind in ("bar", "text"):
        while sum(widths) > room:
            columns = [n for n in range(len(widths)) if kinds[n] == kind and widths[n] > lowest[n]]
            if not columns:
                break
            widths[max(columns, key=widths.__getitem__)] -= 1
    return widths


def _first(text: str, width: int) -> str:
    """As much of the text's begin as fits, never a mark without its letter."""
    end = 0
    for place in range(1, len(text) + 1):
        if cell_len(text[:place]) > width:
            break
        end = place
    return text[:end]


def _last(text: str, width: int) -> str:
    """As much of the text's end as fits, never a mark without its letter."""
    start = len(text)
    for place in range(len(text) - 1, -1, -1):
        if cell_len(text[place:]) > width:
            break
        if cell_len(text[place]):
            start = place
    return text[start:]
