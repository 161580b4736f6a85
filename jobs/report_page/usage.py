"""The usage of one meter over a page's dates: by day, who and what used most, and how late its events arrive."""

from __future__ import annotations

from collections import Counter
from functools import partial

import msgspec
import polars as pl

from jobs.exact_text import format_columns
from jobs.report_page.scope import Scope
from jobs.status import MeterStatus
from lake.aggregates.sums import check_sums, exact_count
from lake.state.lateness import GROWTH, merge_lateness
from lake.state.state_file import load_state
from schemas.meter import Meter

# Seconds up to which events arrive, and what that is called; later than all of them is the last band.
BANDS = ((0, "early"), (1, "under 1 s"), (60, "1 s to 1 min"), (3600, "to 1 h"), (86_400, "to 1 day"))
LATEST = "over 1 day"
# In the place of a quantity; what is wrong is among the problems.
NOT_COMPUTABLE = "not computable"
# Dimensions of a meter that are ranked.
MAX_RANKINGS = 12


class Bar(msgspec.Struct, kw_only=True, frozen=True):
    """A quantity with its exact text; `length` is that of the bar, the longest being 1."""

    name: str | None
    quantity: str
    events: int
    length: float


class Ranking(msgspec.Struct, kw_only=True, frozen=True):
    """The greatest quantities by one field, and how many values the field has in all."""

    field: str
    bars: list[Bar]
    values: int


class MeterFigures(msgspec.Struct, kw_only=True):
    """One meter over the page's dates; `days` are those with usage, `late` are all counted events by how they arrived.

    `is_level` says that a day's quantity is a level, not an amount, and `is_added` that the total is of all subjects.
    """

    status: MeterStatus
    unit: str = ""
    aggregation: str = ""
    description: str = ""
    is_level: bool = False
    is_added: bool = True
    quantity: str = "0"
    events: int = 0
    days: list[Bar] = msgspec.field(default_factory=list)
    rankings: list[Ranking] = msgspec.field(default_factory=list)
    rankings_left_out: list[str] = msgspec.field(default_factory=list)
    late: dict[str, int] = msgspec.field(default_factory=dict)


def fill_total(figures: MeterFigures, scope: Scope, meter: Meter) -> None:
    """Fill in what the meter is, its events and its quantity. What can't be computed is among the status' problems."""
    figures.unit, figures.aggregation = meter.unit, meter.aggregation
    figures.description = meter.description or ""
    figures.is_level, figures.is_added = meter.is_gauge, not meter.is_gauge or meter.series is not None
    figures.events = scope.attempt(meter.name, partial(_events, scope, meter)) or 0
    if figures.events:
        quantity = scope.attempt(meter.name, partial(_quantity, scope, meter))
        figures.quantity = NOT_COMPUTABLE if quantity is None else quantity


def fill_details(figures: MeterFigures, scope: Scope, meter: Meter) -> None:
    """Fill in all figures. What can't be computed is among the status' problems."""
    fill_total(figures, scope, meter)
    # Each value that is counted counts as one.
    fields = ["subject", *(name for name in meter.dimension_names if name != meter.unique)]
    if figures.events:
        figures.days = scope.attempt(meter.name, partial(_days, scope, meter)) or []
        rankings = [
            scope.attempt(meter.name, partial(_ranking, scope, meter, name)) for name in fields[:MAX_RANKINGS]
        ]
        figures.rankings = [ranking for ranking in rankings if ranking]
        figures.rankings_left_out = fields[MAX_RANKINGS:]
    figures.late = scope.attempt(meter.name, partial(_late, scope, meter)) or {}


def bands(counts: dict[int, int]) -> dict[str, int]:
    """Events by how long they took, of the counts of a `Lateness`, whose classes are a tenth wide."""
    counted: Counter[str] = Counter()
    for number, events in counts.items():
        seconds = -1 if number < 0 else GROWTH ** (number - 0.5) if number else 0.0
        counted[next((name for bound, name in BANDS if seconds < bound), LATEST)] += events
    return {name: counted[name] for name in (*(name for _, name in BANDS), LATEST)}


def _events(scope: Scope, meter: Meter) -> int:
    rows = scope.lake.usage_by_subject(meter.name, scope.dates.since, scope.dates.until)
    used = rows.select(exact_count("events")).collect(engine="streaming")
    check_sums(used, f"meter {meter.name!r}", [], pl.col("events").is_null())
    return int(used.item())


def _quantity(scope: Scope, meter: Meter) -> str:
    total = scope.lake.totals(meter.name, (), scope.dates.since, scope.dates.until)
    return str(format_columns(total.select("quantity")).collect().item())


def _days(scope: Scope, meter: Meter) -> list[Bar]:
    daily = scope.query(meter, scope.dates.since, scope.dates.until, bucket="day")
    return _bars(daily.with_columns(name=pl.col("bucket_start").dt.date().cast(pl.String)))


def _late(scope: Scope, meter: Meter) -> dict[str, int]:
    records = load_state(scope.lake.storage, meter.name).partitions.values()
    late = merge_lateness(record.late for record in records if record.late)
    return bands(late.counts) if late else {}


def _ranking(scope: Scope, meter: Meter, name: str) -> Ranking:
    since, until = scope.dates.since, scope.dates.until
    rows = scope.query(meter, since, until, bucket="none", by=[name], top=scope.top)
    if name == "subject":
        seen = scope.lake.usage_by_subject(meter.name, since, until).select(pl.col("subject").n_unique())
    else:
        table = scope.lake.usage_by_dimension(meter.name, since, until).filter(pl.col("dimension") == name)
        seen = table.select(pl.col("value").n_unique())
    texts = format_columns(rows.lazy().select(pl.col(name).alias("name"))).collect()
    named = rows.with_columns(texts["name"].cast(pl.String))
    return Ranking(field=name, bars=_bars(named), values=seen.collect(engine="streaming").item())


def _bars(rows: pl.DataFrame) -> list[Bar]:
    """A bar for each row with `name`, `quantity` and `events`."""
    lengths = rows["quantity"].cast(pl.Float64)
    longest = lengths.max() or 1.0
    texts = format_columns(rows.lazy().select("quantity")).collect()["quantity"]
    parts = zip(rows["name"], texts, rows["events"], (lengths / longest).to_list(), strict=True)
    return [
        Bar(name=name, quantity=text, events=events, length=length) for name, text, events, length in parts
    ]
