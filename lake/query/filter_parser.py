r"""The filter language of `query`: a hand-written recursive-descent parser that returns a Polars expression.

    expression = conjunction { "or" conjunction }
    conjunction = condition { "and" condition }
    condition  = "not" condition | "(" expression ")" | test
    test       = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field [ "not" ] "in" "(" value { "," value } ")"
               | field "is" [ "not" ] "null"
    value      = text in single or double quotes | number | "true" | "false"

Keywords are not case-sensitive; fields are. A field whose name is a keyword stands in backticks. In quoted text a
backslash escapes: `\'`, `\"`, `\\`, `\n`, `\r`, `\t`, `\uXXXX`. A test of a null is neither true nor false, as in
SQL: neither `plan = 'x'` nor `not plan = 'x'` keeps an event that has no plan; `plan is null` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import polars as pl

from schemas.columns import QUANTITY
from schemas.errors import BadInputError

MAX_DEPTH = 100
KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "true", "false"})
ORDERED = {"<": pl.Expr.__lt__, "<=": pl.Expr.__le__, ">": pl.Expr.__gt__, ">=": pl.Expr.__ge__}
COMPARISONS = {"=": pl.Expr.__eq__, "==": pl.Expr.__eq__, "!=": pl.Expr.__ne__, **ORDERED}

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<quoted>`[^`]+`)
    | (?P<operator><=|>=|!=|==|=|<|>|\(|\)|,)
    | (?P<word>[+.\w-]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}
_KINDS = {pl.String(): "text in quotes", pl.Boolean(): "true or false"}


class Filter(NamedTuple):
    """A condition on rows, and the fields that it uses."""

    expression: pl.Expr
    fields: frozenset[str]


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse_filter(text: str, fields: Mapping[str, pl.DataType]) -> Filter:
    """Return the condition of a filter's text on these fields.

    Raises BadInputError that names the place (characters, from 1), what was expected and what was found: for wrong
    syntax, an unknown field (listing the known ones), or a value of another type than its field.
    """
    return _Parser(text, fields).parse()


class _Parser:
    """One pass over the tokens of one text."""

    def __init__(self, text: str, fields: Mapping[str, pl.DataType]) -> None:
        self._source = text
        self._known = fields
        self._tokens = self._split()
        self._next = 0
        self._depth = 0
        self._used: set[str] = set()

    def parse(self) -> Filter:
        """Return the whole text as one condition."""
        expression = self._expression()
        if self._peek().kind != "end":
            raise self._wrong("and, or, or the end of the filter")
        return Filter(expression, frozenset(self._used))

    def _expression(self) -> pl.Expr:
        parts = [self._conjunction()]
        while self._keyword("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else pl.any_horizontal(parts)

    def _conjunction(self) -> pl.Expr:
        parts = [self._condition()]
        while self._keyword("and"):
            parts.append(self._condition())
        return parts[0] if len(parts) == 1 else pl.all_horizontal(parts)

    def _condition(self) -> pl.Expr:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"at most {MAX_DEPTH} nested conditions")
        if self._keyword("not"):
            condition = ~self._condition()
        elif self._operator("("):
            condition = self._expression()
            self._expect(")", "and, or, or a closing parenthesis")
        else:
            condition = self._test()
        self._depth -= 1
        return condition

    def _test(self) -> pl.Expr:
        name = self._field()
        field = pl.col(name)
        if self._keyword("is"):
            negated = self._keyword("not")
            if not self._keyword("null"):
                raise self._wrong("null")
            return field.is_not_null() if negated else field.is_null()
        negated = self._keyword("not")
        if self._keyword("in"):
            among = field.is_in(pl.Series(self._list(name), dtype=self._known[name]).implode())
            return ~among if negated else among
        if negated:
            raise self._wrong("in")
        return self._comparison(name)

    def _comparison(self, name: str) -> pl.Expr:
        token = self._peek()
        if token.kind != "operator" or token.text not in COMPARISONS:
            raise self._wrong("a comparison (= != < <= > >=), in, not in, is null, or is not null")
        if token.text in ORDERED and self._known[name] == pl.Boolean():
            raise self._wrong("= or !=, since true and false have no order")
        self._next += 1
        value = pl.lit(self._value(name), dtype=self._known[name])
        return COMPARISONS[token.text](pl.col(name), value)

    def _list(self, name: str) -> list[object]:
        self._expect("(", "values in parentheses")
        values = [self._value(name)]
        while self._operator(","):
            values.append(self._value(name))
        self._expect(")", "a comma or a closing parenthesis")
        return values

    def _field(self) -> str:
        token = self._peek()
        bare = token.kind == "word" and token.text.lower() not in KEYWORDS
        name = token.text[1:-1] if token.kind == "quoted" else token.text
        if not bare and token.kind != "quoted":
            raise self._wrong("a field")
        if name not in self._known:
            raise self._wrong(f"a field: one of {', '.join(self._known)}")
        self._next += 1
        self._used.add(name)
        return name

    def _value(self, name: str) -> object:
        """Return the next token as a value of the field's type."""
        dtype = self._known[name]
        token = self._peek()
        expected = f"{_KINDS.get(dtype, 'a number')}, as {name} is"
        if token.kind == "word" and token.text.lower() == "null":
            raise self._wrong(f"{expected}; for no value at all write: {name} is null")
        value: object = None
        if dtype == pl.String():
            value = self._unescaped(token) if token.kind == "text" else None
        elif dtype == pl.Boolean():
            value = {"true": True, "false": False}.get(token.text.lower()) if token.kind == "word" else None
        elif token.kind == "word" and NUMBER.fullmatch(token.text):
            value = _number(token.text, dtype)
            exact = dtype == QUANTITY
            expected = "at most 29 digits before the point and 9 after it" if exact else "a finite number"
        if value is None:
            raise self._wrong(expected)
        self._next += 1
        return value

    def _unescaped(self, token: _Token) -> str:
        def unescape(match: re.Match[str]) -> str:
            escape = match[1]
            if escape.startswith("u") and len(escape) == 5 and not 0xD800 <= int(escape[1:], 16) <= 0xDFFF:
                return chr(int(escape[1:], 16))
            if escape not in _ESCAPES:
                raise self._error(
                    "the escapes \\' \\\" \\\\ \\n \\r \\t \\uXXXX", match[0], token.at + match.start() + 1
                )
            return _ESCAPES[escape]

        return _ESCAPE.sub(unescape, token.text[1:-1])

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _keyword(self, word: str) -> bool:
        """Consume the next token if it is this keyword; return whether it was."""
        token = self._peek()
        is_next = token.kind == "word" and token.text.lower() == word
        self._next += is_next
        return is_next

    def _operator(self, sign: str) -> bool:
        """Consume the next token if it is this sign; return whether it was."""
        is_next = self._peek()[:2] == ("operator", sign)
        self._next += is_next
        return is_next

    def _expect(self, sign: str, what: str) -> None:
        if not self._operator(sign):
            raise self._wrong(what)

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        end = len(self._source.rstrip())
        while at < end:
            match = _TOKEN.match(self._source, at)
            if match is None or match.lastgroup is None:
                rest = self._source[at:].lstrip()
                expected = "a closing quote" if rest[0] in "'\"`" else "a field, a value or an operator"
                raise self._error(expected, rest, len(self._source) - len(rest))
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            at = match.end()
        return [*tokens, _Token("end", "", end)]

    def _wrong(self, expected: str) -> BadInputError:
        token = self._peek()
        return self._error(expected, token.text, token.at)

    def _error(self, expected: str, found: str, at: int) -> BadInputError:
        shown = found if len(found) <= 40 else f"{found[:40]}…"
        return BadInputError(
            f"the filter is wrong at character {at + 1}",
            where=f"filter {self._source!r}" if len(self._source) <= 200 else "filter",
            expected=expected,
            found=repr(shown) if found else "its end",
            hint="a filter is like: plan = 'pro' and (seats >= 10 or not region in ('eu', 'us'))",
        )


def _number(text: str, dtype: pl.DataType) -> object:
    """Return a number for a column of this type; None where the type can't hold it exactly, or at all."""
    if dtype != QUANTITY:
        number = float(text)
        return number if math.isfinite(number) else None
    try:
        exact = Decimal(text)
    except InvalidOperation:
        # An exponent that not even a Decimal can hold.
        return None
    _, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - a number's text has no NaN or infinity
    significant = "".join(map(str, digits)).rstrip("0").lstrip("0")
    if not significant:
        return Decimal(0)
    whole_digits = exact.adjusted() + 1
    fits = whole_digits <= 29 and len(significant) - whole_digits <= 9
    return exact if fits else None
