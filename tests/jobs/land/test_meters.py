"""Landing reads the meters that an input names, and no others; one that is broken keeps no other from landing."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.meters import save_meter
from lake.storage import LocalStorage
from support import DAY, a_lake, aggregated, define, retained

BROKEN, WHOLE, OTHER = "broken", "whole", "other"
ROWS = [(BROKEN, "b1"), (WHOLE, "w1"), (BROKEN, "b2"), (OTHER, "o1"), (WHOLE, "w2"), ("undefined", "u1")]


def body(meter: str, key: str) -> dict[str, Any]:
    at = f"{DAY}T10:00:00Z"
    return {
        "idempotency_key": key,
        "subject": "org_1",
        "meter": meter,
        "quantity": 1,
        "timestamp": at,
        "received_at": at,
        "metadata": {"plan": "pro"},
    }


def flat(meter: str, key: str) -> dict[str, Any]:
    said = body(meter, key)
    return said | said.pop("metadata")


def cloudevent(meter: str, key: str) -> dict[str, Any]:
    data = {"meter": meter, "quantity": 1, "plan": "pro"}
    names = {"specversion": "1.0", "id": key, "source": "s", "type": meter, "subject": "org_1"}
    return names | {"time": f"{DAY}T10:00:00Z", "data": data}


def lines(make: Callable[[str, str], dict[str, Any]]) -> bytes:
    return "".join(json.dumps(make(*row)) + "\n" for row in ROWS).encode()


def csv() -> bytes:
    return pl.DataFrame([flat(*row) for row in ROWS]).write_csv().encode()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame([flat(*row) for row in ROWS]).write_parquet(buffer)
    return buffer.getvalue()


FORMATS = {
    "body.jsonl": lambda: lines(body),
    "flat.jsonl": lambda: lines(flat),
    "one.json": lambda: json.dumps([body(*row) for row in ROWS]).encode(),
    "events.csv": csv,
    "events.parquet": parquet,
}
WAYS = {
    "definition": lambda lake: lake.storage.publish(paths.meter_definition(BROKEN), b'{"name": "\xff"}'),
    "state": lambda lake: lake.storage.publish(paths.state(BROKEN), b"\xff"),
    "state is a folder": lambda lake: Path(lake.storage.uri(paths.state(BROKEN))).mkdir(parents=True),
}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    for name in (BROKEN, WHOLE, OTHER):
        opened, _ = a_lake(tmp_path / "lake", name=name)
    return opened


def landed(lake: Lake, *files: Path) -> RunReport:
    with reported(lake, "land") as report:
        land(lake, list(map(str, files)), report)
    return report


def keys(lake: Lake, meter: str) -> list[str]:
    return sorted(lake.raw_events(meter).collect()["idempotency_key"].to_list())


def quarantined(lake: Lake) -> list[tuple[str, int]]:
    files = (lake.storage.uri(file.path) for file in lake.storage.list(paths.QUARANTINE))
    rows = pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in files)
    return rows.select("reason", "position").sort("position").rows()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_a_broken_meter_are_kept_and_land_once_it_is_mended(
    lake: Lake, tmp_path: Path, name: str, way: str
) -> None:
    before = lake.meter(BROKEN)
    file = tmp_path / name
    file.write_bytes(FORMATS[name]())
    WAYS[way](lake)
    report = landed(lake, file)
    assert (report.exit_code, report.events_landed) == (3, 3)
    assert [problem["kind"] for problem in report.errors] == ["broken lake"]
    assert report.errors[0]["where"].startswith((paths.METERS, paths.STATE))
    assert quarantined(lake) == [("meter_unreadable", 1), ("meter_unreadable", 3), ("unknown_meter", 6)]
    assert (keys(lake, WHOLE), keys(lake, OTHER)) == (["w1", "w2"], ["o1"])
    # Not landed yet, so it may be tried again.
    assert landed(lake, file).exit_code == 3
    mend(lake, before.to_json(), way)
    report = landed(lake, file)
    assert (report.exit_code, report.inputs[0]["status"]) == (1, "landed")
    assert (keys(lake, BROKEN), keys(lake, WHOLE), keys(lake, OTHER)) == (["b1", "b2"], ["w1", "w2"], ["o1"])
    assert quarantined(lake) == [("unknown_meter", 6)]
    assert "already landed" in landed(lake, file).inputs[0]["status"]


def mend(lake: Lake, definition: bytes, way: str) -> None:
    lake.storage.publish(paths.meter_definition(BROKEN), definition)
    state = Path(lake.storage.uri(paths.state(BROKEN)))
    if way == "state is a folder":
        state.rmdir()
    elif way == "state":
        state.unlink()


def test_cloudevents_of_a_broken_meter_are_kept(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(cloudevent))
    WAYS["state"](lake)
    assert landed(lake, file).quarantined["meter_unreadable"] == 2
    assert len(keys(lake, WHOLE)) == 2


@pytest.mark.parametrize("way", WAYS)
def test_an_input_that_names_no_broken_meter_lands(lake: Lake, tmp_path: Path, way: str) -> None:
    files = [tmp_path / name for name in ("a.jsonl", "b.csv", "c.parquet")]
    rows = [flat(WHOLE, "w1")]
    files[0].write_text(json.dumps(rows[0]) + "\n")
    pl.DataFrame(rows).with_columns(idempotency_key=pl.lit("w2")).write_csv(files[1])
    pl.DataFrame(rows).with_columns(idempotency_key=pl.lit("w3")).write_parquet(files[2])
    WAYS[way](lake)
    report = landed(lake, *files)
    assert (report.exit_code, report.events_landed, report.errors) == (0, 3, [])


def test_what_an_earlier_attempt_landed_is_not_late_once_its_date_is_sealed(
    lake: Lake, tmp_path: Path
) -> None:
    before = lake.meter(BROKEN)
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(body))
    WAYS["definition"](lake)
    landed(lake, file)
    aggregated(lake, meter=WHOLE)
    retained(lake, DAY + dt.timedelta(days=60))
    assert keys(lake, WHOLE) == []
    mend(lake, before.to_json(), "definition")
    report = landed(lake, file)
    assert report.quarantined == {"unknown_meter": 1}
    aggregated(lake)
    rows = lake.usage_by_subject(WHOLE).select("subject", "quantity").collect().rows()
    assert rows == [("org_1", Decimal(2))]
    assert keys(lake, BROKEN) == ["b1", "b2"]


class _Recording(LocalStorage):
    """A storage that notes what is read, and what of it at once."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.reads: list[list[str]] = []

    def read(self, path: str) -> bytes | None:
        self.reads.append([path])
        return super().read(path)

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        self.reads.append(list(paths))
        return [super(_Recording, self).read(path) for path in paths]


@pytest.mark.parametrize("name", FORMATS)
def test_only_meters_that_are_named_are_read_and_all_at_once(lake: Lake, tmp_path: Path, name: str) -> None:
    for number in range(100):
        define(lake, name=f"meter {number}")
    aggregated(lake)
    file = tmp_path / name
    file.write_bytes(FORMATS[name]())
    storage = _Recording(lake.url)
    landed(lake.over(storage), file)
    about = [
        [path for path in read if path.startswith((paths.METERS, paths.STATE))] for read in storage.reads
    ]
    found = sorted(path for read in about for path in read)
    places = [
        place(meter) for meter in (BROKEN, OTHER, WHOLE) for place in (paths.meter_definition, paths.state)
    ]
    assert found == sorted(places)
    if name.endswith(".jsonl"):
        assert [len(read) for read in about if read] == [6]


def test_a_meter_that_is_defined_between_two_runs_is_known(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(body("undefined", "u1")) + "\n")
    assert landed(lake, file).quarantined == {"unknown_meter": 1}
    save_meter(lake.storage, define(lake, name="undefined"))
    assert landed(lake, file).events_landed == 1
