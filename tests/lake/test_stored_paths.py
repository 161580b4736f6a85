"""Paths and names out of stored records: only of the one kind of place that they may name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from lake.state.state_file import load_state
from schemas.errors import BrokenLakeError
from support import DAY, a_lake, aggregated, content, event, put

EVENT = '{"meter": "active_users", "idempotency_key": "n", "subject": "a", "quantity": 1}\n'
SHA256 = hashlib.sha256(EVENT.encode()).hexdigest()
START = f"land-{SHA256[:16]}-"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/x", "a/b"])
def test_what_is_no_name_of_a_file(name: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a file"):
        paths.check_stored_names(["a.parquet", name])


def test_names_of_files() -> None:
    paths.check_stored_names(["a.parquet", "ü b.parquet", "..a"])


def landed(lake: Lake, source: Path) -> RunReport:
    with reported(lake, "land") as report:
        land(lake, [str(source)], report)
    return report


def planted(outside: Path) -> list[str]:
    day = f"date={DAY}"
    return [
        str(outside),
        f"../{outside.name}",
        f"quarantine/meter=active_users/{day}/../../../../{outside.name}",
        "meters/active_users.json",
        "lake.json",
        f"events/meter=active_users/{day}/a.parquet",
        f"events/meter=active_users/{day}/{START}0000.parquet",
        f"quarantine/meter=active_users/{day}/land-{'0' * 16}-0000.parquet",
        f"quarantine/meter=active_users/{day}/deeper/{START}0000.parquet",
        f"quarantine/{START}0000.parquet",
        "",
    ]


@pytest.mark.parametrize("number", range(len(planted(Path("x")))))
@pytest.mark.parametrize("complete", [True, False])
def test_a_planted_record_makes_landing_write_nowhere_else(
    tmp_path: Path, number: int, *, complete: bool
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"))
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    (tmp_path / "in.jsonl").write_text(EVENT)
    record = {
        "source": "x",
        "landed_at": "2026-06-19T00:00:00Z",
        "complete": complete,
        "quarantined": {"x": 1},
    }
    record["quarantine_files"] = [planted(outside)[number]]
    lake.storage.publish(paths.landed(SHA256), json.dumps(record).encode())
    before = content(tmp_path, "outside", "lake/events", "lake/meters", "lake/quarantine", "lake/landed")
    report = landed(lake, tmp_path / "in.jsonl")
    assert report.exit_code == 3
    assert [said["where"] for said in report.errors] == [paths.landed(SHA256)]
    assert (
        content(tmp_path, "outside", "lake/events", "lake/meters", "lake/quarantine", "lake/landed") == before
    )
    assert outside.read_bytes() == b"kept"
    with reported(lake, "verify") as report:
        verify(lake, report)
    assert paths.landed(SHA256) in [said["where"] for said in report.errors]


def test_a_state_that_names_files_elsewhere_is_broken(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    state = msgspec.json.decode(lake.storage.read(paths.state(meter.name)) or b"")
    (record,) = state["partitions"].values()
    record["files"] = {"../../../../x": "1"}
    lake.storage.publish(paths.state(meter.name), msgspec.json.encode(state))
    with pytest.raises(BrokenLakeError, match=r"state/active_users.json: .*'../../../../x'"):
        load_state(lake.storage, meter.name)
