"""`quantity` of avg and rate, which earlier versions kept as doubles: what was exported so is compared with decimals."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from jobs.export.revision import quantities
from jobs.export.verify import verify_exports
from jobs.land.job import land
from lake import Lake, paths
from lake.revisions import Close, Revisions, save_close
from storage.lakes import night, ran
from support import ROOT

EARLIER = ROOT / "tests/lakes" / "e98b748-local"
# The day on which it was left.
TODAY = dt.date(2026, 9, 10)
AVERAGE, RATE = "latency", "traffic"
FOLDER = paths.exports(AVERAGE, "2026-08")
OPEN = "2026-08-17"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake whose revisions state doubles."""
    shutil.copytree(EARLIER, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def close(lake: Lake) -> None:
    """Make a month final with the last revision that the earlier version made."""
    revisions = Revisions(lake.storage, FOLDER)
    said = Close(revision=revisions.last, manifest_sha256=revisions.sha256(revisions.last))
    assert save_close(lake.storage, FOLDER, said)


def land_late(lake: Lake, quantity: str) -> None:
    """Land an event of an open date, and let the night count it."""
    body = {"idempotency_key": "late", "subject": "org_0", "meter": AVERAGE, "quantity": quantity}
    body |= {"timestamp": f"{OPEN}T10:00:00Z", "metadata": {"plan": "pro"}}
    file = Path(lake.url).parent / "late.jsonl"
    file.write_text(json.dumps(body) + "\n")
    ran(lake, lambda report: land(lake, [str(file)], report))
    night(lake, TODAY)


def problems(lake: Lake) -> list[dict[str, str]]:
    """What is wrong with the revisions of all months."""
    verified = verify_exports(Path(lake.url) / paths.EXPORTS)
    return [problem for each in verified for problem in each.problems]


def stated(lake: Lake) -> dict[str, Decimal]:
    """What the last revision of the month says, by subject."""
    revisions = Revisions(lake.storage, FOLDER)
    rows = quantities(revisions, revisions.last, ["subject"]).collect()
    assert rows.schema["quantity"] == pl.Decimal(38, 9)
    return dict(rows.select("subject", "quantity").rows())


@pytest.mark.parametrize("closed", [False, True])
def test_a_month_is_adjusted_by_what_came_late_and_by_nothing_else(lake: Lake, *, closed: bool) -> None:
    if closed:
        close(lake)
    before, last = stated(lake), Revisions(lake.storage, FOLDER).last
    night(lake, TODAY)
    assert Revisions(lake.storage, FOLDER).last == last
    land_late(lake, "1.000000001")
    revisions = Revisions(lake.storage, FOLDER)
    assert (revisions.last, revisions.kind(revisions.last)) == (
        last + 1,
        "adjustments" if closed else "usage",
    )
    adjustments = revisions.scan(revisions.last, "adjustments.parquet").collect()
    assert adjustments["subject"].to_list() == ["org_0"]
    assert adjustments["quantity_before"].to_list() == [before["org_0"]]
    assert adjustments.schema["quantity_change"] == pl.Decimal(38, 9)
    assert stated(lake) == before | {"org_0": adjustments["quantity_after"].item()}
    assert problems(lake) == []
    # And what follows on that one, as it is.
    night(lake, TODAY)
    assert Revisions(lake.storage, FOLDER).last == last + 1


def test_earlier_revisions_pass_their_check_and_a_forged_one_does_not(lake: Lake) -> None:
    assert problems(lake) == []
    land_late(lake, "5")
    folder = Path(lake.url) / FOLDER
    first, last = folder / "revision=0001", folder / "revision=0003"
    for name in ("usage.parquet", "manifest.json"):
        shutil.copy(first / name, last / name)
    assert problems(lake) != []
