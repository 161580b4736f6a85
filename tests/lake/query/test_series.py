"""Gauges with series: answers, totals and tables against SQL over the deduplicated raw events."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.aggregate.job import aggregate
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.export.verify import verify_exports
from jobs.run_report import reported
from lake import Lake, paths
from lake.meters import save_meter
from lake.query.time_buckets import Size, buckets, instant
from oracle.generate import write_lake
from oracle.levels import DATES, FIRST, NAMES, Levels, Row, billionths, body, snapshots
from schemas.meter import parse_meter
from support import aggregated, retained

UNTIL = FIRST + dt.timedelta(days=DATES + 3)
GROUPINGS: list[tuple[str, ...]] = [(), ("subject",), ("plan",), ("workspace", "tier"), ("trial", "subject")]
FILTERS = {
    None: "true",
    "plan = 'pro' or trial = true and not tier < 1": "plan = 'pro' or trial = true and not tier < 1",
    "workspace in ('w1', 'w3') and subject != 'org_a'": "workspace in ('w1', 'w3') and subject != 'org_a'",
    "plan is null or quantity >= 2.5": "plan is null or quantity >= decimal '2.5'",
}
SERIES: dict[str, list[str]] = {
    "last": ["workspace"],
    "first": [],
    "max": ["tier", "workspace"],
    "min": ["workspace", "plan"],
    "avg": NAMES,
}
AGGREGATIONS = tuple(SERIES)


class Gauges:
    """A lake with a meter of each aggregation over the same snapshots, and what SQL says of them."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.lake = Lake.init(str(folder))
        self._bodies = {name: body(name, name, series=SERIES[name], **more) for name in AGGREGATIONS}
        events = snapshots(seed=3)
        for name, meter in self._bodies.items():
            save_meter(self.lake.storage, parse_meter(json.dumps(meter).encode(), "test"))
            write_lake(folder, name, events, 2, 1)
        with reported(self.lake, "aggregate") as report:
            aggregate(self.lake, report)
        assert report.exit_code == 0
        self.levels = {name: Levels(folder, meter) for name, meter in self._bodies.items()}


@pytest.fixture(scope="module")
def gauges(tmp_path_factory: pytest.TempPathFactory) -> Gauges:
    return Gauges(tmp_path_factory.mktemp("gauges"))


def grid(size: Size, since: dt.date, until: dt.date, zone: str = "UTC") -> list[tuple[Any, Any]]:
    """The parts of buckets that lie in a range."""
    bounds = instant(since, zone), instant(until, zone)
    found = buckets(size, *bounds, zone).select("bucket_start", "bucket_end").rows()
    return [(max(start, bounds[0]), min(end, bounds[1])) for start, end in found]


def answered(rows: pl.DataFrame, since: dt.datetime, by: Sequence[str]) -> list[Row]:
    cells = rows.select(pl.max_horizontal("bucket_start", pl.lit(since)), *by, "quantity", "events")
    return [(*row[:-2], billionths(row[-2]), row[-1]) for row in cells.iter_rows()]


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows of cells that may be null, which is smallest."""
    return sorted(rows, key=lambda row: [(cell is not None, cell) for cell in row])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("bucket", ["day", "month", "none", "hour", "week"])
def test_answers_are_those_of_sql(gauges: Gauges, aggregation: str, bucket: Size) -> None:
    zone = "Asia/Kolkata" if bucket == "week" else "UTC"
    since, until, compared = FIRST + dt.timedelta(days=2), UNTIL, 0
    for turn, by in enumerate(GROUPINGS):
        wanted = list(FILTERS)[(turn + AGGREGATIONS.index(aggregation)) % len(FILTERS)]
        found = gauges.lake.query(aggregation, since, until, bucket=bucket, by=by, where=wanted, zone=zone)
        told = gauges.levels[aggregation].answer(grid(bucket, since, until, zone), by, FILTERS[wanted])
        expected = [(*row[:-2], row[-1]) for row in told]
        rows = answered(found.collect(), instant(since, zone), by)
        assert ordered(rows) == ordered(expected), (by, wanted)
        compared += len(rows)
    assert compared


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("by", [(), ("subject",), ("plan", "workspace")])
def test_fill_keeps_the_level_of_each_silent_series(
    gauges: Gauges, aggregation: str, by: tuple[str, ...]
) -> None:
    found = gauges.lake.query(aggregation, FIRST, UNTIL, by=by, where="trial = true", fill=True).collect()
    days = grid("day", FIRST, UNTIL)
    told = gauges.levels[aggregation].answer(days, by, "trial = true", filled=True)
    levels = {row[:-3]: row[-3] for row in told}
    groups = {row[1:-3] for row in told}
    expected: list[Row] = []
    for group in groups:
        is_known = False
        for start, _ in days:
            is_known = is_known or (start, *group) in levels
            expected.append((start, *group, levels.get((start, *group), 0) if is_known else None))
    rows = found.select("bucket_start", *by, "quantity").iter_rows()
    assert ordered([(*r[:-1], None if r[-1] is None else billionths(r[-1])) for r in rows]) == ordered(
        expected
    )
    events = sum(row[-1] for row in told)
    assert found["events"].sum() == events
    assert found.height == len(days) * len(groups)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_greatest_are_those_of_the_whole_range(gauges: Gauges, aggregation: str) -> None:
    by = ["plan", "tier"]
    told = gauges.levels[aggregation].answer(grid("none", FIRST, UNTIL), by)
    ranked = sorted(ordered([row[1:] for row in told]), key=lambda row: -row[2])[:3]
    found = gauges.lake.query(aggregation, FIRST, UNTIL, bucket="none", by=by, top=3).collect()
    assert [(*row[1:3], row[3]) for row in answered(found, instant(FIRST), by)] == [row[:3] for row in ranked]
    days = gauges.lake.query(aggregation, FIRST, UNTIL, by=by, top=3).collect()
    assert set(days.select(by).iter_rows()) == {row[:2] for row in ranked}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("by", GROUPINGS)
def test_totals_are_those_of_sql(gauges: Gauges, aggregation: str, by: tuple[str, ...]) -> None:
    for since, until in ((FIRST, UNTIL), (FIRST + dt.timedelta(days=3), FIRST + dt.timedelta(days=5))):
        found = gauges.lake.totals(aggregation, by, since, until).select(*by, "quantity", "events").collect()
        told = gauges.levels[aggregation].answer(grid("none", since, until), by)
        expected = [(*row[1:-3], row[-3], row[-1]) for row in told]
        rows = [(*row[:-2], billionths(row[-2]), row[-1]) for row in found.iter_rows()]
        assert rows == ordered(expected)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_daily_tables_have_the_added_level_of_each_date(gauges: Gauges, aggregation: str) -> None:
    lake, levels = gauges.lake, gauges.levels[aggregation]
    days = grid("day", FIRST, UNTIL)
    told = {(row[0].date(), row[1]): row[2] for row in levels.answer(days, ["subject"])}
    rows = lake.usage_by_subject(aggregation).select("date", "subject", "quantity").collect().rows()
    assert {(date, subject): billionths(quantity) for date, subject, quantity in rows} == told
    for name in NAMES:
        of_values = {(row[0].date(), _text(row[1])): row[2] for row in levels.answer(days, [name])}
        table = lake.usage_by_dimension(aggregation).filter(pl.col("dimension") == name)
        found = table.select("date", "value", "quantity", "events").collect().rows()
        # A value has a row for its events; its level is 0 where each of their series ends the day elsewhere.
        assert {(d, v): billionths(q) for d, v, q, _ in found if (d, v) in of_values} == of_values
        assert all(quantity == 0 for d, v, quantity, _ in found if (d, v) not in of_values)
        assert sum(events for *_, events in found) == sum(row[-1] for row in levels.answer(days))


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value).removesuffix(".0")


@pytest.mark.parametrize("by", [(), ("plan", "workspace")])
def test_exports_are_those_of_sql(gauges: Gauges, by: tuple[str, ...]) -> None:
    months = [parse_period("2026-01"), parse_period("2026-02")]
    for period in months:
        with reported(gauges.lake, "export") as report:
            export(gauges.lake, report, period, options=Options(by=by))
        assert len(report.exports) == len(AGGREGATIONS)
        for done in report.exports:
            told = gauges.levels[done.meter].answer(grid("none", *period), ["subject", *by])
            file = Path(gauges.lake.url) / paths.revision(done.folder, 1) / "usage.parquet"
            found = pl.read_parquet(file).select("subject", *by, "quantity", "series_count", "events")
            rows = [(*row[:-3], billionths(row[-3]), *row[-2:]) for row in found.iter_rows()]
            assert rows == [row[1:] for row in told]
    assert not [each for each in verify_exports(Path(gauges.lake.url)) if each.problems]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(
    ("by", "where"),
    [(("plan",), None), (("subject", "trial"), "workspace in ('w1', 'w3') and subject != 'org_a'")],
)
def test_shares_and_states_are_of_added_levels(
    gauges: Gauges, aggregation: str, by: tuple[str, ...], where: str | None
) -> None:
    days = grid("day", FIRST, UNTIL)
    levels = {row[:-3]: row[-3] for row in gauges.levels[aggregation].answer(days, by, FILTERS[where])}
    totals = {row[0]: row[-3] for row in gauges.levels[aggregation].answer(days, (), FILTERS[where])}
    expected: list[Row] = []
    for group in {key[1:] for key in levels}:
        before, was_there = 0, False
        for day, _ in days:
            level = levels.get((day, *group))
            if level is not None or before:
                part = (
                    Decimal(f"{round(Fraction((level or 0) * 10**9, totals[day]))}e-9")
                    if totals.get(day)
                    else None
                )
                state = "lost" if before else None
                if level:
                    state = "active" if before else "returned" if was_there else "new"
                expected.append((day, *group, level or 0, part, before, state))
            before, was_there = level or 0, was_there or bool(level)
    since = FIRST + dt.timedelta(days=1)
    found = gauges.lake.query(
        aggregation, since, UNTIL, by=by, where=where, share=True, compare="previous"
    ).collect()
    rows = found.select("bucket_start", *by, "quantity", "share", "usage_before", "usage_state").rows()
    told = [(*row[:-4], billionths(row[-4]), row[-3], billionths(row[-2]), row[-1]) for row in rows]
    assert told == ordered([row for row in expected if row[0] >= instant(since)])
    assert {"active", "lost"} <= {row[-1] for row in told}


CARRIED = {"plan = 'pro' or trial = true": "plan = 'pro' or trial = true", None: "true"}


@pytest.mark.parametrize(("days", "series"), [(1, ["workspace"]), (4, []), (30, ["workspace", "tier"])])
def test_carried_levels_are_those_of_sql_before_and_after_retention(
    tmp_path: Path, days: int, series: list[str]
) -> None:
    lake = Lake.init(str(tmp_path))
    meter = body("last", "carried", series=series, carry_days=days, event_retention_days=1)
    save_meter(lake.storage, parse_meter(json.dumps(meter).encode(), "test"))
    write_lake(tmp_path, "carried", snapshots(seed=days, events=250), 2, 1)
    aggregated(lake)
    levels, since, until = Levels(tmp_path, meter), FIRST + dt.timedelta(days=6), UNTIL + dt.timedelta(days=8)
    cases: list[tuple[Size, str, tuple[str, ...], str | None]] = [
        ("hour", "UTC", ("plan",), None),
        ("day", "Asia/Kolkata", ("subject",), None),
        ("day", "UTC", ("plan", "trial"), "plan = 'pro' or trial = true"),
        ("week", "UTC", (), None),
        ("month", "UTC", ("workspace",), None),
        ("none", "UTC", ("subject",), None),
    ]
    expected = {}
    for size, zone, by, where in cases:
        told = levels.answer(grid(size, since, until, zone), by, CARRIED[where])
        expected[size, zone] = ordered([(*row[:-2], row[-1]) for row in told])
        found = lake.query("carried", since, until, bucket=size, by=by, where=where, zone=zone).collect()
        assert ordered(answered(found, instant(since, zone), by)) == expected[size, zone], (size, zone)
    assert any(row[-1] == 0 for rows in expected.values() for row in rows)
    retained(lake, until)
    assert lake.events("carried").collect().is_empty()
    for size, zone, by, where in cases:
        if size == "hour" or zone != "UTC":
            continue
        found = lake.query("carried", since, until, bucket=size, by=by, where=where).collect()
        assert ordered(answered(found, instant(since), by)) == expected[size, zone], size
