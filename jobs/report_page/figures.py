"""The figures of a lake's page: usage of a range of dates per meter, how it arrived, and what was exported.

Reads aggregates, states, manifests and reports, and no event data. Quantities are exact text.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import unquote

import msgspec
import polars as pl

from jobs.exact_text import format_columns
from jobs.status import MeterStatus, Status, status
from lake import Lake, paths
from lake.aggregates.sums import check_sums, exact_count
from lake.calendar import days_before
from lake.revisions import Manifest, parse_manifest
from lake.state.lateness import GROWTH, merge_lateness
from lake.state.state_file import load_state
from lake.storage import Storage
from lake.storage.changed_files import retry_if_missing
from schemas.errors import BrokenLakeError, MeterlakeError, SumTooLargeError
from schemas.meter import Meter

TOP = 8
# Those of which a question may be asked.
FIRST_DATE = dt.date(2, 1, 1)
RUNS = 12
# Of each way to export a meter, the newest periods.
PERIODS = 6
_EXPORT = re.compile(
    r"exports/(?P<meter>[^/]+)/period=(?P<period>[^/]+)/(?P<form>(?:(?!revision=)[^/]+/)*)"
    r"(?:revision=(?P<revision>\d+)/)?(?P<file>[^/]+)"
)
# Seconds up to which events arrive, and what that is called; later than all of them is the last band.
BANDS = ((0, "early"), (1, "under 1 s"), (60, "1 s to 1 min"), (3600, "to 1 h"), (86_400, "to 1 day"))
LATEST = "over 1 day"
# In the place of a quantity; what is wrong is among the problems.
NOT_COMPUTABLE = "not computable"


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
    """One meter over the range; `days` are those with usage, `late` are all counted events by how they arrived."""

    status: MeterStatus
    unit: str = ""
    aggregation: str = ""
    description: str = ""
    quantity: str = "0"
    events: int = 0
    days: list[Bar] = msgspec.field(default_factory=list)
    rankings: list[Ranking] = msgspec.field(default_factory=list)
    late: dict[str, int] = msgspec.field(default_factory=dict)


class ExportFigures(msgspec.Struct, kw_only=True, frozen=True):
    """The newest revision of one period in one form."""

    meter: str
    period: str
    form: str
    revision: int
    closed: bool
    rows: int
    total: str


class Page(msgspec.Struct, kw_only=True):
    """All that the page shows, of since <= date < until."""

    lake: str
    since: dt.date
    until: dt.date
    meters: list[MeterFigures]
    exports: list[ExportFigures]
    status: Status


def gather(lake: Lake, until: dt.date, days: int) -> Page:
    """The figures of the `days` dates before `until`. What of the lake can't be read is among the status' problems.

    The calendar's first year is left out, as by `query`.
    """
    since = max(days_before(until, days), FIRST_DATE)
    found = status(lake, RUNS)
    page = Page(lake=lake.url, since=since, until=until, meters=[], exports=[], status=found)
    for each in found.meters:
        figures = MeterFigures(status=each)
        try:
            fill = partial(_fill, figures, lake, lake.meter(each.meter), (since, until), found)
            retry_if_missing(fill)
        except MeterlakeError as error:
            found.add_error(error)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            said = str(error).splitlines()[0]
            hint = "run: meterlake verify"
            found.add_error(
                BrokenLakeError(
                    "the aggregates can't be read", where=f"meter {each.meter!r}", found=said, hint=hint
                )
            )
        page.meters.append(figures)
    page.exports = _exports(lake.storage, found)
    return page


def _fill(
    figures: MeterFigures, lake: Lake, meter: Meter, dates: tuple[dt.date, dt.date], found: Status
) -> None:
    figures.unit, figures.aggregation, figures.rankings = meter.unit, meter.aggregation, []
    figures.description = meter.description or ""
    used = lake.usage_by_subject(meter.name, *dates).select(exact_count("events")).collect(engine="streaming")
    check_sums(used, f"meter {meter.name!r}", [], pl.col("events").is_null())
    figures.events = used.item()
    if figures.events:
        figures.quantity = NOT_COMPUTABLE
        with _without_sum(found):
            total = lake.totals(meter.name, (), *dates)
            figures.quantity = format_columns(total.select("quantity")).collect().item()
        with _without_sum(found):
            daily = lake.query(meter.name, *dates, bucket="day").collect()
            named = pl.col("bucket_start").dt.date().cast(pl.String).alias("name")
            figures.days = _bars(daily.with_columns(named))
        for name in ("subject", *meter.dimension_names):
            with _without_sum(found):
                figures.rankings.append(_ranking(lake, meter, name, dates))
    records = load_state(lake.storage, meter.name).partitions.values()
    late = merge_lateness(record.late for record in records if record.late)
    figures.late = bands(late.counts) if late else {}


@contextmanager
def _without_sum(found: Status) -> Iterator[None]:
    """Note a figure whose sum is too large among the problems, and do without it."""
    try:
        yield
    except SumTooLargeError as error:
        found.add_error(error)


def bands(counts: dict[int, int]) -> dict[str, int]:
    """Events by how long they took, of the counts of a `Lateness`, whose classes are a tenth wide."""
    found: Counter[str] = Counter()
    for number, events in counts.items():
        seconds = -1 if number < 0 else GROWTH ** (number - 0.5) if number else 0.0
        found[next((name for bound, name in BANDS if seconds < bound), LATEST)] += events
    return {name: found[name] for name in (*(name for _, name in BANDS), LATEST)}


def _ranking(lake: Lake, meter: Meter, name: str, dates: tuple[dt.date, dt.date]) -> Ranking:
    rows = lake.query(meter.name, *dates, bucket="none", by=[name], top=TOP).collect()
    if name == "subject":
        seen = lake.usage_by_subject(meter.name, *dates).select(pl.col("subject").n_unique())
    else:
        table = lake.usage_by_dimension(meter.name, *dates).filter(pl.col("dimension") == name)
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
        Bar(name=name, quantity=said, events=events, length=length) for name, said, events, length in parts
    ]


def _exports(storage: Storage, found: Status) -> list[ExportFigures]:
    """The newest periods of each meter in each form, by meter, form and period, the newest first."""
    newest: dict[tuple[str, str], dict[str, int]] = {}
    closed = set()
    for file in storage.list(paths.EXPORTS):
        match = _EXPORT.fullmatch(file.path)
        if match and match["file"] == paths.MANIFEST:
            periods = newest.setdefault((unquote(match["meter"]), match["form"]), {})
            periods[match["period"]] = max(periods.get(match["period"], 0), int(match["revision"] or 0))
        elif match and match["file"] == paths.CLOSED:
            closed.add((unquote(match["meter"]), match["form"], match["period"]))
    figures = []
    for (meter, form), periods in sorted(newest.items()):
        for period in sorted(periods, reverse=True)[:PERIODS]:
            folder = paths.exports(meter, period, *form.split("/")[:-1])
            path = paths.revision(folder, periods[period]) + paths.MANIFEST
            try:
                manifest = parse_manifest(storage.read(path) or b"", path)
            except MeterlakeError as error:
                found.add_error(error)
                continue
            figures.append(_export(manifest, form, closed=(meter, form, period) in closed))
    return figures


def _export(manifest: Manifest, form: str, *, closed: bool) -> ExportFigures:
    file = manifest.files.get("usage.parquet") or manifest.files.get("adjustments.csv")
    return ExportFigures(
        meter=manifest.meter,
        period=manifest.period,
        form=form.rstrip("/").replace("/", ", ") or "usual",
        revision=manifest.revision,
        closed=closed,
        rows=file.rows if file else 0,
        total=file.totals.get("quantity", "") if file else "",
    )
