"""Tables, bars and lines that fit a screen of any width, with any names in them; numbers are never cut."""

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
# Greatest and least length of a bar; a shorter one shows nothing, so bars are dropped before numbers.
BAR_CHARS = 24
SHORTEST_BAR_CHARS = 6
# Names are shortened to this length to make room for a bar, and to this length at most; then rows are stacked.
NAME_CHARS = 24
SHORTEST_NAME_CHARS = 8
NUMBER = re.compile(r"(-?[\d,]+)(\.\d+)?")
# Keeps a number and its unit together while lines are broken; `plain` removes such a character from texts.
NUMBER_AND_WORD, TIED = re.compile(r"(?<=\d) (?=\w)"), "\0"
LEVELS, ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
KINDS: dict[str, Kind] = {">": "number", "=": "fixed", "|": "bar"}
FIRST_STRONG_ISOLATE, POP_ISOLATE = "\u2068", "\u2069"

Kind = Literal["text", "number", "fixed", "bar"]


class Share(NamedTuple):
    """A cell of a bar column: its length as a part of the longest bar, from 0 to 1."""

    of_longest: float


class Table:
    """Rows below headings, without lines; on a screen that is too narrow, the cells of a row one below the other.

    A heading that begins with `>` is for numbers, aligned on the decimal point; with `=` for text that is never
    shortened, such as dates; with `|` for bars. Other text is shortened in its middle, or with `fold` continued in
    the next line.
    """

    def __init__(self, *headings: str, fold: bool = False) -> None:
        """Define the columns."""
        self.kinds: list[Kind] = [KINDS.get(heading[:1], "text") for heading in headings]
        self.headings = [heading.lstrip(">=|") for heading in headings]
        self.fold = fold
        self.rows: list[list[str | float]] = []

    def add(self, *cells: object) -> None:
        """Add one row; whole numbers get commas, and missing cells at the end are empty."""
        self.rows.append([*map(_cell, cells), *[""] * (len(self.headings) - len(cells))])

    def print(self, console: Console) -> None:
        """Print the table, within the console's width if possible."""
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
        """Return the cells as this console can show them, numbers aligned."""
        columns = []
        for kind, cells in zip(self.kinds, zip(*self.rows, strict=True), strict=False):
            texts = [cell if isinstance(cell, float) else shown(cell, console) for cell in cells]
            columns.append(_aligned(texts) if kind == "number" else texts)
        return [list(row) for row in zip(*columns, strict=True)]

    def _widths(self, texts: Sequence[Sequence[str | float]], screen: int) -> list[int] | None:
        """Return the width of each column, 0 for a dropped one; None if a row does not fit into a line."""
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
        """Yield every row as lines of heading and cell."""
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
                    # Alone in its line, a number has the whole width.
                    yield heading
                    yield text


def line(console: Console, text: str = "") -> None:
    """Print one line of any length, for instance with a path to copy; line ends in it are escaped."""
    console.print(Text(shown(text, console)), soft_wrap=True)


def prose(console: Console, text: str, indent: str = "") -> None:
    """Print text, broken between words at the width of the screen; indented from the second line on."""
    safe = shown(text, console)
    line_ = " " * (len(safe) - len(safe.lstrip()))
    indent = indent or line_
    for word in _words(safe, console.width - len(indent)):
        longer = f"{line_}{word}" if not line_.strip() else f"{line_} {word}"
        if cell_len(longer) > console.width and line_.strip():
            console.print(Text(line_), soft_wrap=True)
            longer = indent + word
        line_ = longer
    console.print(Text(line_), soft_wrap=True)


def heading(console: Console, text: str) -> None:
    """Print an empty line and a heading."""
    console.print()
    console.print(Text(shortened(shown(text, console), console.width, console), "bold"), soft_wrap=True)


def shown(text: str, console: Console) -> str:
    """Return the text as the console can show it: control characters, and those its encoding lacks, are escaped."""
    return plain(text).encode(console.encoding, "backslashreplace").decode(console.encoding)


def shortened(text: str, width: int, console: Console) -> str:
    """Return the text, or as much of its start and end as fits around an ellipsis: names often differ at the end."""
    if cell_len(text) <= width:
        return text
    ellipsis = "..." if console.options.ascii_only else "…"
    if width <= len(ellipsis):
        return ellipsis[:width]
    last = (width - len(ellipsis)) // 2
    first = width - len(ellipsis) - last
    return _first(text, first) + ellipsis + _last(text, last)


def isolated(text: str, console: Console) -> str:
    """Return the text with marks around right-to-left text, so that a terminal does not reorder text beside it."""
    if not console.is_terminal or text.isascii():
        return text
    rightward = any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in text)
    return f"{FIRST_STRONG_ISOLATE}{text}{POP_ISOLATE}" if rightward else text


def bar(of_longest: float, width: int, console: Console) -> str:
    """Return a bar of at most `width` characters; at least one for a value above 0."""
    if of_longest <= 0 or not width:
        return ""
    return ("#" if console.options.ascii_only else "█") * max(1, round(of_longest * width))


def shares(values: Iterable[Any]) -> list[Share]:
    """Return the cells of a bar column for these values: empty for null, negative values and NaN."""
    lengths = [float(value) if value is not None and value > 0 else 0.0 for value in values]
    longest = max(lengths, default=0.0)
    return [Share(length / longest if 0 < longest < float("inf") else 0.0) for length in lengths]


def sparkline(counts: Sequence[int], console: Console) -> str:
    """Return a character for each count, higher for more; a space for 0."""
    levels = ASCII_LEVELS if console.options.ascii_only else LEVELS
    most = max(counts, default=0)
    return "".join(levels[max(0, -(-len(levels) * count // most) - 1)] if count else " " for count in counts)


def _words(text: str, room: int) -> Iterator[str]:
    """Yield the words of a text, a number with its unit as one; too long words in parts."""
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
    """Return numbers padded with spaces to the same number of decimal places; other cells unchanged."""
    texts = [str(cell) for cell in cells]
    if not all(text in {"", "-"} or NUMBER.fullmatch(text) for text in texts):
        return list(texts)
    behind = [len(text) - text.index(".") if "." in text else 0 for text in texts]
    return [text + " " * (max(behind) - places) for text, places in zip(texts, behind, strict=True)]


def _shrunk(natural: list[int], lowest: list[int], kinds: list[Kind], room: int) -> list[int]:
    """Return the widths with bars shortened first, then the widest names, until all columns fit."""
    widths = list(natural)
    for kind in ("bar", "text"):
        while sum(widths) > room:
            columns = [n for n in range(len(widths)) if kinds[n] == kind and widths[n] > lowest[n]]
            if not columns:
                break
            widths[max(columns, key=widths.__getitem__)] -= 1
    return widths


def _first(text: str, width: int) -> str:
    """Return as much of the start of the text as fits, never a combining mark without its letter."""
    end = 0
    for place in range(1, len(text) + 1):
        if cell_len(text[:place]) > width:
            break
        end = place
    return text[:end]


def _last(text: str, width: int) -> str:
    """Return as much of the end of the text as fits, never a combining mark without its letter."""
    start = len(text)
    for place in range(len(text) - 1, -1, -1):
        if cell_len(text[place:]) > width:
            break
        if cell_len(text[place]):
            start = place
    return text[start:]
