"""Files that producers put into partitions, in whatever types their programs write."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import shutil
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.compact import compact
from jobs.land.job import land
from jobs.run_report import RunReport, reported
from jobs.verify.job import verify
from lake import Lake, paths
from schemas.meter import Meter
from support import DAY, METER, ROOT, a_lake, aggregated, event, put, retained, usage

PROGRAMS = ROOT / "tests/producers"
DIMENSIONS = [
    {"name": "plan", "type": "string", "required": False},
    {"name": "score", "type": "number", "required": False},
    {"name": "trial", "type": "boolean", "required": False},
]
NOON = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
MICROSECONDS = int(NOON.timestamp()) * 1_000_000
KEY = uuid.UUID("0192d5a8-7c1e-7f3a-9d24-3f6a3a6f0c11")
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([KEY.bytes], pa.binary(16)))


def a_table(**columns: Any) -> pa.Table:
    """One event in the lake's own types, but for these columns."""
    own = {
        "idempotency_key": pa.array(["k"]),
        "subject": pa.array(["org_1"]),
        "quantity": pa.array([Decimal("1.25")], pa.decimal128(38, 9)),
        "timestamp": pa.array([NOON], pa.timestamp("us", "UTC")),
        "received_at": pa.array([NOON], pa.timestamp("us", "UTC")),
    }
    return pa.table(own | columns)


def put_table(lake: Lake, meter: Meter, table: pa.Table, name: str = "a.parquet", **options: Any) -> Path:
    """Write a table into the partition as a producer does."""
    folder = Path(lake.url) / paths.events(meter.name, DAY)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, **options)
    return folder / name


def of_types(values: list[Any], dtype: pa.DataType) -> pa.Array:
    return pa.array(values, dtype)


@pytest.mark.parametrize(
    ("program", "day", "quantity"),
    [
        ("spark_int96", dt.date(2026, 11, 20), "3.25"),
        ("spark_micros", dt.date(2026, 11, 20), "3.25"),
        ("pandas", dt.date(2026, 11, 20), "1.2"),
        ("fastparquet", dt.date(2026, 11, 20), "1.2"),
    ],
)
def test_files_of_other_programs_count_as_they_mean(
    tmp_path: Path, program: str, day: dt.date, quantity: str
) -> None:
    lake, meter = a_lake(tmp_path, dimensions=DIMENSIONS)
    target = tmp_path / paths.events(meter.name, day) / f"{program}.parquet"
    target.parent.mkdir(parents=True)
    shutil.copy(PROGRAMS / f"{program}.parquet", target)
    report = aggregated(lake)
    assert (report.errors, report.quarantined) == ([], {})
    assert usage(lake, meter) == [(day, "cust-1", Decimal(quantity))]
    found = lake.events(meter.name).collect()
    assert found["idempotency_key"].to_list() == ["k-1", "k-2"]
    assert found["plan"].to_list() == ["pro", "free"]
    assert found["timestamp"][1] == dt.datetime(2026, 11, 20, 23, 59, 59, 999999, dt.UTC) or (
        found["timestamp"][1] == dt.datetime(2026, 11, 20, 18, 59, 59, 999999, dt.UTC)
    )


def test_a_file_of_duckdb_counts_as_it_means(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, dimensions=DIMENSIONS)
    target = tmp_path / paths.events(meter.name, DAY) / "duck.parquet"
    target.parent.mkdir(parents=True)
    duckdb.sql(
        f"""copy (select '{KEY}'::uuid as idempotency_key, 'org_1' as subject, 1.25 as quantity,
        '{NOON}'::timestamptz as "timestamp", '{NOON}'::timestamptz as received_at, 'pro' as plan, 3 as score,
        true as trial, '{{"a": 1}}'::json as metadata, 5::hugeint as huge, interval 1 day as gap) to '{target}'"""
    )
    assert aggregated(lake).errors == []
    assert lake.events(meter.name).collect().drop("date", "timestamp", "received_at").rows() == [
        (str(KEY), "org_1", Decimal("1.25"), "pro", 3.0, True, '{"a": 1}')
    ]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("1.25"))]


def test_a_file_of_polars_counts_as_it_means(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path, dimensions=DIMENSIONS)
    target = tmp_path / paths.events(meter.name, DAY) / "polars.parquet"
    target.parent.mkdir(parents=True)
    berlin = pl.Series([NOON]).dt.convert_time_zone("Europe/Berlin").dt.cast_time_unit("ms")
    pl.DataFrame(
        {
            "idempotency_key": ["k"],
            "subject": pl.Series(["org_1"], dtype=pl.Enum(["org_1"])),
            "quantity": [0.1],
            "timestamp": berlin,
            "received_at": berlin,
            "plan": pl.Series(["pro"], dtype=pl.Categorical),
            "score": pl.Series([0.1], dtype=pl.Float32),
        }
    ).write_parquet(target)
    assert aggregated(lake).errors == []
    assert lake.events(meter.name).select("quantity", "timestamp", "plan", "score").collect().rows() == [
        (Decimal("0.1"), NOON, "pro", 0.1)
    ]


HALF = pa.array(np.array([0.1], dtype=np.float16))
QUANTITIES: dict[str, tuple[pa.Array, str]] = {
    "int8": (of_types([7], pa.int8()), "7"),
    "uint64": (of_types([2**64 - 1], pa.uint64()), str(2**64 - 1)),
    "half": (HALF, "0.1"),
    "float": (of_types([0.1], pa.float32()), "0.1"),
    "double": (of_types([482.7], pa.float64()), "482.7"),
    "a small double": (of_types([1e-7], pa.float64()), "0.0000001"),
    "a large double": (of_types([1e19], pa.float64()), "1e19"),
    "a double between two": (of_types([2.5e-9], pa.float64()), "2e-9"),
    "decimal32": (of_types([Decimal("1.5")], pa.decimal32(5, 2)), "1.5"),
    "decimal64": (of_types([Decimal("1.5")], pa.decimal64(15, 2)), "1.5"),
    "decimal of scale 0": (of_types([Decimal(12)], pa.decimal128(38, 0)), "12"),
    "decimal of scale 12": (of_types([Decimal("1.000000001500")], pa.decimal128(38, 12)), "1.000000002"),
    "decimal to even": (of_types([Decimal("1.000000000500")], pa.decimal128(38, 12)), "1"),
    "text": (of_types([" 1.5e1 "], pa.string()), "15"),
    "dictionary": (of_types(["+.5"], pa.string()).dictionary_encode(), "0.5"),
}


@pytest.mark.parametrize(("quantity", "expected"), QUANTITIES.values(), ids=QUANTITIES)
def test_a_quantity_of_any_number_counts_exactly(tmp_path: Path, quantity: pa.Array, expected: str) -> None:
    lake, meter = a_lake(tmp_path)
    put_table(lake, meter, a_table(quantity=quantity))
    assert aggregated(lake).errors == []
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(expected))]


NO_QUANTITIES: dict[str, tuple[pa.Array, str, str]] = {
    "not a number": (of_types([float("nan")], pa.float64()), "quantity_invalid", "NaN"),
    "infinite": (of_types([float("-inf")], pa.float32()), "quantity_invalid", "-inf"),
    "too large a double": (of_types([1e300], pa.float64()), "quantity_invalid", "1e+300"),
    "too large a decimal": (
        of_types([Decimal(10**37)], pa.decimal128(38, 0)),
        "quantity_invalid",
        str(10**37),
    ),
    "words": (of_types(["many"], pa.string()), "quantity_invalid", "many"),
    "no text": (of_types([""], pa.string()), "quantity_invalid", ""),
    "null": (of_types([None], pa.float64()), "quantity_missing", "none"),
    "nothing": (of_types([None], pa.null()), "quantity_missing", "none"),
}


@pytest.mark.parametrize(("quantity", "reason", "found"), NO_QUANTITIES.values(), ids=NO_QUANTITIES)
def test_what_is_no_quantity_is_an_invalid_row_with_its_own_text(
    tmp_path: Path, quantity: pa.Array, reason: str, found: str
) -> None:
    lake, meter = a_lake(tmp_path)
    put_table(lake, meter, a_table(quantity=quantity))
    report = aggregated(lake)
    assert (report.quarantined, usage(lake, meter)) == ({reason: 1}, [])
    (file,) = (tmp_path / paths.quarantine(meter.name)).rglob("*.parquet")
    (row,) = pl.read_parquet(file).rows(named=True)
    assert row["detail"].endswith(f"found {found}")
    assert json.loads(row["raw"])["quantity"] == (None if reason == "quantity_missing" else found)


MOMENTS: dict[str, pa.DataType] = {
    **{
        f"{unit} in {zone}": pa.timestamp(unit, zone)
        for unit in ("s", "ms", "us", "ns")
        for zone in ("UTC", "+05:30")
    },
    **{
        zone: pa.timestamp("us", zone) for zone in ("Z", "-00:30", "+14:00", "Asia/Kolkata", "Etc/UTC", "GMT")
    },
}


@pytest.mark.parametrize("dtype", MOMENTS.values(), ids=MOMENTS)
def test_a_timestamp_of_any_unit_and_zone_is_its_moment(
    tmp_path: Path, dtype: pa.DataType, capfd: pytest.CaptureFixture[str]
) -> None:
    lake, meter = a_lake(tmp_path)
    moments = pa.array([MICROSECONDS], pa.timestamp("us", "UTC")).cast(dtype)
    put_table(lake, meter, a_table(timestamp=moments))
    assert aggregated(lake).errors == []
    assert lake.events(meter.name).collect()["timestamp"].to_list() == [NOON]
    assert capfd.readouterr().err == ""


def test_nanoseconds_are_cut_towards_the_past(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    moments = pa.array([MICROSECONDS * 1000 + 1999, -1], pa.timestamp("ns", "UTC"))
    put_table(lake, meter, pa.concat_tables([a_table(), a_table()]).set_column(3, "timestamp", moments))
    assert aggregated(lake).quarantined == {"timestamp_out_of_range": 1}
    assert lake.events(meter.name).collect()["timestamp"].to_list() == [NOON + dt.timedelta(microseconds=1)]


@pytest.mark.parametrize("year", [1, 9999])
def test_int96_beyond_what_nanoseconds_can_say_is_no_other_moment(tmp_path: Path, year: int) -> None:
    lake, meter = a_lake(tmp_path)
    moments = pa.array([dt.datetime(year, 1, 1, tzinfo=dt.UTC).replace(tzinfo=None)], pa.timestamp("us"))
    table = a_table(timestamp=moments, received_at=pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us")))
    put_table(lake, meter, table, use_deprecated_int96_timestamps=True)
    reason = "timestamp_out_of_range" if year == 1 else "timestamp_in_future"
    assert aggregated(lake).quarantined == {reason: 1}


TEXTS: dict[str, pa.Array] = {
    "large": of_types(["k-1"], pa.large_string()),
    "view": of_types(["k-1"], pa.string_view()),
    "dictionary": of_types(["k-1"], pa.string()).dictionary_encode(),
    "UUID": UUIDS,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("column", ["idempotency_key", "subject", "plan"])
def test_text_is_text_however_it_is_stored(tmp_path: Path, column: str, text: pa.Array) -> None:
    lake, meter = a_lake(tmp_path)
    put_table(lake, meter, a_table(**{column: text}))
    assert aggregated(lake).errors == []
    expected = "k-1" if not isinstance(text, pa.ExtensionArray) else str(KEY)
    assert lake.events(meter.name).collect()[column].to_list() == [expected]


NUMBERS: dict[str, pa.Array] = {
    "integer": of_types([3], pa.int16()),
    "decimal": of_types([Decimal("3.000")], pa.decimal128(9, 3)),
    "double": of_types([3.0], pa.float64()),
}


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_a_required_dimension_may_be_of_another_type_of_its_kind(tmp_path: Path, number: pa.Array) -> None:
    dimensions = [{"name": name, "type": kind} for name, kind in (("score", "number"), ("trial", "boolean"))]
    lake, meter = a_lake(tmp_path, dimensions=dimensions)
    put_table(lake, meter, a_table(score=number, trial=pa.array([True])))
    put_table(lake, meter, a_table(score=number, trial=pa.array([None])), "b.parquet")
    assert aggregated(lake).quarantined == {"dimension_missing": 1}
    assert lake.events(meter.name).select("score", "trial").collect().rows() == [(3.0, True)]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (HALF, 0.1),
        (of_types([0.1], pa.float32()), 0.1),
        (of_types([Decimal("0.3")], pa.decimal128(3, 1)), 0.3),
    ],
)
def test_a_number_is_the_double_that_its_text_is(tmp_path: Path, number: pa.Array, expected: float) -> None:
    lake, meter = a_lake(tmp_path, dimensions=DIMENSIONS)
    put_table(lake, meter, a_table(score=number))
    assert aggregated(lake).errors == []
    assert lake.events(meter.name).collect()["score"].to_list() == [expected]


STRUCT = pa.StructArray.from_arrays(
    [
        pa.array([Decimal("2.50")], pa.decimal128(9, 2)),
        pa.ListArray.from_arrays([0, 1], UUIDS),
        pa.array([NOON], pa.timestamp("s", "+01:00")),
    ],
    ["size", "ids", "at"],
)
METADATA: dict[str, tuple[pa.Array, str]] = {
    "JSON": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])), '{"a": 1}'),
    "a struct": (
        STRUCT,
        f'{{"size":2.50,"ids":["{KEY}"],"at":"{NOON.isoformat()}"}}',
    ),
    "a map": (
        pa.array([[("a", Decimal("1.50")), ('b"', None)]], pa.map_(pa.string(), pa.decimal128(9, 2))),
        '{"a":1.50,"b\\"":null}',
    ),
    "nothing": (pa.nulls(1), ""),
}


@pytest.mark.parametrize(("metadata", "expected"), METADATA.values(), ids=METADATA)
def test_metadata_is_the_json_that_its_type_means(tmp_path: Path, metadata: pa.Array, expected: str) -> None:
    lake, meter = a_lake(tmp_path)
    put_table(lake, meter, a_table(metadata=metadata))
    assert aggregated(lake).errors == []
    assert lake.events(meter.name).collect()["metadata"].to_list() == [expected or None]


REFUSED: dict[str, tuple[str, pa.Array, str]] = {
    "a naive timestamp": (
        "timestamp",
        of_types([NOON.replace(tzinfo=None)], pa.timestamp("ns")),
        "timestamp[ns]",
    ),
    "decimal256": ("quantity", of_types([Decimal("1.25")], pa.decimal256(50, 2)), "decimal256(50, 2)"),
    "a date": ("received_at", of_types([DAY], pa.date32()), "date32[day]"),
    "bytes": ("subject", of_types([b"org_1"], pa.binary()), "binary"),
    "a number for text": ("idempotency_key", of_types([1], pa.int64()), "int64"),
    "text for a number": ("score", of_types(["1"], pa.string()), "string"),
    "a number for a truth value": ("trial", of_types([1], pa.int8()), "int8"),
    "a truth value for a number": ("quantity", of_types([True], pa.bool_()), "bool"),
    "a list of metadata": ("metadata", of_types([["a"]], pa.list_(pa.string())), "list<element: string>"),
}


@pytest.mark.parametrize(("column", "values", "found"), REFUSED.values(), ids=REFUSED)
def test_a_type_that_cannot_be_read_is_named_as_arrow_names_it(
    tmp_path: Path, column: str, values: pa.Array, found: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lake, meter = a_lake(tmp_path, dimensions=DIMENSIONS)
    bad = put_table(lake, meter, a_table(**{column: values}))
    put(lake, meter, "good.parquet", event("a"))
    report = aggregated(lake)
    (problem,) = report.errors
    assert (problem["what"], problem["found"]) == (f"column {column!r} is wrong", found)
    assert problem["where"].endswith(bad.name)
    assert report.exit_code == 1
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert capfd.readouterr().err == ""


def test_no_type_of_a_column_that_is_passed_over_matters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lake, meter = a_lake(tmp_path)
    inner = pa.struct([("d", pa.decimal256(60, 3)), ("t", pa.timestamp("us", "+05:30"))])
    odd = {
        "big": of_types([Decimal(1)], pa.decimal256(50, 2)),
        "zone": of_types([NOON], pa.timestamp("ns", "+05:30")),
        "gone": of_types([5], pa.duration("s")),
        "half": HALF,
        "id": TEXTS["UUID"],
        "nested": of_types([[{"d": Decimal(1), "t": NOON}]], pa.list_(inner)),
        "map": of_types([[(1, b"x")]], pa.map_(pa.int32(), pa.binary())),
        "none": pa.nulls(1),
    }
    table = a_table(**odd)
    table = pa.table([*table.columns, table["big"]], names=[*table.column_names, "big"])
    put_table(lake, meter, table)
    assert aggregated(lake).errors == []
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("1.25"))]
    assert capfd.readouterr().err == ""


def test_an_event_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    table = a_table()
    put_table(
        lake, meter, pa.table([*table.columns, table["subject"]], names=[*table.column_names, "subject"])
    )
    (problem,) = aggregated(lake).errors
    assert (problem["what"], problem["found"]) == ("column 'subject' is wrong", "string and string")


def test_rows_of_all_files_keep_their_places_whatever_their_types(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    later = NOON + dt.timedelta(seconds=1)
    doubles = {"quantity": of_types([5.0], pa.float64())}
    put_table(lake, meter, a_table(**doubles), "b.parquet")
    put_table(lake, meter, a_table(quantity=of_types([float("nan")], pa.float64())), "d.parquet")
    put(lake, meter, "a.parquet", event("x"), event("k", received_at=later))
    put(
        lake, meter, "c.parquet", event("k", quantity="7"), event("y", quantity="2"), event("", quantity="-1")
    )
    report = aggregated(lake)
    assert report.quarantined == {"quantity_invalid": 1, "quantity_not_positive": 1}
    found = lake.events(meter.name).select("idempotency_key", "quantity").collect().rows()
    assert found == [("x", Decimal(1)), ("k", Decimal(5)), ("y", Decimal(2))]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(8))]
    lost = lake.duplicates(meter.name).collect()
    assert lost["quantity"].to_list() == [Decimal(1), Decimal(7)]


def test_a_known_file_is_converted_at_every_later_run(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put_table(lake, meter, a_table(quantity=of_types([0.1], pa.float32())))
    aggregated(lake)
    put(lake, meter, "b.parquet", event("k", quantity="9"), event("other"))
    assert aggregated(lake).errors == []
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("1.1"))]
    with reported(lake, "verify") as report:
        verify(lake, report)
    assert report.errors == []
    assert aggregated(lake, rebuild=True).errors == []
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("1.1"))]
    # The record says it, not only the state.
    (tmp_path / paths.state(meter.name)).unlink()
    put(lake, meter, "c.parquet", event("third"))
    assert aggregated(lake).errors == []
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("2.1"))]


def test_compaction_changes_no_number_of_files_in_other_types(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    for number in range(3):
        put(lake, meter, f"own-{number}.parquet", event(f"own {number}"))
        table = a_table(quantity=of_types([0.1], pa.float32()), idempotency_key=pa.array([f"k-{number}"]))
        put_table(lake, meter, table, f"other-{number}.parquet")
    aggregated(lake)
    before = lake.events(meter.name).collect().sort("idempotency_key")
    with reported(lake, "compact") as report:
        compact(lake, report, as_of=DAY + dt.timedelta(days=9))
    assert report.errors == []
    assert lake.events(meter.name).collect().sort("idempotency_key").equals(before)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("3.3"))]


def test_a_late_file_of_other_types_goes_to_quarantine_as_it_is_written(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put_table(lake, meter, a_table(quantity=of_types([0.5], pa.float64())))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=60))
    late = put_table(lake, meter, a_table(quantity=of_types([float("nan")], pa.float64())), "late.parquet")
    assert aggregated(lake).quarantined == {"sealed_partition": 1}
    assert not late.exists()
    assert usage(lake, meter) == [(DAY, "org_1", Decimal("0.5"))]
    (file,) = (tmp_path / paths.quarantine(meter.name)).rglob("*.parquet")
    assert json.loads(pl.read_parquet(file)["raw"][0])["quantity"] == "NaN"


def test_a_damaged_page_of_a_converted_file_is_named(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    keys = pa.array([f"key {number}" for number in range(1000)])
    table = pa.concat_tables([a_table(quantity=of_types([1], pa.int64()))] * len(keys))
    bad = put_table(lake, meter, table.set_column(0, "idempotency_key", keys))
    body = bytearray(bad.read_bytes())
    body[20:400] = bytes(380)
    bad.write_bytes(body)
    put(lake, meter, "good.parquet", event("b"))
    assert [problem["what"] for problem in aggregated(lake).errors] == ["damaged file"]
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]


def test_text_that_is_not_utf_8_is_a_damaged_file(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    body = io.BytesIO()
    pq.write_table(
        a_table(subject=of_types(["org_XX"], pa.string()), quantity=of_types([1], pa.int64())), body
    )
    file = put_table(lake, meter, a_table())
    file.write_bytes(body.getvalue().replace(b"org_XX", b"org_\xff\xfe"))
    (problem,) = aggregated(lake).errors
    assert problem["what"] == "damaged file"


# The same files, landed


def landed_table(lake: Lake, folder: Path, table: pa.Table) -> RunReport:
    """Land a table that names its meter."""
    file = folder / "usage.parquet"
    pq.write_table(table.append_column("meter", pa.array([METER["name"]] * table.num_rows)), file)
    with reported(lake, "land") as report:
        land(lake, [str(file)], report)
    return report


ALIKE: dict[str, dict[str, pa.Array]] = {
    **{f"quantity: {name}": {"quantity": values} for name, (values, _) in QUANTITIES.items()},
    **{
        f"timestamp: {name}": {"timestamp": pa.array([MICROSECONDS], pa.timestamp("us", "UTC")).cast(dtype)}
        for name, dtype in MOMENTS.items()
    },
    **{
        f"{column}: {name}": {column: text}
        for name, text in TEXTS.items()
        for column in ("idempotency_key", "plan")
    },
    **{f"score: {name}": {"score": number} for name, number in NUMBERS.items()},
    "score: half": {"score": HALF},
    **{f"metadata: {name}": {"metadata": values} for name, (values, _) in METADATA.items()},
}


@pytest.mark.parametrize("columns", ALIKE.values(), ids=ALIKE)
def test_a_file_that_is_landed_says_what_it_says_in_a_partition(
    tmp_path: Path, columns: dict[str, pa.Array], capfd: pytest.CaptureFixture[str]
) -> None:
    dimensions = [each | {"required": False} for each in DIMENSIONS]
    lake, meter = a_lake(tmp_path / "partition", dimensions=dimensions)
    put_table(lake, meter, a_table(**columns))
    other, _ = a_lake(tmp_path / "landed", dimensions=dimensions)
    report = landed_table(other, tmp_path, a_table(**columns))
    assert (report.errors, report.quarantined) == ([], {})
    expected, found = (each.events(meter.name).collect() for each in (lake, other))
    if "metadata" in columns:
        # Without the white space between its tokens, as of all metadata that lands.
        expected = expected.with_columns(metadata=pl.col("metadata").str.replace_all(": ", ":"))
    assert found.to_dicts() == expected.to_dicts()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [each for each in REFUSED.values() if each[0] not in ("score", "trial", "subject")],
    ids=[name for name, each in REFUSED.items() if each[0] not in ("score", "trial", "subject")],
)
def test_a_type_that_cannot_be_landed_is_named_as_arrow_names_it(
    tmp_path: Path, column: str, values: pa.Array, found: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lake, meter = a_lake(tmp_path / "lake", dimensions=DIMENSIONS)
    report = landed_table(lake, tmp_path, a_table(**{column: values}))
    assert report.exit_code == 1
    assert report.errors[0]["what"] == f"column {column!r} is of a wrong type"
    assert report.errors[0]["found"] == found
    assert lake.events(meter.name).collect().is_empty()
    assert capfd.readouterr().err == ""


def test_columns_of_any_type_land_as_metadata(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    table = a_table(gap=of_types([dt.timedelta(hours=1)], pa.duration("s")), half=HALF, id=UUIDS)
    assert landed_table(lake, tmp_path, table).errors == []
    (metadata,) = lake.events(meter.name).collect()["metadata"]
    assert json.loads(metadata)["half"] == 0.1
    assert json.loads(metadata)["id"] == str(KEY)


def test_a_small_file_that_is_large_once_decoded_lands_in_little_memory_or_is_refused(tmp_path: Path) -> None:
    """A real process: one value of a megabyte in each of 700 rows, which the file says once."""
    a_lake(tmp_path / "lake")
    keys = pa.array([f"k{number}" for number in range(700)])
    table = pa.concat_tables([a_table()] * len(keys)).set_column(0, "idempotency_key", keys).combine_chunks()
    large = pa.DictionaryArray.from_arrays(pa.array([0] * len(keys), pa.int32()), pa.array(["x" * 2**20]))
    table = table.append_column("meter", pa.array([METER["name"]] * len(keys))).append_column("note", large)
    pq.write_table(table, tmp_path / "usage.parquet", compression="zstd")
    assert (tmp_path / "usage.parquet").stat().st_size < 2**20
    script = (
        "import resource, subprocess, sys; "
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode; "
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    called = [
        sys.executable,
        "-m",
        "jobs.cli",
        "--lake",
        str(tmp_path / "lake"),
        "land",
        str(tmp_path / "usage.parquet"),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, *called], env=env, capture_output=True, text=True, check=True
    )
    code, peak_kilobytes = map(int, done.stdout.split())
    assert code in (0, 1)
    assert peak_kilobytes < 2**20
