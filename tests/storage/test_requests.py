"""What a night costs on S3, counted at the server's door."""

from __future__ import annotations

import datetime as dt
import io
import json
import random
from collections import Counter
from functools import cache
from math import ceil
from pathlib import Path

import msgspec
import polars as pl
import pytest

from jobs.aggregate.job import aggregate
from jobs.export.billing import month_of
from jobs.export.job import export
from jobs.land.job import land
from lake import Lake, paths
from lake.checksums import rows_checksum
from lake.events.partition import fingerprint
from lake.snapshot import scan_meters
from lake.state.records import METADATA_KEY, READING_RULES, PartitionState
from lake.storage.leased_storage import leased
from storage.lakes import defined, fill, night, parquet, put, ran
from storage.server import Server
from support import DAY, event, recomputed

METERS, DATES = 20, 90
AS_OF = DAY + dt.timedelta(days=1)
DAYS = [DAY - dt.timedelta(days=n) for n in range(DATES)]


@pytest.fixture
def lake(bucket: str) -> Lake:
    return Lake.init(f"{bucket}/prefix")


@pytest.fixture
def aggregated(lake: Lake) -> Lake:
    """One meter with a file on each of 50 dates, the 31 of May among them, after a night."""
    meter = defined(lake, event_retention_days=100)
    files = {
        paths.events(meter.name, day) + "a.parquet": parquet(meter, event(f"a {day}", day=day))
        for day in DAYS[:50]
    }
    fill(lake, files)
    night(lake, AS_OF)
    return lake


def leased_night(lake: Lake) -> None:
    """The nightly job as the command line runs it: on the lake opened anew, under a lease."""
    opened = Lake(lake.url)
    with leased(opened.storage, "nightly") as storage:
        night(opened.over(storage), AS_OF)


def leased_aggregation(lake: Lake) -> None:
    """The aggregation as the command line runs it."""
    opened = Lake(lake.url)
    with leased(opened.storage, "aggregate") as storage:
        ran(opened, lambda report: aggregate(opened.over(storage), report))


def test_nothing_new_on_twenty_meters_is_two_requests_a_meter_and_the_listing(
    lake: Lake, server: Server
) -> None:
    names = [f"meter {n}" for n in range(METERS)]
    files: dict[str, bytes] = {}
    for name in names:
        meter = defined(lake, name, event_retention_days=100)
        body = parquet(meter, event("a"))
        files |= {paths.events(name, day) + "a.parquet": body for day in DAYS}
    fill(lake, files)
    # The states as the first night would leave them; it would take a minute.
    for view in scan_meters(lake.storage):
        view.state.partitions = {
            date: a_record(view.meter.version, at[0].identity) for date, at in view.files.items()
        }
        view.save(lake.storage)
        # Of the same events every day, so one file is all of them.
        body = an_aggregate(next(iter(view.state.partitions.values())))
        places = (
            paths.aggregate("usage_by_subject", view.meter.name, date) for date in view.state.partitions
        )
        fill(lake, dict.fromkeys(places, body))
    leased_night(lake)
    exported = [file.path for file in lake.storage.list(paths.EXPORTS) if file.path.endswith(paths.MANIFEST)]
    assert len(exported) == len({(day.year, day.month) for day in DAYS}) * METERS
    with server.counting() as requests:
        leased_night(lake)
    assert len(requests) <= ceil(METERS * DATES / 1_000) + 2 * METERS
    assert sum(path.endswith(".parquet") for path in (request.path for request in requests)) == 0


def a_record(version: str, identity: str) -> PartitionState:
    files = {"a.parquet": identity}
    said = fingerprint(files, version)
    return PartitionState(
        meter_version=version,
        rules=READING_RULES,
        files=files,
        fingerprint=said,
        losers=said,
        events=1,
        checksums={"usage_by_subject": rows_checksum(a_row())},
        aggregated_at=dt.datetime(2026, 6, 20, tzinfo=dt.UTC),
    )


@cache
def a_row() -> pl.DataFrame:
    """What one event comes to in `usage_by_subject`."""
    elsewhere = Lake.init("memory://one-event/lake")
    meter = defined(elsewhere)
    put(elsewhere, meter, "a.parquet", DAY, event("a"))
    ran(elsewhere, lambda report: aggregate(elsewhere, report))
    return elsewhere.usage_by_subject(meter.name).drop("date").collect()


def an_aggregate(record: PartitionState) -> bytes:
    body = io.BytesIO()
    a_row().write_parquet(body, metadata={METADATA_KEY: msgspec.json.encode(record).decode()})
    return body.getvalue()


def test_a_quiet_night_reads_no_rows_and_no_exports(aggregated: Lake, server: Server) -> None:
    with server.counting() as requests:
        leased_night(aggregated)
    assert len(requests) <= 20
    assert [
        r.path for r in requests if r.method == "GET" and ("parquet" in r.path or "manifest" in r.path)
    ] == []
    # An export that somebody has spoiled is looked at again.
    folder = paths.exports(aggregated.meters()[0].name, "2026-06")
    aggregated.storage.delete(folder + "revision=0001/manifest.json")
    report = night(Lake(aggregated.url), AS_OF)
    assert {(done.period, done.action) for done in report.exports} == {
        ("2026-05", "unchanged"),
        ("2026-06", "exported"),
    }


def test_one_new_file_adds_at_most_twenty_requests(aggregated: Lake, server: Server) -> None:
    with server.counting() as nothing:
        leased_aggregation(aggregated)
    meter = aggregated.meters()[0]
    put(aggregated, meter, "b.parquet", DAYS[5], event("b", day=DAYS[5]))
    with server.counting() as one:
        leased_aggregation(aggregated)
    assert 0 < len(one) - len(nothing) <= 20
    # And no fewer for not having done it.
    assert aggregated.usage(meter.name, DAYS[5], DAYS[4]).collect()["events"].to_list() == [2]


def test_a_whole_night_with_one_new_file_adds_at_most_seventy_requests(
    aggregated: Lake, server: Server
) -> None:
    """Its month's export included, which reads every date of the month, and again on the next night."""
    leased_night(aggregated)
    with server.counting() as nothing:
        leased_night(aggregated)
    meter = aggregated.meters()[0]
    for number, day in enumerate((DAYS[5], DAYS[6], DAYS[30], DAYS[0])):
        late = event(f"late {number}", day=day)
        put(aggregated, meter, f"late-{number}.parquet", day, late)
        with server.counting() as one:
            leased_night(aggregated)
        assert 0 < len(one) - len(nothing) <= 70, [f"{r.kind} {r.path}" for r in one]
        exported = [r.path for r in one if r.kind == "PUT" and r.path.endswith(f"/{paths.MANIFEST}")]
        assert len(exported) == 1

    # What is told so is what an export that reads every date tells.
    def usage() -> bytes | None:
        *_, last = (f.path for f in aggregated.storage.list(paths.EXPORTS) if f.path.endswith("/usage.csv"))
        return aggregated.storage.read(last)

    told = usage()
    aggregated.storage.delete_all(file.path for file in aggregated.storage.list(paths.EXPORTS))
    ran(aggregated, lambda report: export(aggregated, report, month_of(DAY)))
    assert told == usage()


def test_a_night_with_a_copy_on_another_date_reads_only_its_two_partitions(
    aggregated: Lake, server: Server
) -> None:
    meter = aggregated.meters()[0]
    earlier = event(f"a {DAYS[30]}", day=DAYS[30])["received_at"] - dt.timedelta(minutes=1)
    noon = event("a", day=DAYS[31])["timestamp"]
    moved = event(f"a {DAYS[30]}", day=DAYS[31], timestamp=noon, received_at=earlier)
    put(aggregated, meter, "b.parquet", DAYS[31], moved)
    with server.counting() as requests:
        report = night(Lake(aggregated.url), AS_OF)
    assert recomputed(report) == {DAYS[30]: "a duplicate in another partition", DAYS[31]: "files added"}
    read = {r.path.split("date=")[1] for r in requests if r.kind == "GET" and "/events/" in r.path}
    assert read == {f"{DAYS[31]}/a.parquet", f"{DAYS[31]}/b.parquet", f"{DAYS[30]}/a.parquet"}


def test_landing_one_event_asks_as_much_however_many_meters_there_are(
    lake: Lake, server: Server, tmp_path: Path
) -> None:
    for n in range(METERS):
        defined(lake, f"meter {n}")
    line = {"subject": "org_1", "meter": "meter 7", "quantity": 1, "timestamp": f"{DAY}T12:00:00Z"}
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n")
    opened = Lake(lake.url)
    with server.counting() as requests:
        ran(opened, lambda report: land(opened, [str(tmp_path / "events.jsonl")], report))
    kinds = Counter("GET" if r.kind == "HEAD" else r.kind for r in requests)
    assert kinds["GET"] <= 4
    assert kinds["PUT"] <= 4
    assert sum(kinds.values()) <= 12, [f"{r.kind} {r.path}" for r in requests]


def test_reading_two_of_many_columns_reads_few_bytes(lake: Lake, server: Server) -> None:
    meter = defined(lake)
    numbers = random.Random(1)
    rows = [event(f"key {n}", f"org_{n % 7}", metadata=f"{numbers.getrandbits(800)}") for n in range(20_000)]
    fill(lake, {paths.events(meter.name, DAY) + "a.parquet": parquet(meter, *rows)})
    with server.counting() as all_columns:
        lake.raw_events(meter.name).collect()
    with server.counting() as two:
        sums = lake.raw_events(meter.name).group_by("subject").agg(pl.col("quantity").sum()).collect()
    assert sums.height == 7
    whole, part = (sum(r.sent_bytes for r in found if "/events/" in r.path) for found in (all_columns, two))
    assert part < whole / 5
