"""Rows of tables as lines of JSON, so that they are held to the same rules as every other event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import polars as pl
import pyarrow as pa

from jobs.land.read.conflicts import find_conflicts, side_by_side
from lake.events.arrow_json import member, quoted
from schemas.errors import BadInputError
from schemas.fields import find_misnamed
from schemas.meter import Meter

FIELDS = ("idempotency_key", "subject", "meter", "quantity", "timestamp", "received_at")
REQUIRED = ("subject", "meter", "quantity")
# Each column takes kilobytes while it becomes text, however few rows there are.
COLUMNS_AT_ONCE = 256
# It checks the whole text and makes no value of it.
_JSON = msgspec.json.Decoder(msgspec.Raw)
# What readers raise of a damaged file; names in it that are not Unicode are ValueErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def check_names(columns: Sequence[str], name: str, meters: Mapping[str, Meter]) -> None:
    """Raise BadInputError if a column that an event needs is missing, one is misnamed, or one stands twice.

    The quantity may be missing in a lake with a meter whose events do not need one.
    """
    twice = [column for number, column in enumerate(columns) if column in columns[:number]]
    if twice:
        raise BadInputError(
            f"column {twice[0]!r} stands twice", where=name, expected="each column once", found="two alike"
        )
    # All meters are looked at only where a name is odd, or one is missing.
    misnamed = find_misnamed(columns) and find_misnamed(columns, _declared(meters))
    if misnamed:
        raise BadInputError(
            f"column {misnamed[0]!r} is no field of an event",
            where=name,
            expected=repr(misnamed[1]),
            found=repr(misnamed[0]),
            hint=f"did you mean {misnamed[1]!r}? rename the column",
        )
    optional = "quantity" not in columns and any(not meter.needs_quantity for meter in _readable(meters))
    required = [column for column in REQUIRED if not (optional and column == "quantity")]
    for column in required:
        if column not in columns:
            raise BadInputError(
                f"column {column!r} is missing",
                where=name,
                expected=f"columns {', '.join(required)}, and where there are: idempotency_key, timestamp, metadata",
                found=", ".join(columns)[:200] or "no columns",
            )


def _readable(meters: Mapping[str, Meter]) -> list[Meter]:
    """Return all meters that are in the mapping; one that is listed only may be broken."""
    return [meters[name] for name in meters if name in meters]


def _declared(meters: Mapping[str, Meter]) -> set[str]:
    return {dimension for meter in _readable(meters) for dimension in meter.dimension_names}


def json_lines(df: pl.DataFrame, value: Callable[[str], pl.Expr]) -> bytes:
    """Return one line of JSON for each row; `value` makes the JSON of a column that is no field of an event.

    The fields of an event are columns of text, and so is `metadata`, of JSON. Where that has a value of a further
    column, too, the columns stand beside it: in one object they would be no JSON, but so the conflict is found.
    """
    if "metadata" not in df.columns:
        return _lines(df, value)
    further = _further(df)
    metadata, twice = find_conflicts(df["metadata"], df.select(further))
    df = df.with_columns(metadata=metadata)
    lines = _lines(df, value)
    if not twice:
        return lines
    rows, columns = df.drop(further)[twice], df.select("meter", *further)[twice]
    both = zip(_lines(rows, value).split(b"\n"), _lines(columns, value).split(b"\n"), strict=True)
    return replace_lines(lines, {row: side_by_side(*pair) for row, pair in zip(twice, both, strict=True)})


def replace_lines(lines: bytes, others: Mapping[int, bytes]) -> bytes:
    """Return the lines with others in the place of some of them."""
    if not others:
        return lines
    texts = lines.split(b"\n")
    for number, text in others.items():
        texts[number] = text
    return b"\n".join(texts)


def _further(df: pl.DataFrame) -> list[str]:
    return [name for name in df.columns if name not in (*FIELDS, "metadata", "date")]


def _lines(df: pl.DataFrame, value: Callable[[str], pl.Expr]) -> bytes:
    fields = [name for name in df.columns if name in FIELDS]
    rows = df.select(*fields, metadata=_metadata(df, _further(df), value))
    # Fields are put together as text: a struct would quote the metadata, which is JSON already.
    texts = [member(name, quoted(pl.col(name))) for name in fields]
    members = pl.concat_str(
        [*texts, member("metadata", pl.col("metadata"))], separator=",", ignore_nulls=True
    )
    lines = rows.select(line=pl.concat_str(pl.lit("{"), members, pl.lit("}")))["line"]
    return "\n".join(lines.to_list()).encode()


def _metadata(df: pl.DataFrame, further: list[str], value: Callable[[str], pl.Expr]) -> pl.Expr:
    columns = _members(df, further, value)
    if "metadata" not in df.columns:
        return _object(columns)
    text = df.get_column("metadata").str.strip_chars()
    whole = pl.Series([_is_object(each) for each in text], dtype=pl.Boolean)
    # Line ends of whole JSON lie between its tokens, and would make two lines of one row.
    inner = text.set(~whole, None).str.slice(1).str.head(-1).str.replace_all(r"[\r\n]", " ")
    columns.append(pl.lit(inner.set(inner.str.strip_chars() == "", None)))
    # What is no object stays what it is, and is rejected as such.
    odd = text.set(whole | text.is_in(["", "null"]), None).alias("t")
    return pl.coalesce(quoted(pl.lit(odd)), _object(columns))


def _members(df: pl.DataFrame, columns: list[str], value: Callable[[str], pl.Expr]) -> list[pl.Expr]:
    """Return these columns as members of an object; of very many, those of a group as one text."""
    members = [member(name, value(name)) for name in columns]
    if len(members) <= COLUMNS_AT_ONCE:
        return members
    groups = [members[start : start + COLUMNS_AT_ONCE] for start in range(0, len(members), COLUMNS_AT_ONCE)]
    texts = [
        df.select(pl.concat_str(group, separator=",", ignore_nulls=True)).to_series() for group in groups
    ]
    return [pl.lit(text.set(text == "", None)) for text in texts]


def _is_object(text: str | None) -> bool:
    """Whether this is one JSON object and nothing behind it, which might pass for further fields of the event."""
    try:
        return text is not None and text.startswith("{") and _JSON.decode(text) is not None
    except (msgspec.DecodeError, RecursionError):
        return False


def _object(members: list[pl.Expr]) -> pl.Expr:
    if not members:
        return pl.lit("{}")
    inner = pl.concat_str(members, separator=",", ignore_nulls=True)
    return pl.concat_str(pl.lit("{"), inner, pl.lit("}"))


def unreadable(name: str, expected: str, error: Exception) -> BadInputError:
    """Return the error for an input that a reader refused."""
    return BadInputError(
        "could not read this input",
        where=name,
        expected=expected,
        found=(str(error) or type(error).__name__).splitlines()[0],
    )
