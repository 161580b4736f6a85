"""What a run starts from: the meters one after the other, so that a large lake is not held at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake import paths
from lake.snapshot import scan_meters
from schemas.errors import BadInputError, BrokenLakeError
from support import a_lake, aggregated, event, put


def test_a_meter_is_looked_at_when_its_turn_comes(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        lake, meter = a_lake(tmp_path / "lake", name=name)
        put(lake, meter, "a.parquet", event("a"))
    aggregated(lake)
    lake.storage.publish(paths.state("b"), b"{}")
    views = scan_meters(lake.storage)
    first = next(views)
    assert (first.meter.name, len(first.state.partitions), len(first.files)) == ("a", 1, 1)
    with pytest.raises(BrokenLakeError, match="the state file was changed"):
        next(views)


def test_a_meter_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    lake, _ = a_lake(tmp_path / "lake", name="a")
    with pytest.raises(BadInputError) as raised:
        next(scan_meters(lake.storage, "b"))
    assert raised.value.expected == "one of 'a'"
