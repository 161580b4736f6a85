"""Convert rows of tables to lines of JSON, so that the same rules apply to them as to every other event."""

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
# Each column takes kilobytes while it is converted to text, however few rows there are.
COLUMNS_AT_ONCE = 256
# Checks the whole text, and builds no value.
_JSON = msgspec.json.Decoder(msgspec.Raw)
# The errors of readers for a damaged file; names that are not Unicode are ValueErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def check_names(columns: Sequence[str], name: str, meters: Mapping[str, Meter]) -> None:
    """Raise BadInputError if a column that an event needs is missing, or if a column is misnamed or duplicated.

    The quantity may be missing in a lake with a meter whose events do not need one.
    """
    twice = [column for number, column in enumerate(columns) if column in columns[:number]]
    if twice:
        raise BadInputError(
            f"column {twice[0]!r} is duplicated", where=name, expected="each column once", found="two of them"
        )
    # Reading all meters takes time, and is needed only where a name is suspect, or a column is missing.
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
                expected=f"columns {', '.join(required)}, and optionally idempotency_key, timestamp, metadata",
                found=", ".join(columns)[:200] or "no columns",
            )


def _readable(meters: Mapping[str, Meter]) -> list[Meter]:
    """Return all meters of the mapping whose definition can be read."""
    return [meters[name] for name in meters if name in meters]


def _declared(meters: Mapping[str, Meter]) -> set[str]:
    return {dimension for meter in _readable(meters) for dimension in meter.dimension_names}


def json_lines(df: pl.DataFrame, value: Callable[[str], pl.Expr]) -> bytes:
    """Return one line of JSON for each row, in order; `value` converts a column that is no field of an event to JSON.

    The fields of an event are columns of text, and so is `metadata`, of JSON. A row that has a value in both `metadata`
    and a further column gets two members `metadata`, so that parsing rejects the row for the conflict.
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
    """Return the lines, with those of the numbers in `others` replaced."""
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
    # Fields are joined as text: a struct would quote the metadata, which is JSON already.
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
    # Line ends in valid JSON are between its tokens, and would make two lines of one row.
    inner = text.set(~whole, None).str.slice(1).str.head(-1).str.replace_all(r"[\r\n]", " ")
    columns.append(pl.lit(inner.set(inner.str.strip_chars() == "", None)))
    # A value that is no object is passed on, to be rejected as such.
    odd = text.set(whole | text.is_in(["", "null"]), None).alias("t")
    return pl.coalesce(quoted(pl.lit(odd)), _object(columns))


def _members(df: pl.DataFrame, columns: list[str], value: Callable[[str], pl.Expr]) -> list[pl.Expr]:
    """Return these columns as members of an object; where they are very many, each text has those of a group."""
    members = [member(name, value(name)) for name in columns]
    if len(members) <= COLUMNS_AT_ONCE:
        return members
    groups = [members[start : start + COLUMNS_AT_ONCE] for start in range(0, len(members), COLUMNS_AT_ONCE)]
    texts = [
        df.select(pl.concat_str(group, separator=",", ignore_nulls=True)).to_series() for group in groups
    ]
    return [pl.lit(text.set(text == "", None)) for text in texts]


def _is_object(text: str | None) -> bool:
    """Return whether this is exactly one JSON object; text after it might be read as further fields of the event."""
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
    """Return the error for an input that can't be read."""
    return BadInputError(
        "could not read this input",
        where=name,
        expected=expected,
        found=(str(error) or type(error).__name__).splitlines()[0],
    )
