"""Generated lakes: seeded, fast, and full of the cases that make deduplication and merging hard.

The same `Spec` gives the same events on every machine and Polars version: all chance comes from
`random.Random`, never from a Polars hash. Every event is valid for all nine aggregations unless
`Spec.zeros` is set (a quantity of 0 is a fact for gauges and invalid for the others).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

AGGREGATIONS = ("sum", "count", "avg", "min", "max", "first", "last", "rate", "unique_count")
# What the meters of unique_count count.
UNIQUE = "service.tier"
DIMENSIONS: list[dict[str, Any]] = [
    {"name": "plan", "type": "string"},
    {"name": "service.tier", "type": "string", "required": False},
    {"name": "seats", "type": "number", "required": False},
    {"name": "trial", "type": "boolean", "required": False},
]
DECIMAL = pl.Decimal(38, 9)
INSTANT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "idempotency_key": pl.String(),
        "subject": pl.String(),
        "quantity": DECIMAL,
        "timestamp": INSTANT,
        "received_at": INSTANT,
        "plan": pl.String(),
        "service.tier": pl.String(),
        "seats": pl.Float64(),
        "trial": pl.Boolean(),
        "metadata": pl.String(),
    }
)
ENVELOPE = ("idempotency_key", "subject", "quantity", "timestamp", "received_at", "metadata")

# Upper case, lower case, a digit and two-byte letters: their order by bytes is nobody's alphabet.
PREFIXES = ("acct-", "Acct.", "ws:", "9x_")
PLANS = ("free", "pro", "Team", "équipe", "Zürich")
TIERS = (None, "gold", "Gold", "silver", "silver plus")
SEATS = (None, 1.0, 1.5, 2.0, 10.0, 0.1, -0.25, 1234.5, 1000000.0)
TRIALS = (None, False, True)
METADATA = (None, '{"region":"eu","n":3}', '{"note":"ü \\"q\\"","nested":{"a":[1,2]}}')
DELAYS = (-5, 0, 0, 1, 60, 3600, 90_000)
QUANTITIES = ("0.000000001", "0.1", "0.2", "1", "2", "482.7", "1000000")
DAY = 86_400
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
ESCAPED = frozenset("\"#%'*/:=?\\{[]^\x7f") | {chr(code) for code in range(1, 32)}


@dataclass(frozen=True)
class Spec:
    """What to generate. Every share is a fraction of the events; 0 turns the feature off."""

    events: int = 200_000
    dates: int = 20
    first_date: date = date(2026, 1, 1)
    subjects: int = 5_000
    seed: int = 1
    duplicates: float = 0.12  # copies with the key of another event, full ties among them
    cross_date: float = 0.4  # of the copies: fall on another date, half of them on an earlier one
    conflicts: float = 0.3  # of the copies: another subject, quantity or dimension
    same_received_at: float = 0.3  # of the copies: received_at ties with the original
    keyless: float = 0.03  # null or empty keys, never duplicates, even when copied
    tied_timestamps: float = 0.5  # timestamps on the full hour, so that first and last need their tie rules
    large: float = 0.1  # quantities up to 10^15 with nine decimals: a float sum would show
    zeros: float = 0.0  # quantities of 0, for gauge meters only


def generate(spec: Spec) -> pl.DataFrame:
    """Make the events of one meter with the columns of `SCHEMA`, in random order."""
    random = Random(spec.seed)
    copies = int(spec.events * spec.duplicates)
    originals = _originals(spec, random, spec.events - copies)
    frame = pl.concat([originals, _copies(spec, random, originals, copies)])
    order = [random.random() for _ in range(frame.height)]
    shuffled = frame.with_columns(order=pl.Series(order, dtype=pl.Float64)).sort("order")
    return shuffled.select(SCHEMA.names())


def meter_body(aggregation: str, name: str) -> dict[str, Any]:
    """The body of `POST /v1/meters` that declares the generated dimensions."""
    return {
        "name": name,
        "description": "Generated usage",
        "unit": "unit",
        "aggregation": aggregation,
        "event_retention_days": 90,
        "dimensions": [dict(dimension) for dimension in DIMENSIONS],
        **({"unique": UNIQUE} if aggregation == "unique_count" else {}),
    }


def encode(name: str) -> str:
    """Percent-encode one path segment with the characters Hive and Spark escape."""
    return "".join(f"%{ord(letter):02X}" if letter in ESCAPED else letter for letter in name)


def write_lake(
    root: Path | str, meter_name: str, frame: pl.DataFrame, files_per_date: int, seed: int
) -> list[Path]:
    """Split the events of each UTC date at random into at most `files_per_date` files; sorted paths."""
    random = Random(seed)
    names = [f"part-{random.getrandbits(48):012x}" for _ in range(files_per_date)]
    chosen = pl.Series("#file", random.choices(names, k=frame.height), dtype=pl.String)
    split = frame.with_columns(chosen, pl.col("timestamp").dt.date().alias("#date"))
    base = Path(root) / "events" / f"meter={encode(meter_name)}"
    paths = []
    for (day, name), part in split.partition_by("#date", "#file", as_dict=True, include_key=False).items():
        paths.append(base / f"date={day}" / f"{name}.parquet")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        part.write_parquet(paths[-1])
    return sorted(paths)


def to_json_lines(frame: pl.DataFrame, meter_name: str) -> str:
    """The events as Open Spanner usage bodies with exact numbers, one a line.

    A null key or dimension is sometimes absent and sometimes null. A dotted dimension is in turn nested,
    flat, and flat beside a nested decoy (the flat one wins).
    """
    instant = "%Y-%m-%dT%H:%M:%S%.6fZ"
    number = pl.col("quantity").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    texts = frame.with_columns(number, pl.col("timestamp", "received_at").dt.to_string(instant))
    lines = (_body(row, meter_name, index) for index, row in enumerate(texts.iter_rows(named=True)))
    return "".join(f"{line}\n" for line in lines)


def _originals(spec: Spec, random: Random, count: int) -> pl.DataFrame:
    """Events with a key of their own each, before any duplicate."""
    start = int((spec.first_date - date(1970, 1, 1)).total_seconds())
    seconds = (_second_of_day(spec, random) for _ in range(count))
    timestamps = [(start + DAY * random.randrange(spec.dates)) * 1_000_000 + second for second in seconds]
    return pl.DataFrame(
        {
            "idempotency_key": [_key(spec, random, index) for index in range(count)],
            "subject": [_subject(int(spec.subjects * random.random() ** 3)) for _ in range(count)],
            "quantity": pl.Series(_quantities(spec, random, count), dtype=pl.String).cast(DECIMAL),
            "timestamp": pl.Series(timestamps, dtype=pl.Int64).cast(INSTANT),
            "received_at": pl.Series(timestamps, dtype=pl.Int64).cast(INSTANT) + _delays(random, count),
            "plan": random.choices(PLANS, k=count),
            "service.tier": random.choices(TIERS, k=count),
            "seats": random.choices(SEATS, k=count),
            "trial": random.choices(TRIALS, k=count),
            "metadata": random.choices(METADATA, k=count),
        },
        schema=SCHEMA,
    )


def _copies(spec: Spec, random: Random, originals: pl.DataFrame, count: int) -> pl.DataFrame:
    """More events with the keys of `originals`: retries, ties, moves to other dates, conflicts.

    No copy is received before its original, and no event more than an hour before its timestamp. So a
    copy on an earlier date leaves the winner on the later date, unless received_at ties and the copy wins.
    A copy with nothing changed is a full tie.
    """
    if not originals.height or not count:
        return originals.clear()
    picked = originals[sorted(random.choices(range(originals.height), k=count))]
    return (
        picked.with_columns(_moved(spec, random, picked), _late(spec, random, count))
        .with_columns(received_at=pl.max_horizontal("#late", pl.col("timestamp") - pl.duration(hours=1)))
        .with_columns(_conflicts(spec, random, count))
        .select(SCHEMA.names())
    )


def _moved(spec: Spec, random: Random, picked: pl.DataFrame) -> pl.Expr:
    """The timestamp on another date of the range for a share of the rows, within the date for some others."""
    days = [_chance(random, spec.cross_date) * random.choice((-3, -1, 1, 2)) for _ in range(picked.height)]
    minutes = [random.choice((0, 0, 1, -1)) for _ in range(picked.height)]
    shift = pl.lit(pl.Series(days, dtype=pl.Int64))
    day = (pl.col("timestamp").dt.date() - spec.first_date).dt.total_days()
    inside = (day + shift).is_between(0, spec.dates - 1)
    clock = pl.col("timestamp") + pl.duration(minutes=pl.lit(pl.Series(minutes, dtype=pl.Int64)))
    same_day = clock.dt.date() == pl.col("timestamp").dt.date()
    return (
        pl.when(inside & (shift != 0))
        .then(pl.col("timestamp") + pl.duration(days=shift))
        .when(same_day)
        .then(clock)
        .otherwise("timestamp")
        .alias("timestamp")
    )


def _late(spec: Spec, random: Random, count: int) -> pl.Expr:
    """A later received_at for the rows that do not tie with their original."""
    seconds = [_chance(random, 1 - spec.same_received_at) * random.randint(1, 2 * DAY) for _ in range(count)]
    later = pl.lit(pl.Series(seconds, dtype=pl.Int64))
    return (pl.col("received_at") + pl.duration(seconds=later)).alias("#late")


def _conflicts(spec: Spec, random: Random, count: int) -> list[pl.Expr]:
    """One differing column for a share of the rows; the change may be to null, or by chance none at all."""
    columns = ("subject", "quantity", "plan", "service.tier", "seats", "trial")
    changes = [random.choice(columns) if random.random() < spec.conflicts else "" for _ in range(count)]
    values: dict[str, list[Any]] = {
        "subject": [_subject(random.randrange(spec.subjects)) for _ in range(count)],
        "quantity": random.choices(QUANTITIES, k=count),
        "plan": random.choices(PLANS, k=count),
        "service.tier": random.choices(TIERS, k=count),
        "seats": random.choices(SEATS, k=count),
        "trial": random.choices(TRIALS, k=count),
    }
    chosen = pl.Series(changes, dtype=pl.String)
    return [
        pl.when(chosen == name).then(_series(name, values[name])).otherwise(name).alias(name)
        for name in columns
    ]


def _series(name: str, values: list[Any]) -> pl.Series:
    """Values as a column of the schema; quantities come as text."""
    if name == "quantity":
        return pl.Series(values, dtype=pl.String).cast(DECIMAL)
    return pl.Series(values, dtype=SCHEMA[name])


def _key(spec: Spec, random: Random, index: int) -> str | None:
    if random.random() < spec.keyless:
        return random.choice((None, ""))
    return f"key-{index:08d}"


def _subject(index: int) -> str:
    return f"{PREFIXES[index % len(PREFIXES)]}{index:05d}"


def _second_of_day(spec: Spec, random: Random) -> int:
    """A time of day in microseconds; the full hours are shared by many events."""
    if random.random() < spec.tied_timestamps:
        return random.randrange(24) * 3_600_000_000
    return int(random.random() * DAY * 1_000_000)


def _delays(random: Random, count: int) -> pl.Series:
    delays = [1_000_000 * delay for delay in random.choices(DELAYS, k=count)]
    return pl.Series(delays, dtype=pl.Int64).cast(pl.Duration("us"))


def _quantities(spec: Spec, random: Random, count: int) -> list[str]:
    """Number texts: large with nine decimals, zeros, a few shared values, and small with nine decimals."""

    def quantity() -> str:
        chance = random.random()
        if chance < spec.large:
            return f"{int(random.random() * 10**15)}.{int(random.random() * 10**9):09d}"
        if chance < spec.large + spec.zeros:
            return "0"
        if chance < spec.large + spec.zeros + 0.4:
            return random.choice(QUANTITIES)
        return f"{int(random.random() * 1000)}.{1 + int(random.random() * (10**9 - 1)):09d}"

    return [quantity() for _ in range(count)]


def _chance(random: Random, share: float) -> int:
    return int(random.random() < share)


def _body(row: dict[str, Any], meter_name: str, index: int) -> str:
    """One usage body; the quantity is spliced in as text, so that no float touches it."""
    dimensions = tuple((name, value) for name, value in row.items() if name not in ENVELOPE)
    key = row["idempotency_key"]
    members = [f'"idempotency_key":{_dumps(key)}'] if key is not None or index % 2 else []
    members += [f'"subject":{_dumps(row["subject"])}', f'"meter":{_dumps(meter_name)}']
    members += [f'"quantity":{row["quantity"]}', f'"timestamp":"{row["timestamp"]}"']
    members += [f'"received_at":"{row["received_at"]}"']
    members += [f'"metadata":{_metadata(row["metadata"], dimensions, index % 6)}']
    return f"{{{','.join(members)}}}"


@lru_cache(maxsize=100_000)
def _metadata(rest: str | None, dimensions: tuple[tuple[str, Any], ...], style: int) -> str:
    """The declared dimensions beside the undeclared rest, as JSON; cached, for the values repeat."""
    metadata: dict[str, Any] = json.loads(rest or "{}")
    for name, value in dimensions:
        if value is not None or (style + len(name)) % 2:
            _place(metadata, name.split("."), value, style % 3 if value is not None else style % 2)
    return _dumps(metadata)


def _place(metadata: dict[str, Any], path: Sequence[str], value: object, style: int) -> None:
    """Store a value nested (style 0), flat (1), or flat beside a nested decoy (2)."""
    nested = metadata
    if style != 1 and len(path) > 1:
        for step in path[:-1]:
            nested = nested.setdefault(step, {})
        nested[path[-1]] = value if style == 0 else "decoy"
    if style != 0 or len(path) == 1:
        metadata[".".join(path)] = value


def _dumps(value: object) -> str:
    return ENCODER.encode(value)
