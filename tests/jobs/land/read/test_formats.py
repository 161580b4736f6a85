"""Every format gives the same events, and a table lands as it means."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from lake import paths
from landing import BODY, LINES, TABLE, body, landed, quarantined, written
from schemas.columns import event_columns
from support import DAY, a_lake


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
