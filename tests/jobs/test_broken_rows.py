"""What would publish rows that break a rule of their table publishes nothing of them, says which, and goes on with others."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import jobs.aggregate.compute
import jobs.land.write
from jobs.cli import app
from lake import Lake, paths
from lake.aggregates.publish import publish_partition, read_partition
from lake.aggregates.valid_tables import valid_tables
from lake.events.quarantine import publish_rejected
from lake.state.records import METADATA_KEY
from lake.state.state_file import load_state, save_state
from schemas.errors import BrokenLakeError
from support import DAY, a_lake, aggregated, content, define, event, put, usage

NEXT = DAY + dt.timedelta(days=1)
AFTER = NEXT + dt.timedelta(days=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two meters with events of three dates."""
    lake, meter = a_lake(tmp_path / "lake")
    for of in (meter, define(lake, name="other")):
        for day in (DAY, NEXT, AFTER):
            put(lake, of, "a.parquet", event(f"k{day}", day=day), event(f"l{day}", "org_2", day=day), day=day)
    return lake


def run(lake: Lake, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command line; gives its exit code and its report."""
    code = app.run(["--lake", lake.url, *arguments, "--json"])
    ran = capsys.readouterr()
    assert "Traceback" not in ran.err
    return code, json.loads(ran.out)


def problem(report: dict[str, Any]) -> dict[str, str]:
    (only,) = report["errors"]
    assert only["kind"] == "broken lake"
    assert "nothing of it was published" in only["hint"]
    return only  # type: ignore[no-any-return] # of a JSON document


def breaking(date: dt.date, table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[..., Any]:
    """A program whose rows of one table and date are others than they should be."""
    tables = jobs.aggregate.compute.usage_tables

    def broken(*arguments: Any) -> dict[str, pl.DataFrame]:
        found = tables(*arguments)
        return found | ({table: change(found[table])} if str(date) in arguments[3] else {})

    return broken


ROWS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "type": (lambda rows: rows.with_columns(pl.col("events").cast(pl.Int32)), "events: Int32"),
    "null": (
        lambda rows: rows.with_columns(quantity=pl.lit(None, rows.schema["quantity"])),
        "quantity: null in 2 of 2 rows",
    ),
    "range": (lambda rows: rows.with_columns(events=0 * pl.col("events")), "events: 0 in 2 of 2 rows"),
    "order": (lambda rows: rows.reverse(), "keys: after date 2026-06-20, subject org_2"),
    "duplicate": (lambda rows: rows[[0, 1, 1]], "keys: after date 2026-06-20, subject org_2"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_aggregate_leaves_a_date_as_it_was_and_does_the_others(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    meter = lake.meter("active_users")
    aggregated(lake)
    before = content(Path(lake.url), "aggregates")
    for day in (NEXT, AFTER):
        put(lake, meter, "b.parquet", event(f"more {day}", "org_2", "5", day=day), day=day)
    change, found = ROWS[kind]
    with monkeypatch.context() as patch:
        patch.setattr(jobs.aggregate.compute, "usage_tables", breaking(NEXT, "usage_by_subject", change))
        code, report = run(lake, capsys, "aggregate")
    assert code == 3
    where = paths.aggregate("usage_by_subject", meter.name, NEXT)
    assert (problem(report)["where"], problem(report)["what"]) == (
        where,
        "rows of usage_by_subject break its rules",
    )
    assert problem(report)["found"].startswith(found)
    assert [done["date"] for done in report["partitions"]] == [str(AFTER)]
    after = content(Path(lake.url), "aggregates")
    assert {name for name in after if after[name] != before[name]} == {
        paths.aggregate(table, meter.name, AFTER) for table in paths.TABLES
    }
    code, report = run(lake, capsys, "aggregate")
    assert (code, [done["date"] for done in report["partitions"]]) == (0, [str(NEXT)])
    assert [quantity for _, subject, quantity in usage(lake, meter) if subject == "org_2"] == [1, 6, 6]


@pytest.mark.parametrize("table", paths.TABLES)
def test_every_table_is_looked_at_and_its_path_named(lake: Lake, table: str) -> None:
    meter = lake.meter("active_users")
    aggregated(lake)
    right, broken = (
        read_partition(lake.storage, meter.name, DAY),
        read_partition(lake.storage, meter.name, AFTER),
    )
    broken[table] = broken[table].with_columns(events=pl.lit(-1, pl.Int64))
    found = valid_tables(meter, {DAY: right, NEXT: {}, AFTER: broken})
    error = found[AFTER]
    assert isinstance(error, BrokenLakeError)
    assert error.where == paths.aggregate(table, meter.name, AFTER)
    assert (found[DAY], found[NEXT]) == (right, {})
    # What was found to be right may be published.
    record = load_state(lake.storage, meter.name).partitions[DAY]
    assert not isinstance(found[DAY], BrokenLakeError)
    assert publish_partition(lake.storage, meter.name, DAY, found[DAY], record) > 0


def test_land_publishes_no_event_of_such_rows_and_lands_other_inputs(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name in ("active_users", "other"):
        said = {
            "meter": name,
            "idempotency_key": "z",
            "subject": "acme",
            "quantity": 3,
            "timestamp": f"{DAY}T01:00:00Z",
        }
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(json.dumps(said))
    before = content(Path(lake.url), "events/meter=active_users")
    keys = jobs.land.write.keep_earlier_keys

    def negative(storage: Any, meter: str, events: pl.DataFrame, landed_at: dt.datetime) -> pl.DataFrame:
        kept = keys(storage, meter, events, landed_at)
        return kept.with_columns(quantity=-pl.col("quantity")) if meter == "active_users" else kept

    with monkeypatch.context() as patch:
        patch.setattr(jobs.land.write, "keep_earlier_keys", negative)
        code, report = run(lake, capsys, "land", *map(str, files))
    assert code == 3
    assert problem(report)["where"] == "events/meter=active_users/"
    assert problem(report)["expected"] == "quantity: more than 0"
    row = "idempotency_key 'z', subject 'acme'"
    assert problem(report)["found"] == f"quantity: -3.000000000 in 1 of 1 rows, first where {row}"
    assert report["events_landed"] == 1
    assert content(Path(lake.url), "events/meter=active_users") == before
    code, report = run(lake, capsys, "land", *map(str, files))
    assert (code, report["events_landed"]) == (0, 1)


def edit_table(lake: Lake, table: str, date: dt.date, **columns: pl.Expr) -> None:
    """Rewrite rows of a published table, as anybody can who may write into the lake."""
    file = Path(lake.url) / paths.aggregate(table, "active_users", date)
    record = pl.read_parquet_metadata(file)[METADATA_KEY]
    rows = pl.read_parquet(file, hive_partitioning=False)
    edited = rows.with_columns(**columns).cast(dict(rows.schema))  # type: ignore[arg-type] # of its own columns
    edited.write_parquet(file, metadata={METADATA_KEY: record})


def forget_checksums(lake: Lake) -> None:
    """Leave a meter's records as an earlier version did, which recorded no checksums of rows."""
    state = load_state(lake.storage, "active_users")
    for record in state.partitions.values():
        record.checksums.clear()
    save_state(lake.storage, "active_users", state)


def test_export_bills_nothing_of_such_rows(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    aggregated(lake)
    edit_table(lake, "usage_by_subject", DAY, quantity_min=-pl.col("quantity_min"))
    forget_checksums(lake)
    code, report = run(lake, capsys, "export", "--period", "2026-06")
    assert code == 3
    assert problem(report)["where"] == "exports/active_users/period=2026-06/usage.parquet"
    assert (
        problem(report)["found"] == "quantity_min: -1.000000000 in 2 of 2 rows, first where subject 'org_1'"
    )
    assert {name.split("/")[1] for name in content(Path(lake.url), "exports")} == {"other"}
    assert run(lake, capsys, "aggregate", "--rebuild")[0] == 0
    assert run(lake, capsys, "export", "--period", "2026-06")[0] == 0


def test_export_adjusts_nothing_by_such_rows(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    aggregated(lake)
    assert run(lake, capsys, "export", "--period", "2026-06")[0] == 0
    # A file of the last revision that was edited with its manifest.
    revision = Path(lake.url) / "exports/active_users/period=2026-06/revision=0001"
    file = revision / "usage.parquet"
    rows = pl.read_parquet(file)
    rows.with_columns(quantity=-pl.col("quantity")).write_parquet(file)
    put(lake, lake.meter("active_users"), "b.parquet", event("more"))
    aggregated(lake)
    code, report = run(lake, capsys, "export", "--period", "2026-06", "--meter", "active_users")
    assert code == 3
    assert problem(report)["where"] == "exports/active_users/period=2026-06/adjustments.parquet"
    assert problem(report)["found"].startswith("quantity_before: -3.000000000 in 2 of 2 rows")
    assert [path.name for path in revision.parent.iterdir() if path.is_dir()] == ["revision=0001"]


def test_retain_makes_no_such_rows_final(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    aggregated(lake)
    edit_table(lake, "usage", NEXT, events=pl.lit(0))
    forget_checksums(lake)
    code, report = run(lake, capsys, "retain", "--as-of", str(AFTER + dt.timedelta(days=31)))
    assert code == 3
    assert problem(report)["where"] == paths.aggregate("usage", "active_users", NEXT)
    assert problem(report)["found"].startswith(
        "events: 0 in 2 of 2 rows, first where date 2026-06-20, subject"
    )
    assert load_state(lake.storage, "active_users").sealed == {DAY, AFTER}
    kept = {name.split("/")[2] for name in content(Path(lake.url), "events/meter=active_users")}
    assert kept == {f"date={NEXT}"}


def test_rejected_rows_without_a_known_reason_are_not_published(lake: Lake) -> None:
    at = dt.datetime(2026, 6, 19, tzinfo=dt.UTC)
    row = {"reason": "odd", "detail": "d", "raw": "{", "source": "a", "position": 1, "landed_at": at}
    path = f"{paths.quarantine('active_users', DAY)}x.parquet"
    with pytest.raises(BrokenLakeError, match="reason: odd in 1 of 1 rows") as caught:
        publish_rejected(lake.storage, path, pl.DataFrame([row]))
    assert caught.value.where == path
    assert not content(Path(lake.url), "quarantine")
