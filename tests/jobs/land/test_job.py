"""Landing: every format, every rule, quarantine, and that the same input never adds anything twice."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.land.job import land
from jobs.land.read import json_stream, line_batches
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.storage import LocalStorage
from schemas.columns import event_columns
from schemas.errors import StorageError
from support import DAY, a_lake, aggregated, content, define, event, put, retained, set_flush_bounds

BODY: dict[str, Any] = {
    "idempotency_key": "active_org_123_user_456_2026_06_19",
    "subject": "org_123",
    "meter": "active_users",
    "quantity": 1,
    "timestamp": "2026-06-19T10:00:00Z",
    "metadata": {"plan": "enterprise"},
}


def landed(lake: Lake, *inputs: Path | str, file_format: str | None = None) -> RunReport:
    with reported(lake, "land") as report:
        land(lake, [str(source) for source in inputs], report, file_format)
    return report


def written(folder: Path, *bodies: Any, name: str = "usage.jsonl") -> Path:
    file = folder / name
    file.write_text("".join((body if isinstance(body, str) else json.dumps(body)) + "\n" for body in bodies))
    return file


def body(number: int = 0, **changes: Any) -> dict[str, Any]:
    said = BODY | {"idempotency_key": f"key {number}"} | changes
    return {name: value for name, value in said.items() if value is not ...}


def quarantined(lake: Lake) -> pl.DataFrame:
    files = sorted((Path(lake.url) / paths.QUARANTINE).rglob("*.parquet"))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files]).sort(
        "source", "position"
    )


def test_the_usage_body_of_the_contract_lands_as_it_is(tmp_path: Path) -> None:
    dimensions = [{"name": name, "type": "string"} for name in ("plan", "workspace", "role", "source")]
    lake, meter = a_lake(tmp_path / "lake", dimensions=dimensions)
    metadata = {"plan": "enterprise", "workspace": "workspace_456", "role": "admin", "source": "dashboard"}
    report = landed(lake, written(tmp_path, BODY | {"metadata": metadata}))
    assert (report.exit_code, report.events_landed, report.quarantined) == (0, 1, {})
    (file,) = (tmp_path / "lake" / paths.events(meter.name, DAY)).iterdir()
    found = pl.read_parquet(file, hive_partitioning=False)
    assert dict(found.schema) == event_columns(meter)
    row = found.row(0, named=True)
    assert row["quantity"] == Decimal(1)
    assert row["timestamp"] == dt.datetime(2026, 6, 19, 10, tzinfo=dt.UTC)
    assert row["metadata"] is None
    assert report.started_at <= row["received_at"] <= report.finished_at


LINES = "".join(json.dumps(body(number)) + "\n" for number in range(3))
FORMATS: dict[str, tuple[str, bytes]] = {
    "JSON Lines": ("a.jsonl", LINES.encode()),
    "without a last line end": ("a.ndjson", LINES.rstrip().encode()),
    "with CRLF and blank lines": ("a.jsonl", LINES.replace("\n", "\r\n\r\n").encode()),
    "with a byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
    "of no known name": ("a.log", LINES.encode()),
    "gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())),
    "two gzip members": ("a.gz", gzip.compress(LINES[:100].encode()) + gzip.compress(LINES[100:].encode())),
    "zstd": ("a.jsonl.zst", bytes(pa.compress(LINES.encode(), codec="zstd", asbytes=True))),
    "a JSON array": ("a.json", json.dumps([body(number) for number in range(3)]).encode()),
    "an indented array": ("a.txt", json.dumps([body(number) for number in range(3)], indent=2).encode()),
    "indented objects": ("a.json", "\n".join(json.dumps(body(n), indent=1) for n in range(3)).encode()),
    "an array in gzip": ("a.json.gz", gzip.compress(json.dumps([body(n) for n in range(3)]).encode())),
    "CSV": (
        "a.csv",
        b"idempotency_key,subject,meter,quantity,timestamp,plan\n"
        + b"".join(b"key %d,org_123,active_users,1,2026-06-19T10:00:00Z,enterprise\n" % n for n in range(3)),
    ),
}


@pytest.mark.parametrize(("name", "content"), FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_events(tmp_path: Path, name: str, content: bytes) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    (tmp_path / name).write_bytes(content)
    report = landed(lake, tmp_path / name)
    assert (report.exit_code, report.errors, report.events_landed) == (0, [], 3)
    found = lake.events(meter.name).collect()
    assert found["idempotency_key"].to_list() == ["key 0", "key 1", "key 2"]
    assert found["plan"].to_list() == ["enterprise"] * 3


def test_standard_input_lands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(LINES.encode()))))
    assert landed(lake, "-").events_landed == 3
    assert lake.events(meter.name).collect().height == 3
    assert not list((tmp_path / "lake" / paths.TEMPORARY).iterdir())


def test_one_object_lands(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    assert landed(lake, written(tmp_path, json.dumps(body(), indent=2), name="one.json")).events_landed == 1


TABLE = {
    "idempotency_key": ["a", None, "c"],
    "subject": ["s", "s", "s"],
    "meter": ["active_users"] * 3,
    "timestamp": [dt.datetime(2026, 6, 19, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))] * 3,
}
QUANTITIES: dict[str, tuple[pl.Series, list[str]]] = {
    "floats": (pl.Series([482.7, 0.1, 1e-7]), ["482.7", "0.1", "0.0000001"]),
    "integers": (pl.Series([1, 2, 3]), ["1", "2", "3"]),
    "text": (pl.Series(["1.5", " 2", "3e2"]), ["1.5", "2", "300"]),
    "decimals": (pl.Series(["1.123456789012", "2", "3"]).cast(pl.Decimal(38, 12)), ["1.123456789", "2", "3"]),
}


@pytest.mark.parametrize(("quantity", "expected"), QUANTITIES.values(), ids=QUANTITIES)
def test_parquet_lands_with_the_shortest_decimal_text_of_a_float(
    tmp_path: Path, quantity: pl.Series, expected: list[str]
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    pl.DataFrame(TABLE).with_columns(quantity=quantity, plan=pl.lit("pro")).write_parquet(
        tmp_path / "a.parquet"
    )
    report = landed(lake, tmp_path / "a.parquet")
    assert report.exit_code == 0
    found = lake.events(meter.name).collect()
    assert found["quantity"].to_list() == [Decimal(number) for number in expected]
    assert found["plan"].to_list() == ["pro"] * 3
    assert found["timestamp"].to_list() == [dt.datetime(2026, 6, 19, 10, tzinfo=dt.UTC)] * 3


METADATA: dict[str, pl.Series] = {
    "JSON text": pl.Series(
        ['{"plan": "pro", "x": 1.10}', ' {"x":1.10,"plan":"pro"} ', '{"plan":"pro","x":1.10}']
    ),
    "a struct": pl.Series([{"plan": "pro", "x": "y"}] * 3),
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_parquet_metadata_is_json_text_or_a_struct(tmp_path: Path, metadata: pl.Series) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    table = pl.DataFrame(TABLE).with_columns(quantity=1, metadata=metadata)
    table.write_parquet(tmp_path / "a.parquet")
    assert landed(lake, tmp_path / "a.parquet").exit_code == 0
    found = lake.events(meter.name).collect()
    assert found["plan"].to_list() == ["pro"] * 3
    assert json.loads(found["metadata"][0]).keys() == {"x"}


BAD_TABLES = {
    "no subject": (
        pl.DataFrame(TABLE).drop("subject").with_columns(quantity=1),
        "column 'subject' is missing",
    ),
    "no quantity": (pl.DataFrame(TABLE), "column 'quantity' is missing"),
    "a naive timestamp": (
        pl.DataFrame(TABLE).with_columns(pl.col("timestamp").dt.replace_time_zone(None), quantity=1),
        "column 'timestamp' is of a wrong type",
    ),
    "a subject of numbers": (
        pl.DataFrame(TABLE).with_columns(subject=1, quantity=1),
        "column 'subject' is of a wrong",
    ),
    "metadata of bytes": (
        pl.DataFrame(TABLE).with_columns(quantity=1, metadata=pl.lit(b"{}")),
        "column 'metadata' is of a wrong type",
    ),
    "a quantity of dates": (
        pl.DataFrame(TABLE).with_columns(quantity=pl.date(2026, 1, 1)),
        "column 'quantity' is of a wrong type",
    ),
}


@pytest.mark.parametrize(("table", "what"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_without_what_an_event_needs_is_refused_whole(
    tmp_path: Path, table: pl.DataFrame, what: str
) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    table.write_parquet(tmp_path / "a.parquet")
    good = written(tmp_path, body())
    report = landed(lake, tmp_path / "a.parquet", good)
    assert report.exit_code == 1
    assert report.errors[0]["what"].startswith(what)
    assert report.errors[0]["expected"]
    assert report.errors[0]["found"]
    assert report.events_landed == 1


FORGED = '{"a":1}}\n{"subject":"forged","meter":"active_users","quantity":500,"metadata":{}'
INNER: dict[str, tuple[str | None, str | None]] = {
    "an object": ('{"x":1}', None),
    "an object over several lines": ('{\r\n "x": 1,\n "y": [\n2]\n}', None),
    "nothing": ("", None),
    "null": ("null", None),
    "another event": (FORGED, "metadata_invalid"),
    "further fields": ('{"a":1},"received_at":"2020-01-01T00:00:00Z","x":{}', "metadata_invalid"),
    "half an object": ('{"a":1', "metadata_invalid"),
    "text": ("x", "metadata_invalid"),
}


@pytest.mark.parametrize(("text", "reason"), INNER.values(), ids=INNER)
def test_the_text_of_a_metadata_column_is_one_object_and_never_another_event(
    tmp_path: Path, text: str, reason: str | None
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    table = pl.DataFrame(TABLE).with_columns(quantity=1, metadata=pl.Series([None, text, "{}"]))
    table.write_parquet(tmp_path / "a.parquet")
    report = landed(lake, tmp_path / "a.parquet")
    assert report.quarantined == ({reason: 1} if reason else {})
    assert lake.raw_events(meter.name).collect().height == (2 if reason else 3)
    if reason:
        assert quarantined(lake)["position"].to_list() == [2]


TWICE = {
    "JSON text": pl.Series(['{"plan": "x"}', '{"y": 1}', None]),
    "a struct": pl.Series([{"plan": "x"}, {"plan": None}, None]),
}


@pytest.mark.parametrize("metadata", TWICE.values(), ids=TWICE)
def test_a_value_in_a_column_of_parquet_and_in_its_metadata_is_a_conflict(
    tmp_path: Path, metadata: pl.Series
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    table = pl.DataFrame(TABLE).with_columns(quantity=1, metadata=metadata, plan=pl.lit("pro"), n=1.5)
    table.write_parquet(tmp_path / "a.parquet")
    report = landed(lake, tmp_path / "a.parquet")
    found = quarantined(lake)
    assert found["position"].to_list()[0] == 1
    assert report.quarantined == {"metadata_conflict": 1}
    assert lake.raw_events(meter.name).collect()["plan"].to_list() == ["pro"] * 2


COLUMNS: dict[str, tuple[pl.Series, str | None]] = {
    "categories": (pl.Series(["a", None, None], dtype=pl.Categorical), '"a"'),
    "decimals": (pl.Series(["1.10", None, None]).cast(pl.Decimal(38, 2)), "1.10"),
    "dates": (pl.Series([dt.date(2026, 1, 1), None, None]), '"2026-01-01"'),
    "lists": (pl.Series([[1, 2], None, None]), "[1,2]"),
    "bytes": (pl.Series([b"\xff", None, None]), '"/w=="'),
    "bytes in a list": (pl.Series([[b"a", None], None, None]), '["YQ==",null]'),
    "no number": (pl.Series([float("nan"), None, None]), '"NaN"'),
    "nothing": (pl.Series([None, None, None]), None),
}


@pytest.mark.parametrize(("column", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_a_further_column_of_parquet_is_metadata_whatever_its_type_and_name(
    tmp_path: Path, column: pl.Series, expected: str | None
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    table = pl.DataFrame(TABLE).with_columns(column.alias('a "name"'), quantity=1)
    table = table.with_columns(pl.col("subject").cast(pl.Categorical), idempotency_key=None)
    table.write_parquet(tmp_path / "a.parquet")
    assert landed(lake, tmp_path / "a.parquet").errors == []
    found = lake.raw_events(meter.name).collect()["metadata"].to_list()
    assert found == [expected and '{"a \\"name\\"":' + expected + "}", None, None]


def test_csv_rows_have_their_own_numbers_and_one_that_does_not_fit_is_no_event(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    # As JSON this row would be an event; in a CSV file it is one that does not fit the header.
    sneaky = json.dumps({"subject": "x", "meter": "active_users", "quantity": 1, "received_at": None})
    rows = [
        "subject,meter,quantity",
        "a,active_users,1",
        sneaky,
        "",
        "b,active_users,0",
        "c,active_users",
        "d,active_users,2",
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    report = landed(lake, tmp_path / "a.csv")
    assert report.quarantined == {"not_json": 2, "quantity_not_positive": 1}
    assert quarantined(lake).select("position", "reason").rows() == [
        (2, "not_json"),
        (3, "quantity_not_positive"),
        (4, "not_json"),
    ]
    assert quarantined(lake)["raw"][0] == sneaky


def test_csv_types_come_from_the_rows_meter(tmp_path: Path) -> None:
    dimensions = [
        {"name": "plan", "type": "string", "required": False},
        {"name": "seats", "type": "number", "required": False},
        {"name": "trial", "type": "boolean", "required": False},
    ]
    lake, meter = a_lake(tmp_path / "lake", dimensions=dimensions)
    rows = [
        "subject,meter,quantity,timestamp,plan,seats,trial,note",
        's,active_users,1.50,2026-06-19T10:00:00Z,"12, ""x""",7,true,=1+1',
        "s,active_users,2,2026-06-19T10:00:00Z,,,,",
        "s,active_users,3,2026-06-19T10:00:00Z,p,many,,",
        "s,active_users,4,2026-06-19T10:00:00Z,p",
        's,active_users,5,2026-06-19T10:00:00Z,p,1,false,"two\nlines"',
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    report = landed(lake, tmp_path / "a.csv")
    assert report.quarantined == {"dimension_type": 1, "not_json": 1}
    columns = ("quantity", "plan", "seats", "trial", "metadata")
    assert lake.events(meter.name).select(columns).collect().rows() == [
        (Decimal("1.5"), '12, "x"', 7.0, True, '{"note":"=1+1"}'),
        (Decimal(2), None, None, None, None),
        (Decimal(5), "p", 1.0, False, '{"note":"two\\nlines"}'),
    ]
    assert "s,active_users,4," in "".join(quarantined(lake)["raw"])


RULES: dict[str, tuple[dict[str, Any], str | None]] = {
    "a subject of 128 bytes": ({"subject": "a" * 128}, None),
    "a subject of 129 bytes": ({"subject": "a" * 129}, "subject_invalid"),
    "a subject that is trimmed": ({"subject": " org:1.2-3_4 "}, None),
    "a subject with a space": ({"subject": "a b"}, "subject_invalid"),
    "a subject with a NUL": ({"subject": "a\x00"}, "subject_invalid"),
    "a subject that begins with a dot": ({"subject": ".a"}, "subject_invalid"),
    "an empty subject": ({"subject": " "}, "subject_missing"),
    "no subject": ({"subject": ...}, "subject_missing"),
    "no key": ({"idempotency_key": ...}, None),
    "no quantity": ({"quantity": ...}, "quantity_missing"),
    "a quantity of numeric text": ({"quantity": "2.5"}, None),
    "a quantity of 0": ({"quantity": 0}, "quantity_not_positive"),
    "a quantity that rounds to 0": ({"quantity": "0.0000000001"}, "quantity_not_positive"),
    "a negative quantity": ({"quantity": -1}, "quantity_not_positive"),
    "no timestamp": ({"timestamp": ...}, None),
    "a timestamp with an offset": ({"timestamp": "2026-06-19T12:00:00.123456789+02:00"}, None),
    "a timestamp in small letters": ({"timestamp": "2026-06-19t10:00:00z"}, None),
    "a timestamp without a zone": ({"timestamp": "2026-06-19T10:00:00"}, "timestamp_invalid"),
    "a date": ({"timestamp": "2026-06-19"}, "timestamp_invalid"),
    "a day that is none": ({"timestamp": "2026-02-30T10:00:00Z"}, "timestamp_invalid"),
    "the year 1": ({"timestamp": "0001-01-01T00:00:00Z"}, "timestamp_out_of_range"),
    "the year 0": ({"timestamp": "0000-01-01T00:00:00Z"}, "timestamp_invalid"),
    "an empty timestamp": ({"timestamp": ""}, "timestamp_invalid"),
    "24 hours ahead": ({"timestamp": "2026-06-20T10:00:00Z", "received_at": "2026-06-19T10:00:00Z"}, None),
    "more than 24 hours ahead": (
        {"timestamp": "2026-06-20T10:00:00.000001Z", "received_at": "2026-06-19T10:00:00Z"},
        "timestamp_in_future",
    ),
    "a received_at without a zone": ({"received_at": "2026-06-19T10:00:00"}, "received_at_invalid"),
    "no plan": ({"metadata": {}}, "dimension_missing"),
    "a null plan": ({"metadata": {"plan": None}}, "dimension_missing"),
    "an empty plan": ({"metadata": {"plan": ""}}, None),
    "a plan that is a number": ({"metadata": {"plan": 1}}, "dimension_type"),
    "metadata that is a list": ({"metadata": []}, "metadata_invalid"),
    "another meter": ({"meter": "other"}, "unknown_meter"),
    "a member that is no field": ({"unit": "x"}, None),
    "a member that is no field, and no key": ({"unit": "x", "idempotency_key": ...}, "unknown_field"),
}


@pytest.mark.parametrize(("changes", "reason"), RULES.values(), ids=RULES)
def test_a_row_lands_or_is_kept_with_its_reason_and_its_text(
    tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    lake, meter = a_lake(tmp_path / "lake", dimensions=[{"name": "plan", "type": "string"}])
    text = json.dumps(body(**changes))
    report = landed(lake, written(tmp_path, body(1), text, body(2)))
    assert lake.events(meter.name).collect().height == (2 if reason else 3)
    assert report.quarantined == ({reason: 1} if reason else {})
    assert report.exit_code == (1 if reason else 0)
    if reason:
        kept = quarantined(lake).row(0, named=True)
        assert kept["raw"] == text
        assert kept["position"] == 2
        assert kept["source"] == "usage.jsonl"
        assert kept["detail"].startswith("expected")


COUNTED = {
    "JSON Lines": ("a.jsonl", json.dumps(BODY | {"quantity": None}) + "\n"),
    "JSON Lines without the member": (
        "a.jsonl",
        json.dumps({k: v for k, v in BODY.items() if k != "quantity"}) + "\n",
    ),
    "a CloudEvent": (
        "a.json",
        json.dumps(
            {
                "specversion": "1.0",
                "id": "1",
                "source": "s",
                "type": "active_users",
                "subject": "org_123",
                "time": "2026-06-19T10:00:00Z",
            }
        ),
    ),
    "CSV": (
        "a.csv",
        "subject,meter,quantity,timestamp\norg_123,active_users,,2026-06-19T10:00:00Z\n",
    ),
    "CSV without the column": (
        "a.csv",
        "subject,meter,timestamp\norg_123,active_users,2026-06-19T10:00:00Z\n",
    ),
}


@pytest.mark.parametrize(("name", "text"), COUNTED.values(), ids=COUNTED)
@pytest.mark.parametrize("aggregation", ["count", "rate", "last"])
def test_an_absent_quantity_is_one_where_events_are_counted(
    tmp_path: Path, name: str, text: str, aggregation: str
) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation=aggregation)
    (tmp_path / name).write_text(text)
    report = landed(lake, tmp_path / name)
    if aggregation == "last":
        assert report.exit_code == 1
        assert report.events_landed == 0
    else:
        assert report.exit_code == 0
        assert lake.events(meter.name).collect()["quantity"].to_list() == [Decimal(1)]


def test_parquet_needs_no_quantity_where_events_are_counted(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation="count")
    pl.DataFrame(TABLE).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(TABLE).with_columns(quantity=pl.Series([2.5, None, 3.0])).write_parquet(
        tmp_path / "b.parquet"
    )
    assert landed(lake, tmp_path / "a.parquet", tmp_path / "b.parquet").exit_code == 0
    found = lake.raw_events(meter.name).collect()["quantity"].to_list()
    assert sorted(found) == [Decimal(1)] * 4 + [Decimal("2.5"), Decimal(3)]


def test_a_gauge_may_be_zero_but_not_less(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake", aggregation="last")
    report = landed(lake, written(tmp_path, body(1, quantity=0), body(2, quantity=-1)))
    assert report.quarantined == {"quantity_negative": 1}
    assert lake.events(meter.name).collect()["quantity"].to_list() == [Decimal(0)]


def test_the_date_is_that_of_the_timestamp_in_utc(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    landed(lake, written(tmp_path, body(timestamp="2026-06-20T01:30:00+02:00")))
    assert lake.events(meter.name).collect()["date"].to_list() == [DAY]


LEAP_SECONDS = {
    "2026-06-19T23:59:60Z": dt.datetime(2026, 6, 20, tzinfo=dt.UTC),
    "2026-06-20T05:29:60+05:30": dt.datetime(2026, 6, 20, tzinfo=dt.UTC),
    "2026-06-19T23:59:60.5Z": dt.datetime(2026, 6, 20, 0, 0, 0, 500_000, dt.UTC),
    "2026-06-19T10:00:60Z": dt.datetime(2026, 6, 19, 10, 1, tzinfo=dt.UTC),
    "2026-06-19T10:00:61Z": None,
}


@pytest.mark.parametrize(("text", "expected"), LEAP_SECONDS.items(), ids=LEAP_SECONDS)
def test_second_60_of_any_minute_is_second_0_of_the_next(
    tmp_path: Path, text: str, expected: dt.datetime | None
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path, body(timestamp=text)))
    assert report.quarantined == ({} if expected else {"timestamp_invalid": 1})
    found = lake.events(meter.name).collect()
    assert found["timestamp"].to_list() == ([expected] if expected else [])
    assert found["date"].to_list() == ([expected.date()] if expected else [])


def test_one_input_may_hold_many_meters_and_many_dates(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    define(lake, name="a/b c", dimensions=[{"name": "region", "type": "string"}])
    other = body(2, meter="a/b c", metadata={"region": "eu"})
    foreign = body(3, metadata={"plan": "pro", "region": "eu"})
    report = landed(
        lake, written(tmp_path, body(1), other, foreign, body(4, timestamp="2026-06-20T10:00:00Z"))
    )
    assert report.exit_code == 0
    found = lake.events("active_users").collect().select("date", "metadata").rows()
    assert found == [(DAY, None), (DAY, '{"region":"eu"}'), (DAY + dt.timedelta(days=1), None)]
    assert lake.events("a/b c").collect()["region"].to_list() == ["eu"]


def test_landing_the_same_content_twice_adds_nothing_whatever_its_name(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    bodies = [body(1, idempotency_key=...), body(2), body(3, quantity=0)]
    first = written(tmp_path, *bodies)
    landed(lake, first)
    before = content(tmp_path / "lake", "events", "quarantine")
    again = tmp_path / "again.gz"
    again.write_bytes(gzip.compress(first.read_bytes()))
    report = landed(lake, first, again)
    assert [said["status"].split(" at ")[0] for said in report.inputs] == ["already landed"] * 2
    assert (report.events_landed, report.exit_code) == (0, 0)
    assert content(tmp_path / "lake", "events", "quarantine") == before


def test_an_input_that_came_before_its_meter_can_be_landed_again(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    file = written(tmp_path, body(1), body(2))
    assert landed(lake, file).quarantined == {"unknown_meter": 2}
    define(lake)
    report = landed(lake, file)
    assert (report.events_landed, report.quarantined) == (2, {})


def test_a_sealed_partition_takes_no_event(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    report = landed(lake, written(tmp_path, body(1), body(2, timestamp="2026-06-20T10:00:00Z")))
    assert report.quarantined == {"sealed_partition": 1}
    assert report.events_landed == 1


class _Failing(LocalStorage):
    """Fails at one of the operations that write."""

    def __init__(self, root: str, fails_at: int) -> None:
        super().__init__(root)
        self.left = fails_at

    def publish_file(self, path: str, local: Path) -> None:
        self._count(path)
        super().publish_file(path, local)

    def publish(self, path: str, content: bytes) -> None:
        self._count(path)
        super().publish(path, content)

    def _count(self, path: str) -> None:
        if path.startswith(paths.RUNS):
            return
        self.left -= 1
        if self.left == 0:
            raise StorageError("the test says no", where=path)


@pytest.mark.parametrize("fails_at", range(1, 10))
def test_an_interrupted_landing_is_gone_on_with_and_ends_the_same(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 1_000)
    set_flush_bounds(monkeypatch, lines=10)
    bodies = [body(n, timestamp=f"2026-06-{18 + n % 2}T10:00:00Z", quantity=n % 5) for n in range(20)]
    file = written(tmp_path, *bodies)
    ends = []
    for name in ("whole", "interrupted"):
        lake, meter = a_lake(tmp_path / name)
        if name == "interrupted":
            storage, lake.storage = lake.storage, _Failing(lake.url, fails_at)
            failed = landed(lake, file)
            lake.storage = storage
            # Each writing operation of the landing fails once; the last number is one too many.
            assert (failed.errors != []) == (fails_at <= 8)
            landed(lake, file)
        else:
            landed(lake, file)
        rows = lake.events(meter.name).drop("received_at").collect()
        ends.append((rows.rows(), sorted(quarantined(lake)["position"])))
        assert lake.events(meter.name).collect()["received_at"].n_unique() == 1
    assert ends[0] == ends[1]
    assert len(ends[0][0]) == 16


UNREADABLE = {
    "truncated gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())[:-20]),
    "truncated zstd": ("a.zst", bytes(pa.compress(LINES.encode() * 9, codec="zstd", asbytes=True))[:-20]),
    "damaged gzip": ("a.gz", gzip.compress(LINES.encode())[:40] + bytes(40)),
    "Parquet of nothing": ("a.parquet", b""),
    "half a Parquet file": ("a.parquet", b"PAR1" + bytes(100)),
    "CSV with a column twice": ("a.csv", b"subject,meter,quantity,x,x\na,active_users,1,1,2\n"),
    "CSV of one long field": ("a.csv", b"x" * 200_000),
    "CSV without a header": ("a.csv", b""),
    "CSV with a header that is not UTF-8": ("a.csv", b"subject,meter,quantity,\xff\n"),
}


@pytest.mark.parametrize(("name", "content"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_input_is_named_and_nothing_of_it_is_landed(
    tmp_path: Path, name: str, content: bytes
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    (tmp_path / name).write_bytes(content)
    report = landed(lake, tmp_path / name, written(tmp_path, body()))
    assert report.exit_code == 1
    assert [said["status"] for said in report.inputs] == ["rejected", "landed"]
    assert name in report.errors[0]["where"]
    assert report.errors[0]["found"]
    assert lake.events(meter.name).collect().height == 1


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_path_that_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    (problem,) = landed(lake, tmp_path / name).errors
    assert problem["what"] == "could not read this input"


def test_an_empty_input_lands_nothing_and_is_no_error(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path))
    assert (report.exit_code, report.events_landed) == (0, 0)


def test_lines_and_elements_over_the_limit_are_kept_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 500)
    monkeypatch.setattr(line_batches, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(line_batches, "KEPT_OF_LONG_LINE_BYTES", 50)
    lake, _ = a_lake(tmp_path / "lake")
    long = json.dumps(body(2, subject="x" * 5_000))
    report = landed(lake, written(tmp_path, body(1), long, body(3)))
    assert (report.events_landed, report.quarantined) == (2, {"too_large": 1})
    assert quarantined(lake).select("position", "raw").rows() == [(2, long[:50])]


def test_an_array_is_read_piece_by_piece_and_ends_where_it_stops_being_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 7)
    lake, meter = a_lake(tmp_path / "lake")
    text = json.dumps([body(1, subject="é1"), body(2), 12345, body(3)], ensure_ascii=False)
    report = landed(lake, written(tmp_path, text[:-1] + ", {broken", name="a.json"))
    assert report.quarantined == {"not_an_object": 1, "not_json": 1, "subject_invalid": 1}
    assert lake.events(meter.name).collect().height == 2
    assert quarantined(lake)["position"].to_list() == [1, 3, 5]


TRUNCATED = {
    "between elements": ", ",
    "after an element": "",
    "within an element": ', {"subject": "or',
}


@pytest.mark.parametrize("tail", TRUNCATED.values(), ids=TRUNCATED)
def test_an_array_without_its_end_is_told(tmp_path: Path, tail: str) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path, json.dumps([body(1), body(2)])[:-1] + tail, name="a.json"))
    assert (report.events_landed, report.quarantined, report.exit_code) == (2, {"not_json": 1}, 1)
    assert quarantined(lake)["position"].to_list() == [3]


@pytest.mark.parametrize("name", ["a.log", "a.json", "a.jsonl"])
@pytest.mark.parametrize("broken", [0, 2], ids=["first", "third"])
def test_a_broken_line_stops_no_other_whatever_the_name(tmp_path: Path, name: str, broken: int) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    lines: list[Any] = [body(number) for number in range(5)]
    lines[broken] = '{"subject": "s"'
    report = landed(lake, written(tmp_path, *lines, name=name))
    assert (report.events_landed, report.quarantined) == (4, {"not_json": 1})
    assert quarantined(lake)["position"].to_list() == [broken + 1]


def test_a_pipe_lands_like_a_file(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    reader, writer = os.pipe()
    os.write(writer, LINES.encode())
    os.close(writer)
    report = landed(lake, f"/dev/fd/{reader}")
    os.close(reader)
    assert (report.errors, report.events_landed) == ([], 3)
    assert not list((tmp_path / "lake" / paths.TEMPORARY).iterdir())


def test_rows_that_are_landed_later_leave_quarantine(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    file = written(tmp_path, body(1), body(2, quantity=0), body(3, meter="other"))
    landed(lake, file)
    assert quarantined(lake)["reason"].to_list() == ["unknown_meter"] * 3
    define(lake)
    define(lake, name="other")
    report = landed(lake, file)
    assert (report.events_landed, report.quarantined) == (2, {"quantity_not_positive": 1})
    assert quarantined(lake).select("position", "reason").rows() == [(2, "quantity_not_positive")]
    assert landed(lake, file).events_landed == 0


def test_a_damaged_record_of_an_input_lands_nothing(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file = written(tmp_path, body(1))
    landed(lake, file)
    (record,) = (tmp_path / "lake" / paths.LANDED).iterdir()
    record.write_text("{")
    report = landed(lake, file)
    assert report.errors[0]["what"] == "not a record of a landed input"
    assert report.events_landed == 0


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    report = landed(lake, written(tmp_path, body(1)), file_format="xml")
    assert report.errors[0]["what"] == "unknown format"


@pytest.mark.parametrize(("what", "number"), [("lines", 10), ("json_bytes", 2_000)])
def test_rows_are_written_before_they_are_too_many_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, number: int
) -> None:
    monkeypatch.setattr(line_batches, "BATCH_BYTES", 1_000)
    set_flush_bounds(monkeypatch, **{what: number})
    lake, meter = a_lake(tmp_path / "lake")
    landed(lake, written(tmp_path, *(body(n) for n in range(30))))
    assert len(list((tmp_path / "lake" / paths.events(meter.name, DAY)).iterdir())) > 1
    assert lake.events(meter.name).collect().height == 30


def test_batches_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, *(body(n, quantity=n % 7) for n in range(200)))
    ends = []
    for size_bytes in (8 * 2**20, 1_000):
        monkeypatch.setattr(line_batches, "BATCH_BYTES", size_bytes)
        monkeypatch.setattr(line_batches, "BATCH_LINES", size_bytes // 300)
        lake, meter = a_lake(tmp_path / str(size_bytes))
        landed(lake, file)
        rows = lake.events(meter.name).drop("received_at").collect()
        ends.append((rows.rows(), quarantined(lake)["position"].to_list()))
    assert ends[0] == ends[1]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_land_or_are_rejected_and_never_raise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lake, _ = a_lake(folder / "lake")
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet", "a"):
        (folder / name).write_bytes(content)
        landed(lake, folder / name)
