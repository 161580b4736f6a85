"""What a partition comes to does not depend on how it is read, or on how its text keys are held."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.aggregate import compute
from jobs.aggregate.tables import partial_usage, usage_tables
from schemas.meter import parse_meter
from support import DAY, a_lake, aggregated, event, put, usage

METER = parse_meter(
    b'{"name": "m", "unit": "u", "dimensions": [{"name": "plan", "type": "string", "required": false}]}',
    "test",
)
NOON = dt.datetime(2026, 6, 19, 12, tzinfo=dt.UTC)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@pytest.mark.parametrize("rows_in_memory", [0, 2**21])
def test_in_memory_or_read_again_each_time_the_same_rows_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_in_memory: int
) -> None:
    monkeypatch.setattr(compute, "MAX_ROWS_IN_MEMORY", rows_in_memory)
    lake, meter = a_lake(tmp_path)
    late = NOON + dt.timedelta(days=1)
    rejected = [
        event("a", subject="no spaces"),
        event("b", subject="x" * 129),
        event("c", subject=""),
        event("d", quantity="0"),
        event("e", timestamp=late),
    ]
    put(lake, meter, "a.parquet", event("k1", "org_2"), *rejected)
    put(
        lake,
        meter,
        "b.parquet",
        event("k2", " org_1\t", "2", plan=None),
        event("k2", "org_1", "2", plan=None),
    )
    report = aggregated(lake)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(2)), (DAY, "org_2", Decimal(1))]
    assert lake.usage(meter.name).select("subject", "plan").collect().rows() == [
        ("org_1", None),
        ("org_2", "pro"),
    ]
    assert report.quarantined == {
        "subject_invalid": 2,
        "subject_missing": 1,
        "quantity_not_positive": 1,
        "wrong_partition": 1,
    }
    assert (report.duplicates, report.events_read) == (1, 8)


def test_rows_that_do_not_count_are_not_added_up(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    beyond = [event(f"k{n}", subject="no spaces", quantity="9" * 29) for n in range(20)]
    put(lake, meter, "a.parquet", event("k"), *beyond)
    report = aggregated(lake)
    assert usage(lake, meter) == [(DAY, "org_1", Decimal(1))]
    assert report.quarantined == {"subject_invalid": 20}


@given(st.lists(st.tuples(texts, st.one_of(st.none(), texts)), min_size=1, max_size=20))
def test_text_keys_are_the_same_texts_in_the_order_of_their_bytes(
    keys: list[tuple[str, str | None]],
) -> None:
    schema = {"subject": pl.String, "plan": pl.String}
    events = pl.DataFrame(keys, schema=schema, orient="row").with_columns(
        pl.lit(Decimal(1)).cast(pl.Decimal(38, 9)).alias("quantity"),
        timestamp=pl.lit(NOON).cast(pl.Datetime("us", "UTC")),
        received_at=pl.lit(NOON).cast(pl.Datetime("us", "UTC")),
    )
    coded = events.lazy().with_columns(
        pl.col(name).cast(pl.Categorical(pl.Categories.random())) for name in schema
    )
    tables = usage_tables(partial_usage(coded, METER).collect(), METER)
    expected = sorted(
        dict.fromkeys(keys),
        key=lambda key: (key[0].encode(), key[1] is not None, (key[1] or "").encode()),
    )
    assert tables["usage"].select("subject", "plan").rows() == expected
    assert tables["usage"].select("subject", "plan").schema == pl.Schema(schema)
    assert tables["usage"]["events"].to_list() == [keys.count(key) for key in expected]
    assert tables["usage_by_subject"]["subject"].to_list() == sorted({key[0] for key in keys}, key=str.encode)
    plans = {key[1] for key in keys}
    assert tables["usage_by_dimension"].select("value", "subjects").rows() == [
        (plan, len({subject for subject, said in keys if said == plan}))
        for plan in sorted(plans, key=lambda plan: (plan is not None, (plan or "").encode()))
    ]
