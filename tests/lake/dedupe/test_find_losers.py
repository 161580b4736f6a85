"""Copies are found whatever is taken at once, and whatever keys have the same hash."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from lake import Lake
from lake.dedupe import find_losers, winners
from lake.meters import save_meter
from oracle.generate import Spec, generate, meter_body, write_lake
from oracle.tables import Oracle
from schemas.meter import parse_meter

NAME = "copied"
BODY = meter_body("sum", NAME)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """A lake of 20,000 events that was never aggregated, and the oracle's losers."""
    root = tmp_path_factory.mktemp("lake")
    lake = Lake.init(str(root))
    save_meter(lake.storage, parse_meter(json.dumps(BODY).encode(), "test"))
    write_lake(root, NAME, generate(Spec(events=20_000)), 3, seed=1)
    losers = Oracle(root, BODY).losers()
    assert losers.height > 1_000
    return root, losers


def found(lake: Path, *dates: dt.date) -> pl.DataFrame:
    columns = ["date", "idempotency_key", "subject", "quantity", "timestamp", "received_at", "conflict"]
    return Lake(str(lake)).duplicates(NAME, *dates).select(columns).sort(columns).collect()


def expected(losers: pl.DataFrame) -> pl.DataFrame:
    columns = ["date", "idempotency_key", "subject", "quantity", "timestamp", "received_at", "conflict"]
    return losers.select(columns).sort(columns)


@pytest.mark.parametrize(("keys", "candidates"), [(2**24, 2**18), (2**24, 100), (1_000, 2**18), (700, 300)])
def test_range_by_range_the_same_copies_lose(
    generated: tuple[Path, pl.DataFrame], monkeypatch: pytest.MonkeyPatch, keys: int, candidates: int
) -> None:
    lake, losers = generated
    monkeypatch.setattr(find_losers, "KEYS_AT_ONCE", keys)
    monkeypatch.setattr(find_losers, "CANDIDATES_AT_ONCE", candidates)
    assert found(lake).equals(expected(losers))
    assert not [*(lake / ".tmp").glob("*")]


@pytest.mark.parametrize("keys", [2**24, 500])
def test_of_some_dates_the_copies_in_others_are_known(
    generated: tuple[Path, pl.DataFrame], monkeypatch: pytest.MonkeyPatch, keys: int
) -> None:
    lake, losers = generated
    monkeypatch.setattr(find_losers, "KEYS_AT_ONCE", keys)
    for date in losers["date"].unique().sort().to_list()[::4]:
        there = found(lake, date, date + dt.timedelta(days=1))
        assert there.equals(expected(losers.filter(pl.col("date") == date)))


@pytest.mark.parametrize("bits", [1, 6])
def test_keys_that_share_a_hash_are_no_copies(
    generated: tuple[Path, pl.DataFrame], monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    lake, losers = generated
    monkeypatch.setattr(winners, "HASH_BITS", bits)
    assert found(lake).equals(expected(losers))
