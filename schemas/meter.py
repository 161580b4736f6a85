"""What a meter is: the JSON body of its definition, and the rules that it must keep."""

from __future__ import annotations

import codecs
import hashlib
import re
from typing import Literal, get_args

import msgspec
import polars as pl

from schemas.columns import RESERVED_NAMES
from schemas.encodings import other_encoding
from schemas.errors import BadInputError
from schemas.levels import GAUGES, check_levels

Aggregation = Literal["sum", "count", "avg", "min", "max", "first", "last", "rate", "unique_count"]
DimensionType = Literal["string", "number", "boolean"]

AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
# Aggregations whose events must add something; the others are gauges, whose level may be 0.
POSITIVE_AGGREGATIONS = frozenset(AGGREGATIONS) - GAUGES
# Aggregations that count events, so that one without a quantity has the quantity 1.
COUNTING_AGGREGATIONS = frozenset({"count", "rate", "unique_count"})
# Aggregations that are quotients, rounded to nine places.
ROUNDED_AGGREGATIONS = frozenset({"avg", "rate"})
DIMENSION_DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
}
DEFAULT_RETENTION_DAYS = 90
MAX_RETENTION_DAYS = 3650
# `meter=<encoded>` and `<encoded>.json` are names of folders and files, of at most 255 bytes on common disks.
MAX_ENCODED_NAME_BYTES = 240
PATH_UNSAFE = re.compile(r"""[\x00-\x1f\x7f"#%'*/:=?\\{\[\]^]""")
DIMENSION_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Dimension(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A declared, typed metadata field that usage is grouped by."""

    name: str
    type: DimensionType
    required: bool = True
    display_name: str | None = None
    description: str | None = None
    deprecated: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """The column type of this dimension in events and in the `usage` table."""
        return DIMENSION_DTYPES[self.type]

    @property
    def needs_value(self) -> bool:
        """Whether an event without this dimension is invalid; a deprecated dimension needs no value."""
        return self.required and not self.deprecated


class Meter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The definition of one product signal, made by `parse_meter`, which checks and normalises it."""

    name: str
    unit: str
    description: str | None = None
    aggregation: Aggregation = "sum"
    event_retention_days: int = DEFAULT_RETENTION_DAYS
    dimensions: tuple[Dimension, ...] = ()
    # Written only where they are set, so that definitions without them are stored as before.
    declared_series: tuple[str, ...] | msgspec.UnsetType | None = msgspec.field(
        default=msgspec.UNSET, name="series"
    )
    declared_carry_days: int | msgspec.UnsetType | None = msgspec.field(
        default=msgspec.UNSET, name="carry_days"
    )
    declared_unique: str | msgspec.UnsetType | None = msgspec.field(default=msgspec.UNSET, name="unique")

    @property
    def series(self) -> tuple[str, ...] | None:
        """The dimensions that name a series besides the subject, maybe none; None if levels are not added."""
        return None if self.declared_series is msgspec.UNSET else self.declared_series

    @property
    def carry_days(self) -> int | None:
        """For how many dates a series without events keeps its last level; None for no date."""
        return None if self.declared_carry_days is msgspec.UNSET else self.declared_carry_days

    @property
    def unique(self) -> str | None:
        """The dimension whose distinct values are counted; None for a meter that is no `unique_count`."""
        return None if self.declared_unique is msgspec.UNSET else self.declared_unique

    @property
    def needs_usage(self) -> bool:
        """Whether quantities over several rows need the rows of `usage`, since smaller tables lack the dimensions."""
        return self.series is not None or self.aggregation == "unique_count"

    @property
    def is_gauge(self) -> bool:
        """Whether the meter's events state a level, not an amount."""
        return self.aggregation in GAUGES

    @property
    def dimension_names(self) -> list[str]:
        """Names of the declared dimensions, in declared order."""
        return [dimension.name for dimension in self.dimensions]

    @property
    def dimension_dtypes(self) -> dict[str, pl.DataType]:
        """Column types of the declared dimensions, in declared order."""
        return {dimension.name: dimension.dtype for dimension in self.dimensions}

    @property
    def needs_quantity(self) -> bool:
        """Whether an event without a quantity is invalid; otherwise its quantity is 1."""
        return self.aggregation not in COUNTING_AGGREGATIONS

    @property
    def quantity_rule(self) -> str:
        """How `quantity` of a daily row is computed, as text; empty for the original rule.

        When a sealed date has another rule in its record, its `quantity` is computed again.
        """
        rules = ["nine places"] if self.aggregation in ROUNDED_AGGREGATIONS else []
        if self.series is not None:
            rules.append(f"series {msgspec.json.encode(sorted(self.series)).decode()}")
        return ", ".join(rules)

    @property
    def version(self) -> str:
        """Twelve hex digits that change exactly when the numbers of the tables may.

        They depend on name, unit, aggregation, dimensions, the rule of `quantity`, and `unique` if it is set.
        """
        return self._version(self.quantity_rule)

    @property
    def earlier_version(self) -> str:
        """The version that this definition had while `quantity` of avg and rate was a double; else today's."""
        return self._version("" if self.series is None else self.quantity_rule)

    def _version(self, quantity_rule: str) -> str:
        parts = [self.name, self.unit, self.aggregation]
        parts += [f"{d.name}:{d.type}:{d.needs_value}" for d in self.dimensions]
        parts += [quantity_rule] if quantity_rule else []
        parts += [] if self.unique is None else [f"unique {self.unique}"]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]

    def to_json(self) -> bytes:
        """Return the JSON body of this meter, indented, as the lake stores it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def parse_meter(body: bytes, where: str) -> Meter:
    """Return the meter that a JSON body defines: trimmed, defaults filled in.

    Raises BadInputError naming `where` and the field, what was expected and what was found.
    """
    encoding = other_encoding(body)
    if encoding:
        raise BadInputError(
            "not a meter definition",
            where=where,
            expected="JSON in UTF-8",
            found=encoding,
            hint="save it as UTF-8, for instance with iconv -t UTF-8",
        )
    try:
        raw = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8), type=Meter)
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"not a meter definition: {error}", where=where, hint=_field_hint(str(error))
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(
            "not a meter definition", where=where, expected="one JSON object", found=str(error)
        ) from None
    meter = msgspec.structs.replace(
        raw,
        name=raw.name.strip(),
        unit=raw.unit.strip(),
        event_retention_days=raw.event_retention_days or DEFAULT_RETENTION_DAYS,
        # A null member is not set.
        declared_series=msgspec.UNSET if raw.series is None else raw.series,
        declared_carry_days=msgspec.UNSET if raw.carry_days is None else raw.carry_days,
        declared_unique=msgspec.UNSET if raw.unique is None else raw.unique,
    )
    check_meter(meter, where)
    return meter


def check_meter(meter: Meter, where: str) -> None:
    """Check a definition. Raises BadInputError naming `where`, what was expected and what was found."""
    _check_texts(meter, where)
    _check_retention(meter.event_retention_days, where)
    _check_dimensions(meter, where)
    check_levels(meter, where)


def encode_name(name: str) -> str:
    """Return the meter's name as a part of a path: percent-encoded as Hive and Spark do; `unquote` decodes it.

    Encoded are the ASCII characters that Hive's `FileUtils.escapePathName` lists, and a leading dot, which
    would hide the file. Spaces and Unicode stay as they are.
    """
    encoded = PATH_UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def _check_texts(meter: Meter, where: str) -> None:
    for field, text in (("name", meter.name), ("unit", meter.unit)):
        if not text:
            raise BadInputError(f"{field} is empty", where=where, expected=f"a {field}", found="no text")
    size_bytes = len(encode_name(meter.name).encode())
    if size_bytes > MAX_ENCODED_NAME_BYTES:
        raise BadInputError(
            "name is too long for a path",
            where=where,
            expected=f"at most {MAX_ENCODED_NAME_BYTES} bytes when percent-encoded",
            found=f"{size_bytes} bytes",
        )


def _check_retention(days: int, where: str) -> None:
    if not 1 <= days <= MAX_RETENTION_DAYS:
        raise BadInputError(
            "event_retention_days is out of range",
            where=where,
            expected=f"1 to {MAX_RETENTION_DAYS}, or 0 for {DEFAULT_RETENTION_DAYS}",
            found=str(days),
        )


def _check_dimensions(meter: Meter, where: str) -> None:
    seen: set[str] = set()
    for name in meter.dimension_names:
        if not DIMENSION_NAME.fullmatch(name):
            raise BadInputError(
                "dimension name is not allowed",
                where=where,
                expected="letters, digits, _ and -, in parts joined by single dots",
                found=repr(name),
            )
        # DuckDB and most SQL readers ignore the case of column names.
        if name.lower() in RESERVED_NAMES:
            raise BadInputError(
                f"dimension name {name!r} is reserved",
                where=where,
                expected=f"none of {', '.join(sorted(RESERVED_NAMES))}",
                found=repr(name),
            )
        if name.lower() in seen:
            raise BadInputError(
                f"dimension {name!r} is declared twice",
                where=where,
                expected="names that differ in more than case",
                found="two alike",
            )
        seen.add(name.lower())


def _field_hint(message: str) -> str:
    if "unknown field" not in message:
        return ""
    kind = Dimension if "$.dimensions" in message else Meter
    known = kind.__struct_encode_fields__
    return f"known fields: {', '.join(known)}"
