"""Lakes that earlier versions made go on with the numbers that they had: on a disk, copied, and on S3, as they were."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from depth import DEEP
from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.verify import verify_exports
from jobs.land.job import land
from jobs.verify.job import verify
from lake import Lake, paths
from schemas.columns import MEASURES
from storage.lakes import answers, fill, night, ran

# The day on which it was left.
TODAY = dt.date(2026, 9, 10)
HERE = Path(__file__).parent.parent / "lakes"
EARLIER = "e98b748"
# Its producer wrote files that could not be counted; what can be later is counted then.
ODD = "odd_files"
OPEN = "a/b ü=1"
# Of which it kept `quantity` as a double.
QUOTIENTS = ("latency", "traffic")
# In the rows of all tables.
QUANTITY = -len(MEASURES)


@pytest.fixture(params=["local", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lake(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Lake:
    """The earlier lake: copied with other times and inodes on a disk, with the same identities on S3."""
    stored = HERE / f"{EARLIER}-{kind}"
    if kind == "local":
        shutil.copytree(stored, tmp_path / "lake")
        return Lake(str(tmp_path / "lake"))
    url = f"{request.getfixturevalue('bucket')}/lake"
    files = (file for file in stored.rglob("*") if file.is_file())
    empty = Lake.init(url)
    fill(empty, {str(file.relative_to(stored)): file.read_bytes() for file in files})
    return Lake(url)


@pytest.fixture
def before(kind: str) -> dict[str, Any]:
    """What the version that made it read from it; its doubles rounded to the nine places of today."""
    found = dict(json.loads((HERE / f"{EARLIER}.json").read_text())[kind])
    for meter in QUOTIENTS:
        for table in (*paths.TABLES, "totals"):
            for row in found[meter][table]:
                row[QUANTITY] = str(Decimal(row[QUANTITY]).quantize(Decimal("1e-9"), ROUND_HALF_EVEN))
    return found


def test_every_table_event_and_total_reads_as_before(lake: Lake, before: dict[str, Any]) -> None:
    assert _without_odd(answers(lake)) == _without_odd(before)


def test_a_night_changes_no_number(lake: Lake, before: dict[str, Any]) -> None:
    report = night(lake, TODAY)
    assert {error["where"].split("/")[1] for error in report.errors} <= {f"meter={ODD}"}
    _same_numbers(answers(lake), before)


def test_every_export_names_its_last_revision_after_a_night(lake: Lake) -> None:
    night(lake, TODAY)
    files = [file.path for file in lake.storage.list(paths.EXPORTS)]
    manifests = [path for path in files if path.endswith(f"/{paths.MANIFEST}")]
    # In their order the last one of each folder stays.
    last = {path.rpartition("revision=")[0]: path for path in manifests}
    assert {paths.latest(folder) for folder in last} == {
        path for path in files if path.endswith(paths.LATEST)
    }
    for folder, manifest in last.items():
        said = json.loads(lake.storage.read(paths.latest(folder)) or b"")
        body = lake.storage.read(manifest) or b""
        assert paths.revision(folder, said["revision"]) + paths.MANIFEST == manifest
        assert said["manifest_sha256"] == hashlib.sha256(body).hexdigest()
        assert said["kind"] == json.loads(body)["kind"]
        assert said["closed"] == (folder + paths.CLOSED in files)
        assert folder + f"revision={said['usage_revision']:04d}/usage.csv" in files
    if not lake.url.startswith("s3://"):
        assert [each for each in verify_exports(Path(lake.url) / paths.EXPORTS) if each.problems] == []


def test_verify_finds_nothing_after_a_night(lake: Lake) -> None:
    night(lake, TODAY)
    report = ran(lake, lambda report: verify(lake, report))
    assert report.errors == []


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
def test_verify_needs_no_night_where_the_files_are_the_same(lake: Lake) -> None:
    report = ran(lake, lambda report: verify(lake, report))
    # Of the interrupted landing one file is there, which is not aggregated.
    assert {error["where"] for error in report.errors} == {paths.events(OPEN, dt.date(2026, 9, 7))}


def test_a_night_leaves_no_doubles_in_tables_of_sealed_dates_and_the_next_one_nothing_to_do(
    lake: Lake,
) -> None:
    report = night(lake, TODAY)
    recomputed = {each.meter for each in report.partitions if each.action == "recomputed"}
    assert recomputed == set(QUOTIENTS)
    for meter in QUOTIENTS:
        for table in paths.TABLES:
            for file in lake.storage.list(paths.aggregates(table, meter)):
                assert lake.storage.scan([file]).collect_schema()["quantity"] == pl.Decimal(38, 9)
    assert [each.action for each in night(lake, TODAY).partitions] == []


def test_doubles_that_were_exported_make_no_new_revision(lake: Lake, before: dict[str, Any]) -> None:
    night(lake, TODAY)
    after = answers(lake)
    for meter in QUOTIENTS:
        assert after[meter]["exports"] == before[meter]["exports"]


@pytest.mark.parametrize("period", ["2026-07", "2026-08"])
def test_an_export_has_nothing_new_to_say(lake: Lake, before: dict[str, Any], period: str) -> None:
    night(lake, TODAY)
    report = ran(lake, lambda report: export(lake, report, parse_period(period)))
    assert {done.action for done in report.exports} <= {"unchanged", "nothing used"}
    _same_numbers(answers(lake), before)


@pytest.mark.parametrize(
    "lost",
    [("state/",), ("index/",), ("recent/",), ("state/", "index/", "recent/")],
    ids="+".join,
)
def test_it_is_told_from_its_tables_where_the_state_or_a_cache_is_lost(
    lake: Lake, kind: str, before: dict[str, Any], lost: tuple[str, ...]
) -> None:
    if kind == "s3" and len(lost) == 1 and not DEEP:
        pytest.skip("by default only all of them at once on S3, and each by itself on a disk")
    for folder in lost:
        lake.storage.delete_all(file.path for file in lake.storage.list(folder))
    night(lake, TODAY)
    _same_numbers(answers(lake), before)


def test_all_of_it_can_be_computed_anew(lake: Lake, before: dict[str, Any]) -> None:
    ran(lake, lambda report: aggregate(lake, report, rebuild=True))
    _same_numbers(answers(lake), before)


def test_compaction_goes_on(lake: Lake, before: dict[str, Any]) -> None:
    night(lake, TODAY)
    ran(lake, lambda report: compact(lake, report, as_of=TODAY))
    _same_numbers(answers(lake), before)


def test_the_interrupted_input_is_resumed(lake: Lake) -> None:
    report = ran(lake, lambda report: land(lake, [str(HERE / f"{EARLIER}-interrupted.jsonl")], report))
    (landed,) = report.inputs
    assert (landed["status"], landed["events"], landed["quarantined"]) == ("landed", 2, 1)
    night(lake, TODAY)
    keys = lake.events(OPEN).collect()["idempotency_key"].to_list()
    assert [keys.count(key) for key in ("i1", "i2", "i3")] == [1, 1, 0]


def test_events_of_sealed_dates_stay_out(lake: Lake, before: dict[str, Any], tmp_path: Path) -> None:
    event = {"idempotency_key": "new", "subject": "org_1", "meter": "calls", "quantity": 1}
    late = tmp_path / "late.jsonl"
    late.write_text(json.dumps(event | {"timestamp": "2026-07-30T10:00:00Z"}) + "\n")
    report = ran(lake, lambda report: land(lake, [str(late)], report))
    assert report.quarantined == {"sealed_partition": 1}
    night(lake, TODAY)
    _same_numbers(answers(lake), before)


@pytest.mark.parametrize("kind", ["local"], indirect=True)
def test_what_its_producer_wrote_in_other_types_counts_now(lake: Lake) -> None:
    assert lake.usage_by_subject(ODD).collect()["quantity"].to_list() == [6]
    report = night(lake, TODAY)
    assert lake.usage_by_subject(ODD).collect()["quantity"].to_list() == [9]
    assert [Path(error["where"]).name for error in report.errors] == ["broken.parquet"]


def _without_odd(found: dict[str, Any]) -> dict[str, Any]:
    """All but the meter of which more can be read where its files are looked at anew, as after copying them."""
    return {meter: tables for meter, tables in found.items() if meter != ODD}


def _same_numbers(after: dict[str, Any], before: dict[str, Any]) -> None:
    """All meters say what they said, but for the rows that the interrupted landing had put there already."""
    for meter in before.keys() - {ODD, OPEN}:
        for table, rows in before[meter].items():
            if table != "exports":
                assert after[meter][table] == rows, (meter, table)
    _revisions_stay(after, before)
    assert _usage_before(after[OPEN], "2026-09-07") == before[OPEN]["usage_by_subject"]


def _revisions_stay(after: dict[str, Any], before: dict[str, Any]) -> None:
    for meter, found in before.items():
        assert found["exports"].items() <= after[meter]["exports"].items(), meter


def _usage_before(meter: dict[str, Any], date: str) -> list[list[str]]:
    return [row for row in meter["usage_by_subject"] if row[0] < date]
