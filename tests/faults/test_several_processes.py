"""Real processes on one lake at the same time, some of them killed: nothing counts twice, and nothing is lost."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from faults.kills import ENV, completed, killed
from jobs.aggregate.job import aggregate
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.run_report import reported
from lake import paths
from schemas.errors import StorageError
from support import DAY, METER, a_lake, aggregated, event, put

NAME = METER["name"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def command(lake: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", "--lake", str(lake), *map(str, arguments)]


BEGIN = """
import sys, time
from pathlib import Path
from lake import Lake
lake = Lake(sys.argv[1])
def wait_for(number):
    while not Path(f"{lake.url}-turn-{number}").exists():
        time.sleep(0.001)
"""


def turn(lake: Path, number: int) -> None:
    """Let the process beside this one go on where it waits for this number, however fast either of them is."""
    lake.with_name(f"{lake.name}-turn-{number}").touch()


@contextmanager
def beside(lake: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `script`, which has the lake as `lake`, until the body ends."""
    called = [sys.executable, "-c", BEGIN + script, str(lake)]
    with subprocess.Popen(called, env=ENV, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(process: subprocess.Popen[str]) -> None:
    """Wait until a process ends, and that it ended well."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def body(key: str | None, day: dt.date, hours: int = 0, **changes: Any) -> dict[str, Any]:
    at = dt.datetime.combine(day, dt.time(1), dt.UTC)
    received = at + dt.timedelta(hours=hours)
    found = {"idempotency_key": key, "subject": "org_1", "meter": NAME, "quantity": 1}
    return found | {"timestamp": at.isoformat(), "received_at": received.isoformat()} | changes


def write(file: Path, bodies: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(each) + "\n" for each in bodies))
    return file


# Killed at random moments


def inputs(folder: Path, days: int, chance: random.Random) -> list[Path]:
    """A file a day: events of that day, and retries of the day before, some on this date, some with another payload."""
    folder.mkdir()
    files, before = [], list[str]()
    for number in range(days):
        day = DAY + dt.timedelta(days=number)
        keys = [f"{number}-{n}" for n in range(60)]
        bodies = [
            body(key, day, subject=f"org_{chance.randrange(5)}", quantity=chance.randrange(1, 10**6) / 1000)
            for key in keys
        ]
        bodies += [body(None, day, subject="org_9", metadata={"plan": "pro"}) for _ in range(5)]
        for key in before[:20]:
            bodies.append(body(key, day, hours=2, quantity=chance.randrange(1, 9)))
            bodies.append(body(key, day - dt.timedelta(days=1), hours=30, subject="org_2"))
        files.append(write(folder / f"{number}.jsonl", bodies))
        before = keys
    return files


def winners(files: list[Path]) -> list[tuple[dt.date, str, Any, int]]:
    """Date, subject, sum and count of the events that count, by SQL over the inputs as they were sent."""
    names = ", ".join(f"'{file}'" for file in files)
    query = f"""
        set TimeZone = 'UTC';
        with lines as (
            select *, row_number() over () as line
            from read_json([{names}], columns = {{idempotency_key: 'varchar', subject: 'varchar',
                quantity: 'decimal(38, 9)', "timestamp": 'varchar', received_at: 'varchar'}})
        ), events as (
            select *, row_number() over (
                partition by coalesce(idempotency_key, 'line ' || line)
                order by received_at::timestamptz, "timestamp"::timestamptz, quantity, subject
            ) as place
            from lines
        )
        select ("timestamp"::timestamptz)::date as date, subject, sum(quantity)::decimal(38, 9), count(*)
        from events where place = 1 group by all order by all
    """
    return duckdb.connect().execute(query).fetchall()


@pytest.mark.parametrize("retention_days", [3, 90])
def test_jobs_that_are_killed_at_random_moments_end_as_the_winners_of_all_events(
    scratch: Path, retention_days: int
) -> None:
    chance = random.Random(retention_days)
    lake, _ = a_lake(scratch / "lake", event_retention_days=retention_days)
    files = inputs(scratch / "inputs", 5, chance)
    for number, file in enumerate(files):
        as_of = DAY + dt.timedelta(days=number)
        killed(scratch / "lake", chance.random(), "land", file)
        assert completed(scratch / "lake", "land", file) == 0
        killed(scratch / "lake", chance.random(), "nightly", "--as-of", as_of)
        killed(scratch / "lake", chance.random(), "compact", "--as-of", as_of)
    # All of it once more: nothing of it is new.
    assert completed(scratch / "lake", "land", *files) == 0
    assert completed(scratch / "lake", "nightly", "--as-of", DAY + dt.timedelta(days=len(files))) == 0
    found = lake.usage_by_subject(NAME).select("date", "subject", "quantity", "events").collect().rows()
    assert found == winners(files)
    other, _ = a_lake(scratch / "other")
    with reported(other, "land") as report:
        land(other, [str(file) for file in files], report)
        aggregate(other, report)
    for table in paths.TABLES:
        assert getattr(lake, table)(NAME).collect().equals(getattr(other, table)(NAME).collect()), table
    assert completed(scratch / "lake", "verify") == 0
    sealed = len(files) - retention_days if retention_days < len(files) else 0
    assert len(lake.events(NAME).collect()["date"].unique()) == len(files) - sealed


# Beside each other


def test_two_processes_that_land_one_input_land_it_once(scratch: Path) -> None:
    lake, _ = a_lake(scratch / "lake")
    bodies = [body(None, DAY + dt.timedelta(days=n % 3), quantity=n % 7) for n in range(3_000)]
    file = write(scratch / "usage.jsonl", bodies)
    for _ in range(2):
        landers = [
            subprocess.Popen(command(scratch / "lake", "land", file), env=ENV, **QUIET) for _ in range(3)
        ]
        # Quantities of 0 go to quarantine.
        assert {lander.wait() for lander in landers} <= {0, 1}
        assert lake.events(NAME).collect().height == sum(1 for each in bodies if each["quantity"])
        rejected = pl.read_parquet(scratch / "lake/quarantine/**/*.parquet", hive_partitioning=False)
        assert rejected.height == sum(1 for each in bodies if not each["quantity"])


def test_an_event_that_lands_while_its_date_is_dropped_counts_or_is_quarantined(scratch: Path) -> None:
    """Dates expire under the hands of a producer that lands file after file."""
    lake, _ = a_lake(scratch / "lake", event_retention_days=1)
    files = [
        write(
            scratch / f"{number}.jsonl", [body(f"{number}-{n}", DAY + dt.timedelta(days=n)) for n in range(5)]
        )
        for number in range(30)
    ]
    script = f"""
from jobs.land.job import land
from jobs.run_report import reported
for number in range({len(files)}):
    wait_for(number // 3)
    with reported(lake, "land") as report:
        land(lake, [f"{scratch}/{{number}}.jsonl"], report)
    Path(f"{scratch}/{{number}}.jsonl").unlink()
"""
    with beside(scratch / "lake", script) as lander:
        while lander.poll() is None:
            day = (len(files) - sum(file.exists() for file in files)) // 3
            with reported(lake, "nightly") as report:
                nightly(lake, report, as_of=DAY + dt.timedelta(days=min(day, 9)))
            assert report.exit_code in (0, 1), report.errors
            turn(scratch / "lake", day)
        finished(lander)
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=DAY + dt.timedelta(days=9))
    counted = lake.usage(NAME).select(pl.col("events").sum()).collect().item()
    reasons = Counter[str]()
    for file in (scratch / "lake/quarantine").rglob("*.parquet"):
        reasons.update(pl.read_parquet(file)["reason"].to_list())
    assert set(reasons) == {"sealed_partition"}
    assert counted + reasons.total() == len(files) * 5


def test_a_reader_beside_compaction_sees_the_same_events_all_the_time(scratch: Path) -> None:
    lake, meter = a_lake(scratch / "lake", event_retention_days=300)
    days = [DAY + dt.timedelta(days=number) for number in range(12)]
    for day in days:
        for name in "abc":
            put(lake, meter, f"{name}.parquet", event("k", day=day), event(f"{day}{name}", day=day), day=day)
    aggregated(lake)
    expected = sorted(lake.events(NAME).collect()["idempotency_key"])
    lost = lake.duplicates(NAME).collect().height
    script = """
import datetime as dt
from jobs.compact import compact
from jobs.run_report import reported
for number in range(14):
    wait_for(number)
    with reported(lake, "compact") as report:
        compact(lake, report, as_of=dt.date(2026, 6, 20) + dt.timedelta(days=number))
    assert not report.errors, report.errors
"""
    reads = 0
    with beside(scratch / "lake", script) as compacting:
        while compacting.poll() is None:
            assert sorted(lake.events(NAME).collect()["idempotency_key"]) == expected
            assert lake.duplicates(NAME).collect().height == lost
            turn(scratch / "lake", reads)
            reads += 1
        finished(compacting)
    assert sorted(lake.events(NAME).collect()["idempotency_key"]) == expected


def test_a_reader_beside_retention_sees_whole_dates(scratch: Path) -> None:
    lake, meter = a_lake(scratch / "lake", event_retention_days=1)
    days = [DAY + dt.timedelta(days=number) for number in range(20)]
    for day in days:
        for name in "abc":
            put(lake, meter, f"{name}.parquet", event(f"{day}{name}", day=day), event(None, day=day), day=day)
    aggregated(lake)
    script = """
import datetime as dt
from jobs.run_report import reported
from jobs.retain import retain
for number in range(22):
    wait_for(number)
    with reported(lake, "retain") as report:
        retain(lake, report, as_of=dt.date(2026, 6, 20) + dt.timedelta(days=number))
"""
    reads, seen = itertools.count(), set()
    with beside(scratch / "lake", script) as retaining:
        while retaining.poll() is None:
            try:
                dates = Counter(lake.events(NAME).collect()["date"])
                assert lake.duplicates(NAME).collect().is_empty()
            except (FileNotFoundError, StorageError):
                # Dropped after the frame was made, or again and again while it was made: that is said, and never an
                # answer without these events.
                continue
            finally:
                turn(scratch / "lake", next(reads))
            assert set(dates.values()) <= {6}
            # Dates go in their order, so those that are there are the last ones.
            assert sorted(dates) == days[len(days) - len(dates) :]
            seen.add(len(dates))
        finished(retaining)
    assert seen
    assert lake.events(NAME).collect().is_empty()


def test_a_producer_beside_a_night_is_never_an_error(scratch: Path) -> None:
    """A hidden name, then a rename: new files, and the same ones again and again."""
    lake, meter = a_lake(scratch / "lake")
    for number in range(50):
        put(lake, meter, f"{number}.parquet", event(f"k{number}"))
    script = f"""
folder = Path(lake.url) / "{paths.events(NAME, DAY)}"
content = (folder / "0.parquet").read_bytes()
for number in range(1_000_000):
    hidden = folder / f".{{number}}.parquet"
    hidden.write_bytes(content)
    hidden.rename(folder / f"new{{number % 3}}.parquet")
"""
    with beside(scratch / "lake", script) as producer:
        while not (scratch / "lake" / paths.events(NAME, DAY) / "new0.parquet").exists():
            assert producer.poll() is None
        for _ in range(6):
            with reported(lake, "nightly") as report:
                nightly(lake, report, as_of=DAY)
            assert report.errors == []
            assert lake.events(NAME).collect().height == 50
    aggregated(lake)
    assert lake.usage(NAME).collect()["events"].sum() == 50
