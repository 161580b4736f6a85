"""The lake as people read it: raw and deduplicated events, the copies that lost, and totals."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from lake import Lake
from schemas.columns import event_columns
from schemas.errors import BadInputError, BrokenLakeError, StorageError
from support import DAY, a_lake, aggregated, event, put, retained

NEXT = DAY + dt.timedelta(days=1)


def test_events_are_deduplicated_over_all_dates_before_any_aggregation(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"), event(None), event(""), event("bad", quantity="0"))
    put(lake, meter, "b.parquet", event(" k ", quantity="2", day=NEXT), event("y", day=NEXT), day=NEXT)
    assert lake.raw_events(meter.name).collect().height == 6
    found = lake.events(meter.name).collect()
    assert found.columns == ["date", *event_columns(meter)]
    assert found.select("date", "idempotency_key").rows() == [
        (DAY, "k"),
        (DAY, None),
        (DAY, None),
        (NEXT, "y"),
    ]
    assert lake.events(meter.name, NEXT).collect()["idempotency_key"].to_list() == ["y"]


def test_duplicates_tell_their_winner_and_whether_they_conflict(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"), event("k"), event("k", plan=None))
    put(lake, meter, "b.parquet", event("k", quantity="2", day=NEXT), day=NEXT)
    found = lake.duplicates(meter.name).collect()
    columns = ("date", "plan", "quantity", "conflict", "winner_date", "winner_quantity")
    # Of copies that tie in all else, a null dimension comes before any value.
    assert found.select(columns).rows() == [
        (DAY, "pro", Decimal(1), True, DAY, Decimal(1)),
        (DAY, "pro", Decimal(1), True, DAY, Decimal(1)),
        (NEXT, "pro", Decimal(2), True, DAY, Decimal(1)),
    ]
    assert lake.duplicates(meter.name, NEXT).collect().height == 1


def test_an_empty_meter_reads_as_empty_tables_with_their_columns(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    for lf in (
        lake.events(meter.name),
        lake.duplicates(meter.name),
        lake.usage(meter.name),
        lake.totals(meter.name),
    ):
        assert lf.collect().is_empty()
        assert lf.collect_schema().len() > 5


def test_events_of_a_sealed_partition_are_gone_and_its_usage_stays(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("k"))
    aggregated(lake)
    retained(lake, DAY + dt.timedelta(days=31))
    assert lake.events(meter.name).collect().is_empty()
    assert lake.usage(meter.name).collect()["quantity"].to_list() == [Decimal(1)]


def test_dates_are_half_open(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    put(lake, meter, "a.parquet", event("a"))
    put(lake, meter, "b.parquet", event("b", day=NEXT), day=NEXT)
    aggregated(lake)
    assert lake.usage(meter.name, DAY, NEXT).collect()["date"].to_list() == [DAY]
    assert lake.usage(meter.name, NEXT).collect()["date"].to_list() == [NEXT]
    assert lake.usage_by_dimension(meter.name, None, DAY).collect().is_empty()


def test_totals_can_be_grouped_by_known_keys_only(tmp_path: Path) -> None:
    lake, meter = a_lake(tmp_path)
    with pytest.raises(BadInputError, match="expected some of subject, plan, found role"):
        lake.totals(meter.name, ["role"])


def test_a_path_without_a_lake_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BrokenLakeError, match="no lake here") as caught:
        Lake(str(tmp_path / "none"))
    assert "init" in caught.value.hint
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("marker", [b"", b"{}", b"[]", b'{"meterlake": 99}', b"\xff"])
def test_a_lake_of_another_format_is_not_opened(tmp_path: Path, marker: bytes) -> None:
    (tmp_path / "lake.json").write_bytes(marker)
    with pytest.raises(BrokenLakeError, match="another program or version"):
        Lake(str(tmp_path))


def test_an_unknown_kind_of_url_is_told() -> None:
    with pytest.raises(StorageError, match="not supported"):
        Lake("gopher://somewhere/lake")
