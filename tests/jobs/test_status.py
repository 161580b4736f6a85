"""The status of a lake: what it counts, what it calls out of date, and that it reads no event data."""

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.cli import app
from jobs.export.due import MonthDue
from jobs.run_report import RunReport, decode_report, reported
from jobs.screen.humanize import duration
from jobs.status import Late, MeterStatus, RunStatus, Undefined, meter_status, outcome, status
from lake import Lake, paths
from lake.meters import save_meter
from lake.state.lateness import Lateness
from lake.state.records import READING_RULES, MeterState, PartitionState, RejectedFile
from lake.state.state_file import save_state
from lake.storage import StoredFile
from schemas.columns import QUARANTINE_TYPES
from schemas.errors import BadInputError
from schemas.meter import Meter

METER = Meter(name="seats", unit="seat")
D1, D2, D3 = dt.date(2026, 6, 1), dt.date(2026, 6, 2), dt.date(2026, 6, 3)
NOW = dt.datetime(2026, 6, 19, 3, tzinfo=dt.UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.init(str(tmp_path / "lake"))
    save_meter(lake.storage, METER)
    return lake


def record(**more: Any) -> PartitionState:
    facts: dict[str, Any] = {
        "meter_version": METER.version,
        "files": {"a.parquet": "1"},
        "fingerprint": "0" * 16,
        "losers": "0" * 16,
        "events": 10,
        "aggregated_at": NOW,
        "rules": READING_RULES,
    }
    return PartitionState(**facts | more)


def listed(date: dt.date, *names: str) -> list[StoredFile]:
    return [StoredFile(f"{paths.events(METER.name, date)}{name}", 1, "1") for name in names]


def put_event_file(lake: Lake, meter: str, name: str = "a.parquet", date: dt.date = D1) -> str:
    """A file that is no Parquet: who reads event data fails."""
    lake.storage.publish(paths.events(meter, date) + name, b"not read")
    return lake.storage.list(paths.events(meter, date))[0].identity


def put_quarantine(lake: Lake, meter: str | None, name: str, **reasons: int) -> None:
    rows = pl.DataFrame({"reason": [reason for reason, count in reasons.items() for _ in range(count)]})
    columns = QUARANTINE_TYPES
    missing = [pl.lit(None, dtype).alias(column) for column, dtype in columns.items() if column != "reason"]
    local = lake.storage.scratch(".parquet")
    rows.with_columns(missing).select(*columns).write_parquet(local)
    lake.storage.publish_file(paths.quarantine(meter, D1) + name, local)


def late(shortest: float, longest: float, counts: dict[int, int]) -> Lateness:
    return Lateness(shortest_seconds=shortest, longest_seconds=longest, counts=counts)


def test_an_empty_lake(lake: Lake) -> None:
    found = status(lake, runs=5)
    assert found.meters == [MeterStatus(meter="seats")]
    assert (found.lake, found.undefined, found.runs, found.problems) == (lake.url, [], [], [])


def test_what_a_state_counts() -> None:
    records = {
        D1: record(events=10, duplicates=3, conflicts=1, late=late(1, 9, {1: 9, 13: 1}), sealed_at=NOW),
        D2: record(events=20, duplicates=4, late=late(2, 100, {5: 6, 26: 4})),
        # Its events are all gone or invalid: it is no newest date.
        D3: record(events=0),
    }
    files = {date: listed(date, "a.parquet") for date in (D2, D3)}
    assert meter_status(METER, files, MeterState(partitions=records)) == MeterStatus(
        meter="seats",
        events=30,
        newest=D2,
        partitions=3,
        sealed=1,
        duplicates=7,
        conflicts=1,
        late=Late(
            median_seconds=pytest.approx(2**1.125), p95_seconds=pytest.approx(2**6.375), max_seconds=100
        ),
    )


def test_what_is_out_of_date() -> None:
    records = {D1: record(), D2: record(meter_version="other")}
    files = {
        D1: listed(D1, "a.parquet", "b.parquet"),
        D2: listed(D2, "a.parquet"),
        D3: listed(D3, "a.parquet"),
    }
    found = meter_status(METER, files, MeterState(partitions=records))
    assert found.out_of_date == {D1: "files added", D2: "definition changed", D3: "new"}
    assert list(found.out_of_date) == [D1, D2, D3]
    assert found.partitions == 3


def test_rejected_files_are_named_as_long_as_they_are_there() -> None:
    said = {"kind": "bad input", "what": "unreadable file", "where": "events/…/b.parquet"}
    rejected = {
        "b.parquet": RejectedFile(identity="1", **said),
        "gone.parquet": RejectedFile(identity="1", **said | {"where": "gone"}),
    }
    stray = BadInputError("stray file", where="events/x")
    files = {D1: listed(D1, "a.parquet", "b.parquet")}
    found = meter_status(METER, files, MeterState(partitions={D1: record(rejected=rejected)}), [stray])
    assert found.rejected_files == [said, stray.to_dict()]


def test_no_event_data_is_read(lake: Lake) -> None:
    identity = put_event_file(lake, "seats")
    save_state(lake.storage, "seats", MeterState(partitions={D1: record(files={"a.parquet": identity})}))
    found = status(lake, runs=0)
    due = [MonthDue(period="2026-06", form="usual", revision=0, closed=False, why="no revision")]
    assert found.meters == [MeterStatus(meter="seats", events=10, newest=D1, partitions=1, exports_due=due)]
    assert (found.problems, found.exit_code) == ([], 0)


def test_nothing_is_written(lake: Lake, tmp_path: Path) -> None:
    put_event_file(lake, "seats")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status(lake, runs=5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_quarantined_rows_by_reason(lake: Lake) -> None:
    put_quarantine(lake, "seats", "a.parquet", subject_missing=1, dimension_type=1)
    put_quarantine(lake, "seats", "b.parquet", quantity_invalid=3, subject_missing=1)
    found = status(lake, runs=0).meters[0]
    assert list(found.quarantined.items()) == [
        ("quantity_invalid", 3),
        ("subject_missing", 2),
        ("dimension_type", 1),
    ]


def test_what_belongs_to_no_meter(lake: Lake) -> None:
    put_quarantine(lake, None, "a.parquet", not_json=2)
    put_quarantine(lake, "seat/s", "a.parquet", unknown_meter=1)
    put_event_file(lake, "typo")
    assert status(lake, runs=0).undefined == [
        Undefined(meter=None, quarantined={"not_json": 2}),
        Undefined(meter="seat/s", quarantined={"unknown_meter": 1}),
        Undefined(meter="typo", event_files=1),
    ]


def test_an_unreadable_file_of_ours_does_not_hide_the_rest(lake: Lake) -> None:
    save_meter(lake.storage, Meter(name="users", unit="user"))
    put_quarantine(lake, "seats", "a.parquet", not_json=2)
    lake.storage.publish(paths.quarantine("seats", D1) + "b.parquet", b"")
    lake.storage.publish(paths.state("users"), b"{")
    found = status(lake, runs=0)
    assert [(each.meter, each.quarantined) for each in found.meters] == [
        ("seats", {"not_json": 2}),
        ("users", {}),
    ]
    assert [said["where"] for said in found.problems] == [
        "quarantine/meter=seats/date=2026-06-01/b.parquet",
        "state/users.json",
    ]
    assert found.exit_code == 3


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{", "not a meter definition"),
        (b'{"name": "seats", "unit": "seat", "untit": 1}', "unknown field `untit`"),
        (b'{"name": "other", "unit": "seat"}', "the definition of another meter"),
    ],
)
def test_a_broken_definition_hides_no_other_meter(lake: Lake, body: bytes, what: str) -> None:
    save_meter(lake.storage, Meter(name="users", unit="user"))
    put_event_file(lake, "seats")
    lake.storage.publish(paths.meter_definition("seats"), body)
    identity = put_event_file(lake, "users")
    save_state(lake.storage, "users", MeterState(partitions={D1: record(files={"a.parquet": identity})}))
    found = status(lake, runs=0)
    assert [(each.meter, each.events) for each in found.meters] == [("seats", 0), ("users", 10)]
    (said,) = found.problems
    assert said["where"] == "meters/seats.json"
    assert what in said["what"]
    assert said["hint"] == "add the definition again: meterlake meter add FILE"
    assert (found.undefined, found.exit_code) == ([], 3)


def run_at(lake: Lake, minute: int, **fields: Any) -> str:
    start = NOW + dt.timedelta(minutes=minute)
    fields = {"job": "aggregate", "finished_at": start + dt.timedelta(seconds=2.5), **fields}
    path = paths.run(start, fields["job"])
    lake.storage.publish(path, RunReport(started_at=start, **fields).to_json())
    return path


def test_the_last_runs_the_newest_first(lake: Lake) -> None:
    run_at(lake, 0)
    second = run_at(lake, 1, job="land", exit_code=1, quarantined={"not_json": 2, "unknown_meter": 1})
    third = run_at(lake, 2, exit_code=3)
    lake.storage.publish("runs/notes.txt", b"not a report")
    assert status(lake, runs=2).runs == [
        RunStatus(
            file=third,
            started_at=NOW + dt.timedelta(minutes=2),
            job="aggregate",
            outcome="failed",
            seconds=2.5,
        ),
        RunStatus(
            file=second,
            started_at=NOW + dt.timedelta(minutes=1),
            job="land",
            outcome="incomplete",
            seconds=2.5,
            quarantined=3,
        ),
    ]
    assert len(status(lake, runs=99).runs) == 3
    assert status(lake, runs=0).runs == []


def test_an_unreadable_report(lake: Lake) -> None:
    path = paths.run(NOW, "land")
    lake.storage.publish(path, b"{")
    assert status(lake, runs=1).runs == [
        RunStatus(file=path, started_at=NOW, job="land", outcome="unreadable report")
    ]


def test_a_real_run_is_shown(lake: Lake) -> None:
    with reported(lake, "aggregate"):
        pass
    (run,) = status(lake, runs=5).runs
    assert (run.job, run.outcome) == ("aggregate", "done")
    assert run.seconds is not None


@pytest.mark.parametrize(("exit_code", "said"), [(0, "done"), (1, "incomplete"), (3, "failed")])
def test_outcomes(exit_code: int, said: str) -> None:
    assert outcome(RunReport(job="x", started_at=NOW, exit_code=exit_code)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (5400, "1.5 h"),
        (86400, "1 d"),
        (-120, "-2 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_people_see(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    identity = put_event_file(lake, "seats")
    put_event_file(lake, "typo")
    put_quarantine(lake, "seats", "a.parquet", not_json=1234)
    put_quarantine(lake, None, "a.parquet", meter_missing=1)
    said = {"identity": identity, "what": "unreadable file", "where": "b.parquet", "hint": "replace it"}
    put_event_file(lake, "seats", "b.parquet")
    one = record(
        events=1234567,
        files={"a.parquet": identity},
        rejected={"b.parquet": RejectedFile(**said)},
        late=late(5, 7200, {10: 60, 26: 36, 52: 4}),
        duplicates=12,
        conflicts=1,
    )
    save_state(lake.storage, "seats", MeterState(partitions={D1: one, D2: record(sealed_at=NOW)}))
    run_at(lake, 0, quarantined={"not_json": 1234}, exit_code=1)
    assert app.run(["--lake", lake.url, "status"]) == 0
    shown = capsys.readouterr()
    assert (
        shown.out
        == f"""\
lake {lake.url}

meter     events  newest      partitions  out of date  sealed
seats  1,234,577  2026-06-02           2            1       1

events by day  2026-05-04          2026-06-02  most a day
seats                                      █▁   1,234,567

not counted  quarantined  duplicates  conflicts  late p50      p95  max
seats              1,234          12          1     5.2 s  1.4 min  2 h

out of date: seats
  2026-06-01  files replaced

to be exported: seats
  2026-06  no revision

not counted: 1 file of events of typo, which is no defined meter

quarantined: seats
      1,234  not_json

quarantined: rows that name no meter
          1  meter_missing

last runs (UTC)      job        outcome     seconds  partitions  quarantined
2026-06-19 03:00:00  aggregate  incomplete      2.5           0        1,234

to do
- bring 1 date up to date: meterlake aggregate
- export 1 month: meterlake nightly
- 1,235 quarantined rows: see reason, detail and raw in the Parquet files of
  quarantine/, correct the raw text, land it as a new file
- define typo, or correct who sends it: meterlake meter add FILE
"""
    )
    assert shown.err == "error: b.parquet: unreadable file\nhint: replace it\n"
    assert max(map(len, shown.out.splitlines()[1:])) <= 80


def test_only_the_newest_dates_out_of_date_are_listed(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 9):
        put_event_file(lake, "seats", date=dt.date(2026, 6, day))
    assert app.run(["--lake", lake.url, "status"]) == 0
    out = capsys.readouterr().out
    assert "  2026-06-03" not in out
    assert "  2026-06-04  new\n" in out
    assert "… and 3 more; --json has all\n" in out
    assert app.run(["--lake", lake.url, "status", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["meters"][0]["out_of_date"]) == 8


EARLIER_REPORTS = sorted((Path(__file__).parents[1] / "lakes").glob("e98b748-*/runs/*.json"))


@pytest.mark.parametrize("file", EARLIER_REPORTS[::7], ids=lambda file: file.name)
def test_a_report_of_an_earlier_version_has_todays_names(file: Path) -> None:
    stored, now_named = json.loads(file.read_bytes()), decode_report(file.read_bytes(), file.name)
    assert now_named.schema_version == 2
    assert now_named.errors == stored["problems"]
    assert now_named.stage_seconds == stored["seconds"]
    assert [each.reason for each in now_named.partitions] == [each["why"] for each in stored["partitions"]]
    actions = [each["action"].replace("withdrawn", "deleted") for each in stored["partitions"]]
    assert [each.action for each in now_named.partitions] == actions
    assert [each.omitted_rows for each in now_named.exports] == [
        each.get("left_out", []) for each in stored["exports"]
    ]
    again = json.loads(now_named.to_json())
    assert (again["schema_version"], again["job"], again["exit_code"]) == (
        2,
        stored["job"],
        stored["exit_code"],
    )
    assert decode_report(now_named.to_json(), file.name) == now_named


def test_the_runs_of_an_earlier_lake_are_shown(tmp_path: Path) -> None:
    folder = shutil.copytree(EARLIER_REPORTS[0].parents[1], tmp_path / "lake")
    found = status(Lake(str(folder)), runs=100).runs
    assert len(found) == len([*(folder / "runs").iterdir()])
    for run in found:
        stored = json.loads((folder / run.file).read_bytes())
        assert run.outcome == {0: "done", 1: "incomplete"}.get(stored["exit_code"], "failed")
        assert run.partitions == len(stored["partitions"])


@pytest.mark.parametrize(
    "members", [{"schema_version": 3}, {"schema_version": 2, "problems": 1, "errors": 1}, {"partitions": 1}]
)
def test_a_report_of_an_unknown_form_is_unreadable(lake: Lake, members: dict[str, Any]) -> None:
    path = run_at(lake, 0)
    stored = json.loads(lake.storage.read(path) or b"")
    lake.storage.publish(path, json.dumps(stored | members).encode())
    assert [run.outcome for run in status(lake, runs=1).runs] == ["unreadable report"]
