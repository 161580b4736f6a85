"""Quantities from 10^20 on are refused, whoever writes them: a billion of the others fit one sum."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from lake import Lake
from support import DAY, a_lake, aggregated, event, put, usage

GREATEST = "99999999999999999999.999999999"
TOO_LARGE = ["100000000000000000000", "1e20", "-1e20", "99999999999999999999.9999999999", "9" * 29]
# Half of the last place, to the even one.
ROUNDED = "99999999999999999999.9999999985"


def landed(lake: Lake, file: Path) -> RunReport:
    with reported(lake, "land") as report:
        land(lake, [str(file)], report)
    return report


def bodies(*quantities: object) -> list[dict[str, object]]:
    fixed = {"subject": "org_1", "meter": "active_users", "timestamp": f"{DAY}T12:00:00Z"}
    return [
        fixed | {"idempotency_key": f"k{n}", "quantity": quantity} for n, quantity in enumerate(quantities)
    ]


def quantities(lake: Lake) -> list[Decimal]:
    return lake.events("active_users").collect()["quantity"].to_list()


@pytest.mark.parametrize("quantity", TOO_LARGE)
@pytest.mark.parametrize("form", ["number", "text", "csv", "parquet"])
def test_a_quantity_from_10_to_the_20_on_is_quarantined(tmp_path: Path, quantity: str, form: str) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file = tmp_path / ("usage.jsonl" if form in ("number", "text") else f"usage.{form}")
    rows = bodies(quantity, GREATEST, "1")
    if form == "csv":
        pl.DataFrame(rows).write_csv(file)
    elif form == "parquet":
        pl.DataFrame(rows).write_parquet(file)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text(lines.replace(f'"{quantity}"', quantity) if form == "number" else lines)
    report = landed(lake, file)
    assert report.quarantined == {"quantity_invalid": 1}
    assert report.exit_code == 1
    assert quantities(lake) == [Decimal(GREATEST), Decimal(1)]


def test_what_rounds_below_the_limit_lands(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake")
    file = tmp_path / "usage.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in bodies(ROUNDED)))
    assert landed(lake, file).exit_code == 0
    assert quantities(lake) == [Decimal("99999999999999999999.999999998")]


@pytest.mark.parametrize("aggregation", ["sum", "last"])
def test_a_producers_row_from_10_to_the_20_on_is_quarantined_and_the_others_count(
    tmp_path: Path, aggregation: str
) -> None:
    lake, meter = a_lake(tmp_path, aggregation=aggregation)
    large = (event(f"k{n}", quantity=quantity) for n, quantity in enumerate(("1" + "0" * 20, "9" * 29)))
    put(lake, meter, "a.parquet", *large, event("a", "org_2", GREATEST))
    report = aggregated(lake)
    assert report.quarantined == {"quantity_invalid": 2}
    assert usage(lake, meter) == [(DAY, "org_2", Decimal(GREATEST))]
    assert quantities(lake) == [Decimal(GREATEST)]
