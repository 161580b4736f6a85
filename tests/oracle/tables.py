"""The tables of one meter, computed with DuckDB SQL from the raw Parquet files.

Each `*_sql` method is one statement that a reader can check against the contract, and the method of the
same name without `_sql` runs it. Nothing is cached: every call reads the files that are there now. The
oracle trusts the files: it does not validate events, and it knows nothing of sealed partitions.

Text compares by UTF-8 bytes (DuckDB without a collation), false before true, decimals sum as decimals.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import polars as pl

SQL_TYPES = {"string": "varchar", "number": "double", "boolean": "boolean"}
EVENT_TYPES = {
    "idempotency_key": "varchar",
    "subject": "varchar",
    "quantity": "decimal(38, 9)",
    "timestamp": "timestamptz",
    "received_at": "timestamptz",
}
MEASURES = (
    "quantity",
    "events",
    "quantity_sum",
    "quantity_min",
    "quantity_max",
    "quantity_first",
    "first_at",
    "first_received_at",
    "quantity_last",
    "last_at",
    "last_received_at",
)


def half_even(billionths: str, divisor: str) -> str:
    """A quotient of whole numbers that are not negative as a decimal of nine places, rounded half-even once."""
    whole, rest = f"(({billionths}) // ({divisor}))", f"(({billionths}) % ({divisor}))"
    is_up = f"2 * {rest} > {divisor} or (2 * {rest} = {divisor} and {whole} % 2 = 1)"
    rounded = f"({whole} + case when {is_up} then 1 else 0 end)"
    places = f"lpad(cast({rounded} % 1000000000 as varchar), 9, '0')"
    return f"cast(concat({rounded} // 1000000000, '.', {places}) as decimal(38, 9))"


# `$microseconds` is the length of the bucket that is aggregated.
QUANTITY = {
    "sum": "quantity_sum",
    "count": "cast(events as decimal(38, 9))",
    "avg": half_even("cast(replace(cast(quantity_sum as varchar), '.', '') as hugeint)", "events"),
    "min": "quantity_min",
    "max": "quantity_max",
    "first": '"#first".quantity',
    "last": '"#last".quantity',
    "rate": half_even("cast(events as hugeint) * 1000000000000000", "$microseconds"),
    "unique_count": 'cast("#unique" as decimal(38, 9))',
}

# An event's own column names are taken, so the helper columns start with `#`, which no dimension name can.
MEASURED = """
    count(*) as events,
    cast(sum(quantity) as decimal(38, 9)) as quantity_sum,
    min(quantity) as quantity_min,
    max(quantity) as quantity_max,
    min({'at': "timestamp", 'received_at': received_at, 'quantity': quantity}) as "#first",
    max({'at': "timestamp", 'received_at': received_at, 'quantity': quantity}) as "#last"
"""
UNPACKED = """
    events, quantity_sum, quantity_min, quantity_max,
    "#first".quantity as quantity_first, "#first".at as first_at, "#first".received_at as first_received_at,
    "#last".quantity as quantity_last, "#last".at as last_at, "#last".received_at as last_received_at
"""


class Oracle:
    """The meaning of one meter's raw events under `root`, a local lake.

    All frames are sorted by their keys, nulls first, and have the columns of the contract in its order.
    """

    def __init__(self, root: Path | str, meter_body: dict[str, Any]) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("set TimeZone = 'UTC'")
        self.root = Path(root)
        self.meter = str(meter_body["name"]).strip()
        self.aggregation = str(meter_body.get("aggregation") or "sum")
        declared: list[dict[str, Any]] = meter_body.get("dimensions") or []
        self.dimensions = {str(each["name"]): str(each["type"]) for each in declared}
        self.unique: str | None = meter_body.get("unique")

    def winners(self) -> pl.DataFrame:
        """The events that count: date, the event's columns, metadata; sorted by all of them."""
        return self._run(self.winners_sql())

    def losers(self) -> pl.DataFrame:
        """The duplicates that do not count, with `conflict`: the payload differs from the winner's."""
        return self._run(self.losers_sql())

    def usage(self) -> pl.DataFrame:
        return self._run(self.usage_sql())

    def usage_by_subject(self) -> pl.DataFrame:
        return self._run(self.usage_by_subject_sql())

    def usage_by_dimension(self) -> pl.DataFrame:
        return self._run(self.usage_by_dimension_sql())

    def totals(self, table: str, keys: Sequence[str], dates: Iterable[date]) -> pl.DataFrame:
        """All measures of `table` over a set of dates: `keys`, then the measures; no daily row is used.

        `keys` is any choice of the table's keys, "date" among them, or none for a grand total. A rate is per
        second of all the dates given, those without events included.
        """
        return self._run(self.totals_sql(table, keys, dates))

    def winners_sql(self) -> str:
        return f"with {self._winning()} select * from winning order by all nulls first"

    def losers_sql(self) -> str:
        payload = ["subject", "quantity", *map(_quoted, self.dimensions)]
        differs = " or ".join(f"loser.{name} is distinct from winning.{name}" for name in payload)
        return f"""with {self._winning()}
select loser.* exclude ("#place"), {differs} as conflict
from placed as loser
join winning using (idempotency_key)
where loser."#place" > 1
order by all nulls first"""

    def usage_sql(self) -> str:
        keys = ["date", "subject", *self.dimensions]
        return f"with {self._winning()}\n{self._measured('winning', keys)}"

    def usage_by_subject_sql(self) -> str:
        return f"with {self._winning()}\n{self._measured('winning', ['date', 'subject'])}"

    def usage_by_dimension_sql(self) -> str:
        keys = ["date", "dimension", "value"]
        return f"with {self._winning()},\n{self._valued()}\n{self._measured('valued', keys, subjects=True)}"

    def totals_sql(self, table: str, keys: Sequence[str], dates: Iterable[date]) -> str:
        days = sorted(set(dates))
        source = "valued" if table == "usage_by_dimension" else "winning"
        listed = ", ".join(f"date '{day}'" for day in days)
        chosen = f"chosen as (select * from {source} where list_contains([{listed}]::date[], date))"
        measured = self._measured("chosen", keys, seconds=86_400 * len(days))
        return f"with {self._winning()},\n{self._valued()},\n{chosen}\n{measured}"

    def _winning(self) -> str:
        """The common start of every statement: raw events, their places, and the winners.

        An event with an empty or null key has the first place of its own. The metadata decides nothing that
        the contract counts; it only makes the choice between full ties repeatable.
        """
        dimensions = [_quoted(name) for name in self.dimensions]
        order = ["received_at", '"timestamp"', "quantity", "subject", *dimensions, "metadata"]
        by = ", ".join(f"{name} asc nulls first" for name in order)
        return f"""raw as ({self._raw()}),
placed as (
    select *, case when idempotency_key is null or idempotency_key = '' then 1 else row_number() over (
        partition by idempotency_key
        order by {by}) end as "#place"
    from raw
),
winning as (select * exclude ("#place") from placed where "#place" = 1)"""

    def _raw(self) -> str:
        """All raw events; a dimension that no file has yet is null."""
        types = self._types()
        files = self._files()
        if not files:
            nothing = ", ".join(f"cast(null as {sql}) as {_quoted(name)}" for name, sql in types.items())
            return f"select {nothing} where false"
        listed = ", ".join(_literal(str(path)) for path in files)
        read = (
            f"read_parquet([{listed}], union_by_name = true, hive_partitioning = true, "
            "hive_types = {'meter': varchar, 'date': date})"
        )
        there = set(self._connection.sql(f"select * from {read}").columns)
        sources = {name: _quoted(name) if name in there else "null" for name in types}
        columns = (f"cast({sources[name]} as {sql}) as {_quoted(name)}" for name, sql in types.items())
        return f"select {', '.join(columns)}\n    from {read}"

    def _types(self) -> dict[str, str]:
        dimensions = {name: SQL_TYPES[kind] for name, kind in self.dimensions.items()}
        return {"date": "date", **EVENT_TYPES, **dimensions, "metadata": "varchar"}

    def _files(self) -> list[Path]:
        """The meter's Parquet files; the folder is found by decoding, not by encoding the name."""
        folders = [path for path in (self.root / "events").glob("meter=*") if path.is_dir()]
        own = [path for path in folders if unquote(path.name.removeprefix("meter=")) == self.meter]
        return sorted(file for folder in own for file in folder.glob("date=*/[!._]*.parquet"))

    def _valued(self) -> str:
        """Every winner once for each dimension, with the dimension's value as text."""
        selects = [
            f"select *, '{name}' as dimension, {_text(_quoted(name), kind)} as \"value\" from winning"
            for name, kind in self.dimensions.items()
        ]
        nothing = "select *, '' as dimension, '' as \"value\" from winning where false"
        every = "\n    union all ".join(selects or [nothing])
        return f"valued as (\n    {every}\n)"

    def _measured(
        self, source: str, keys: Sequence[str], *, subjects: bool = False, seconds: int = 86_400
    ) -> str:
        """One row per key with all measures, sorted by the keys; no row when there are no events."""
        names = [_quoted(key) for key in keys]
        distinct = ["count(distinct subject) as subjects"] if subjects else []
        order = ", ".join(f"{name} asc nulls first" for name in names) or "all"
        quantity = QUANTITY[self.aggregation].replace("$microseconds", str(seconds * 1_000_000))
        shown = [*names, *(["subjects"] if subjects else []), f"{quantity} as quantity", UNPACKED.strip()]
        return f"""select {", ".join(shown)}
from (
    select {", ".join([*names, *distinct, *self._unique(), MEASURED.strip()])}
    from {source}
    group by {", ".join(names) or "()"}
)
where events > 0
order by {order}"""

    def _unique(self) -> list[str]:
        """How many values of the dimension there are, over all subjects."""
        return [f'count(distinct {_quoted(self.unique)}) as "#unique"'] if self.unique else []

    def _run(self, sql: str) -> pl.DataFrame:
        frame: pl.DataFrame = self._connection.sql(sql).pl()
        return frame


def _quoted(name: str) -> str:
    return f'"{name}"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(column: str, kind: str) -> str:
    """A dimension's value as text: a whole number loses its `.0`."""
    text = f"cast({column} as varchar)"
    return rf"regexp_replace({text}, '\.0$', '')" if kind == "number" else text
