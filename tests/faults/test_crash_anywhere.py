"""A job that fails or dies at any of its operations leaves whole partitions, and the next run ends as if nothing was."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from depth import DEEP, evenly
from faults.kills import completed, killed
from faults.storage import BrokenOffError, DyingStorage, FaultyStorage
from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.retain import retain
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.meters import save_meter
from lake.state.state_file import load_state
from lake.storage import LocalStorage
from oracle.generate import Spec, generate, meter_body, write_lake
from schemas.errors import MeterlakeError, StorageError
from schemas.meter import parse_meter
from support import DAY, METER, a_lake, aggregated, event, put, retained

DAYS = [DAY + dt.timedelta(days=number) for number in range(4)]
# DAYS[0] has been dropped before; on this day DAYS[1] has expired too.
AS_OF = DAYS[1] + dt.timedelta(days=31)
NAME = METER["name"]
Job = Callable[[Lake, RunReport], None]
WAYS: dict[str, tuple[bool, type[BaseException]]] = {
    "fails before": (False, StorageError),
    "breaks off after": (True, BrokenOffError),
}
# Of a job's operations on a whole lake, so many fail in each way, evenly spread.
OPERATIONS = 10
# Of those on each kind of lake, so many fail by chance, the same ones each time.
SAMPLE = 4
if DEEP:
    WAYS |= {"fails after": (True, StorageError), "breaks off before": (False, BrokenOffError)}


@pytest.fixture(scope="session")
def prepared(scratch_of_session: Path) -> Path:
    """A lake with everything in it that a job can meet; tests work on copies of it."""
    folder = scratch_of_session / "prepared"
    prepare(folder)
    return folder


def prepare(folder: Path) -> None:
    """Make a lake with everything in it that a job can meet."""
    lake, meter = a_lake(folder)
    for number, day in enumerate(DAYS):
        copies = [event("k", quantity=str(number + 1), day=day), event(f"own {number}", day=day)]
        put(lake, meter, "a.parquet", *copies, event("bad", quantity="-1", day=day), day=day)
    # Of these, that of DAYS[1] is compacted and then expires; that of DAYS[2] is compacted with what comes late.
    for day in DAYS:
        put(lake, meter, "b.parquet", event(f"more {day}", day=day), event(None, day=day), day=day)
    aggregated(lake)
    retained(lake, DAYS[0] + dt.timedelta(days=31))
    put(lake, meter, "late.parquet", event("too late"), day=DAYS[0])
    earlier = event("k", day=DAYS[2], received_at=event("k")["received_at"])
    put(lake, meter, "more.parquet", event("new", day=DAYS[2]), earlier, day=DAYS[2])
    put(lake, meter, "replaced.parquet", event("old", day=DAYS[3]), day=DAYS[3])
    (folder / paths.events(NAME, DAYS[3]) / "a.parquet").unlink()
    bodies = [
        {
            "idempotency_key": key,
            "subject": "s",
            "meter": NAME,
            "quantity": quantity,
            "timestamp": f"{day}T10:00:00Z",
        }
        for key, quantity, day in [
            ("l1", 1, DAYS[1]),
            ("l2", 0, DAYS[1]),
            ("l3", 1, DAYS[2]),
            ("l4", 1, DAYS[0]),
        ]
    ]
    times = {"received_at": f"{DAYS[2]}T11:00:00Z"}
    (folder / "input.jsonl").write_text("".join(json.dumps(body | times) + "\n" for body in bodies))


def _land(lake: Lake, report: RunReport) -> None:
    land(lake, [f"{lake.url}/input.jsonl"], report)


def _retain(lake: Lake, report: RunReport) -> None:
    retain(lake, report, as_of=AS_OF)


def _nightly(lake: Lake, report: RunReport) -> None:
    nightly(lake, report, as_of=AS_OF)


def _compact(lake: Lake, report: RunReport) -> None:
    aggregate(lake, report)
    compact(lake, report, as_of=AS_OF)


JOBS: dict[str, Job] = {
    "land": _land,
    "aggregate": aggregate,
    "compact": _compact,
    "retain": _retain,
    "nightly": _nightly,
}


def ended(lake: Lake) -> dict[str, Any]:
    """All that a lake says, but for moments and names that depend on them."""
    rejected = sorted((Path(lake.url) / paths.QUARANTINE).rglob("*.parquet"))
    rows = [
        row for file in rejected for row in pl.read_parquet(file).select("reason", "raw", "position").rows()
    ]
    state = load_state(lake.storage, NAME)
    return {
        "tables": {t: getattr(lake, t)(NAME).collect().to_dicts() for t in paths.TABLES},
        "events": lake.events(NAME).drop("received_at").collect().to_dicts(),
        # A merged file is named after what it was made of, which here has other times in each lake.
        "files": [
            re.sub("compacted-[0-9a-f]+", "compacted", file.path) for file in lake.storage.list(paths.EVENTS)
        ],
        "sealed": state.sealed,
        "counts": {d: (p.events, p.duplicates, p.conflicts) for d, p in state.partitions.items()},
        "quarantined": Counter(rows),
        "settled": [file.path for file in lake.storage.list(paths.SEALED_WINNERS)],
        "told": {
            period: (Path(lake.url) / place / "usage.csv").read_bytes()
            for period, place in _told(lake).items()
        },
    }


def _told(lake: Lake) -> dict[str, str]:
    """The folder of the last revision of each month."""
    listed = (file.path for file in lake.storage.list(paths.EXPORTS))
    manifests = (path for path in listed if path.endswith(f"/{paths.MANIFEST}"))
    return {path.split("/")[2]: path.removesuffix(paths.MANIFEST) for path in manifests}


def published(lake: Lake) -> dict[tuple[str, dt.date], list[dict[str, Any]]]:
    """The rows of every partition in every table, as a reader sees them now."""
    found = {}
    for file in lake.storage.list(paths.AGGREGATES):
        place = paths.split_partition(file.path)
        assert place, file
        rows = pl.read_parquet(lake.storage.uri(file.path), hive_partitioning=False).to_dicts()
        found[file.path, place.date] = rows
    return found


def dies(folder: Path, job: Job, before: str, survives: int) -> None:
    """A job that is killed after so many changes below a folder of the lake."""
    lake = Lake(str(folder))
    with pytest.raises(BrokenOffError), reported(lake, "job") as report:
        job(lake.over(DyingStorage(folder, before, survives)), report)


def lost_state(folder: Path) -> None:
    (folder / paths.state(NAME)).unlink()


def lost_index(folder: Path) -> None:
    shutil.rmtree(folder / paths.indexes(NAME))


def half_written(folder: Path) -> None:
    """Of the two dates with new files the first is published, and of the second one table."""
    dies(folder, aggregate, paths.AGGREGATES, 4)


def half_sealed(folder: Path) -> None:
    """All tables of a date are sealed, and the state does not know it."""
    aggregated(Lake(str(folder)))
    dies(folder, _retain, paths.STATE, 0)


def half_dropped(folder: Path) -> None:
    """A sealed date that has lost one of its two files."""
    aggregated(Lake(str(folder)))
    dies(folder, _retain, f"{paths.events(NAME, DAYS[1])}", 1)


def half_withdrawn(folder: Path) -> None:
    """A date whose files are gone, and one of its tables."""
    aggregated(Lake(str(folder)))
    shutil.rmtree(folder / paths.events(NAME, DAYS[3]))
    dies(folder, aggregate, paths.AGGREGATES, 1)


def half_compacted(folder: Path) -> None:
    """Merged files of which the state does not know."""
    dies(folder, _compact, paths.STATE, 3)


def never_aggregated(folder: Path) -> None:
    for place in (paths.AGGREGATES, paths.STATE, paths.INDEX, paths.SEALED_WINNERS):
        shutil.rmtree(folder / place)


# What happened to the lake of `prepared`, in this order, before a job is disturbed.
KINDS: dict[str, list[Callable[[Path], None]]] = {
    "lost state": [lost_state],
    "lost index": [lost_index],
    "lost state and index": [lost_state, lost_index],
    "half written": [half_written],
    "half written, lost state": [half_written, lost_state],
    "half sealed": [half_sealed],
    "half sealed, lost state": [half_sealed, lost_state],
    "half dropped": [half_dropped],
    "half dropped, lost state": [half_dropped, lost_state],
    "half withdrawn": [half_withdrawn],
    "half withdrawn, lost state": [half_withdrawn, lost_state],
    "half compacted": [half_compacted],
    "half compacted, lost state": [half_compacted, lost_state],
    "never aggregated": [never_aggregated],
    "never aggregated, half written": [never_aggregated, half_written],
}
# Those that end as if nothing had happened: all but for where files are gone, merged, or never were sealed.
HARMLESS = [kind for kind in KINDS if not re.search("withdrawn|compacted|never", kind)]


def linked(source: Path, target: Path) -> Path:
    """The same lake once more, of the same files, to the inode: jobs replace files and change none in its place."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def run(lake: Lake, job: Job) -> None:
    with suppress(MeterlakeError, BrokenOffError), reported(lake, "job") as report:
        job(lake, report)


@pytest.mark.parametrize(("after", "error"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", JOBS)
def test_every_single_operation_may_fail(
    scratch: Path, prepared: Path, name: str, *, after: bool, error: type[BaseException]
) -> None:
    before = published(Lake(str(prepared)))
    undisturbed = Lake(str(linked(prepared, scratch / "undisturbed")))
    last = _operations(undisturbed, JOBS[name])
    assert last >= 5
    after_it = published(undisturbed)
    for follow in (JOBS[name], _nightly):
        run(undisturbed, follow)
    expected = ended(undisturbed)
    for fails_at in evenly(last, OPERATIONS, offset=int(after)):
        folder = linked(prepared, scratch / "disturbed")
        lake = Lake(str(folder))
        faulty = FaultyStorage(folder, fails_at, after=after, error=error)
        run(lake.over(faulty), JOBS[name])
        assert faulty.done >= fails_at
        for place, rows in published(lake).items():
            assert rows in (before.get(place), after_it.get(place)), (fails_at, place)
        _nothing_is_lost(lake, expected)
        for follow in (JOBS[name], _nightly):
            run(lake, follow)
        assert ended(lake) == expected, f"operation {fails_at}"
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["aggregate", "nightly"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_may_break_off_on_any_kind_of_lake_and_so_may_the_next(
    scratch: Path, prepared: Path, kind: str, name: str
) -> None:
    source = linked(prepared, scratch / "source")
    harmless = Lake(str(linked(source, scratch / "harmless")))
    for happened in KINDS[kind]:
        happened(source)
    undisturbed = Lake(str(linked(source, scratch / "undisturbed")))
    last = _operations(undisturbed, JOBS[name])
    run(undisturbed, _nightly)
    expected = ended(undisturbed)
    if kind in HARMLESS:
        for job in (JOBS[name], _nightly):
            run(harmless, job)
        assert expected == ended(harmless)
    chance = random.Random(f"{kind} {name}")
    for fails_at in sorted(chance.sample(range(1, last + 1), last if DEEP else min(SAMPLE, last))):
        folder = linked(source, scratch / "disturbed")
        lake = Lake(str(folder))
        again = chance.randrange(1, last + 1)
        for number in (fails_at, again):
            after = chance.random() < 1 / 2
            run(lake.over(FaultyStorage(folder, number, after=after, error=BrokenOffError)), JOBS[name])
        run(lake, _nightly)
        assert ended(lake) == expected, f"operation {fails_at}, then {again}"
        shutil.rmtree(folder)


def _comes(folder: Path, day: dt.date) -> Callable[[], None]:
    """Put a file whose event wins over one of DAYS[0], and give what takes it away again."""
    earlier = event("k")["received_at"] - dt.timedelta(hours=1)
    file = put(
        Lake(str(folder)),
        parse_meter(json.dumps(METER).encode(), "test"),
        "z.parquet",
        event("k", day=day, timestamp=earlier, received_at=earlier),
        event("z", day=day),
        day=day,
    )
    return file.unlink


def _goes(folder: Path, day: dt.date) -> Callable[[], None]:
    """Move a date's files away, and give what brings them back."""
    away = (folder / paths.events(NAME, day)).rename(folder / "away")
    return lambda: _back(away, folder / paths.events(NAME, day))


def _back(away: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    away.rename(target)


@pytest.mark.parametrize(
    ("change", "day"), [(_comes, DAYS[1]), (_comes, DAYS[3]), (_goes, DAYS[0]), (_goes, DAYS[1])]
)
def test_what_changed_before_a_job_broke_off_may_be_as_it_was_again(
    scratch: Path, change: Callable[[Path, dt.date], Callable[[], None]], day: dt.date
) -> None:
    """The tables are ahead of the state then, and no listed file tells of it."""
    lake, meter = a_lake(scratch / "prepared")
    for number in range(3):
        put(
            lake,
            meter,
            "a.parquet",
            event("k", day=DAYS[number]),
            event(f"own {number}", day=DAYS[number]),
            day=DAYS[number],
        )
    aggregated(lake)
    before = published(lake)
    fails_at, done = 0, 1
    while fails_at < done:
        fails_at += 1
        folder = linked(scratch / "prepared", scratch / "disturbed")
        lake, undo = Lake(str(folder)), change(folder, day)
        faulty = FaultyStorage(folder, fails_at, after=True, error=BrokenOffError)
        run(lake.over(faulty), aggregate)
        done = faulty.done + 1 if faulty.done >= fails_at else fails_at
        undo()
        run(lake, aggregate)
        assert published(lake) == before, f"operation {fails_at}"
        shutil.rmtree(folder)
    assert fails_at >= 5


def _operations(lake: Lake, job: Job) -> int:
    """Run a job; gives the number of its operations."""
    counting = FaultyStorage(lake.url, 0, after=False, error=BrokenOffError)
    run(lake.over(counting), job)
    return counting.done


def _nothing_is_lost(lake: Lake, expected: dict[str, Any]) -> None:
    """What is missing of the raw events is in the aggregates, sealed."""
    held = {place.date for f in lake.storage.list(paths.EVENTS) if (place := paths.split_partition(f.path))}
    for date in set(DAYS) - held:
        rows = lake.usage(NAME, date, date + dt.timedelta(days=1)).collect().to_dicts()
        assert date in load_state(lake.storage, NAME).sealed
        assert rows == [row for row in expected["tables"]["usage"] if row["date"] == date]


def test_killed_at_random_moments(scratch: Path) -> None:
    """The real process, kill -9, each time with something new to aggregate."""
    chance, body = random.Random(3), meter_body("sum", NAME)
    folder, other = scratch / "lake", scratch / "other"
    lakes = [Lake.init(str(folder)), Lake.init(str(other))]
    for lake in lakes:
        save_meter(lake.storage, parse_meter(json.dumps(body).encode(), "test"))
    spec = Spec(events=1_000_000 if DEEP else 20_000, dates=20)
    write_lake(folder, NAME, generate(spec), 1, seed=1)
    aggregated(lakes[0])
    small = generate(Spec(events=2_000, dates=20, seed=2, subjects=50))
    for number in range(50 if DEEP else 8):
        date = spec.first_date + dt.timedelta(days=chance.randrange(20))
        rows = small.filter(pl.col("timestamp").dt.date() == date)
        rows.sample(20, seed=number).write_parquet(
            folder / paths.events(NAME, date) / f"late-{number}.parquet"
        )
        killed(folder, number, "aggregate")
        for file in lakes[0].storage.list(paths.AGGREGATES):
            pl.read_parquet(lakes[0].storage.uri(file.path), columns=["events"])
    assert completed(folder, "aggregate") == 0
    shutil.copytree(folder / "events", other / "events")
    aggregated(lakes[1])
    for table in paths.TABLES:
        found, expected = (getattr(lake, table)(NAME).collect() for lake in lakes)
        assert found.equals(expected), table
    assert LocalStorage(folder).list(paths.TEMPORARY) == []
