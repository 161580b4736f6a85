"""How a screen is filled: at every width and with every name, numbers stay whole and in their columns."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from jobs.screen.console import plain
from jobs.screen.table import Share, Table, bar, isolated, prose, shares, shortened, sparkline

HOSTILE = {
    "long": "a" * 400,
    "wide": "日本語" * 40,
    "emoji": "👩‍🚀🇩🇪❤️" * 20,
    "right to left": "שלום עולם " * 20,
    "override": "\u202etxt.exe",
    "combining": "e" + "\u0301" * 100,
    "mark alone": "\u0301\u0301x",
    "escape": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "lines": "a\nb\r\nc\u2028d\x85e",
    "nothing": "",
    "markup": "[bold]x[/bold] :smile:",
}
NUMBERS = ["9" * 29 + "." + "9" * 9, "0.000000001", "1", "12345678901234567890"]


def console(width: int, encoding: str = "utf-8", *, terminal: bool = False) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    return Console(file=file, width=width, force_terminal=terminal, no_color=True, color_system=None)


def printed(table: Table, to: Console) -> list[str]:
    table.print(to)
    to.file.flush()
    to.file.seek(0)
    return to.file.read().splitlines()


def table_of(name: str) -> Table:
    table = Table("=day", "name", ">quantity", ">events", "|")
    for number in NUMBERS:
        table.add("2026-06-19", name, number, 1234567, Share(0.5))
    return table


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_name_beside_any_number_at_any_width(name: str, width: int, encoding: str) -> None:
    lines = printed(table_of(name), console(width, encoding))
    assert max(map(cell_len, lines)) <= width
    shown = "\n".join(lines)
    for number in [*NUMBERS, "1,234,567", "2026-06-19"]:
        assert re.search(rf"(?m)(^|\s){re.escape(number)}($|\s)", shown), number
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_numbers_stand_on_the_decimal_point() -> None:
    table = Table("name", ">quantity", ">events")
    for name, quantity in (("a", "1000000000"), ("b", "0.5"), ("c", "482.75"), ("d", "-")):
        table.add(name, quantity, 1)
    assert printed(table, console(80)) == [
        "name       quantity  events",
        "a     1000000000          1",
        "b              0.5        1",
        "c            482.75       1",
        "d              -          1",
    ]


def test_spans_with_units_are_on_the_right() -> None:
    table = Table("name", ">late")
    for said in ("5.2 s", "12 min"):
        table.add("a", said)
    assert printed(table, console(80)) == ["name    late", "a      5.2 s", "a     12 min"]


def test_what_gives_way_on_a_narrowing_screen() -> None:
    """First the bar, then names down to 24 characters, then the bar at all, then more of the names, then the line."""

    def row(width: int) -> list[str]:
        table = Table("name", ">quantity", "|")
        table.add("n" * 20 + "x" * 20, 1234567, Share(1.0))
        return printed(table, console(width))[1:]

    assert row(80) == ["n" * 20 + "x" * 20 + "  1,234,567  " + "█" * 24]
    assert row(60) == ["n" * 20 + "x" * 20 + "  1,234,567  " + "█" * 7]
    assert row(50) == ["n" * 15 + "…" + "x" * 15 + "  1,234,567  " + "█" * 6]
    assert row(40) == ["n" * 14 + "…" + "x" * 14 + "  1,234,567"]
    assert row(20) == ["nnnn…xxxx  1,234,567"]
    assert row(18) == ["quantity", "1,234,567"]


def test_on_a_screen_for_no_row_cells_stand_one_below_the_other() -> None:
    table = Table("name", ">quantity", "|")
    for name in ("one", "two"):
        table.add(name, "9" * 29 + "." + "9" * 9, Share(1.0))
    assert printed(table, console(40)) == [
        "name      one",
        "quantity",
        "9" * 29 + "." + "9" * 9,
        "",
        "name      two",
        "quantity",
        "9" * 29 + "." + "9" * 9,
    ]


def test_a_folded_name_is_whole() -> None:
    table = Table("name", ">events", fold=True)
    table.add("abc" * 40, 7)
    lines = printed(table, console(40))
    assert "".join(line.split()[0] for line in lines[1:]) == "abc" * 40
    assert [line.endswith("  7") for line in lines[1:]] == [True, False, False, False]


def test_bars_and_marks_of_a_terminal_without_unicode() -> None:
    ascii_only = console(80, "ascii")
    assert bar(0.5, 10, ascii_only) == "#####"
    assert sparkline([0, 1, 4, 8], ascii_only) == " _-#"
    assert shortened("abcdefghij", 7, ascii_only) == "ab...ij"
    table = Table("name", "|")
    table.add("日本", Share(1.0))
    assert printed(table, ascii_only)[1] == "\\u65e5\\u672c  " + "#" * 24


def test_a_bar_shows_what_is_more_than_nothing() -> None:
    assert [bar(share, 24, console(80)) for share in (0.0, 0.0001, 1.0)] == ["", "█", "█" * 24]
    assert shares([None, 0, 2, 1, -1]) == [Share(x) for x in (0.0, 0.0, 1.0, 0.5, 0.0)]
    assert shares([]) == []


def test_right_to_left_names_leave_the_numbers_of_a_terminal_where_they_are() -> None:
    name = "שלום"
    assert isolated(name, console(80, terminal=True)) == f"\u2068{name}\u2069"
    # What is piped is for programs, which look for the name as it is.
    assert isolated(name, console(80)) == name
    assert isolated("plain", console(80, terminal=True)) == "plain"


def test_prose_is_broken_between_words_and_no_number_from_its_unit() -> None:
    to = console(20)
    prose(to, "wrote some rows, 8.1 kB, and 12 files", "  ")
    to.file.seek(0)
    assert to.file.read().splitlines() == ["wrote some rows,", "  8.1 kB, and", "  12 files"]


@given(st.text(max_size=60), st.integers(1, 30))
def test_shortening_keeps_to_the_width(text: str, width: int) -> None:
    shown = plain(text)
    short = shortened(shown, width, console(80))
    assert cell_len(short) <= width
    assert short == shown or "…" in short
    assert plain(plain(short)) == plain(short)


def test_marks_pile_up_no_higher_than_writing_does() -> None:
    assert plain("e\u0301") == "e\u0301"
    assert plain("e" + "\u0301" * 6) == "e" + "\u0301" * 4 + "\\u0301" * 2
    assert plain("\u0301x") == "\\u0301x"
