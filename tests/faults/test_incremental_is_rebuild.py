"""Any sequence of landings, changes and runs ends in the rows of one run from scratch, and of the model."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import event as seen
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from depth import DEEP
from in_memory import FOLDER
from jobs.aggregate.job import DUPLICATE_MOVED
from jobs.compact import compact
from jobs.land.job import land
from jobs.run_report import reported
from lake import Lake, paths
from lake.events import listing
from lake.state.state_file import load_state
from oracle.model import Model
from support import METER, aggregated, define, put, recomputed, retained

FIRST = dt.date(2026, 6, 1)
DAYS = [FIRST + dt.timedelta(days=number) for number in range(4)]
RETENTION = 30
EXAMPLES = 5_000 if DEEP else 240
# In memory where the machine has such a folder: what is tested here is not the disk.
TABLES = {"usage": ["subject"], "usage_by_subject": ["subject"], "usage_by_dimension": ["dimension", "value"]}

hours = st.sampled_from([0, 1, 12])
# Minutes after the timestamp; so far apart that a copy on a later date may have come first.
delays = st.sampled_from([0, 0, 1, -20 * 60, 2 * 24 * 60])
facts = st.fixed_dictionaries(
    {
        "idempotency_key": st.sampled_from(["k1", "k1", "k2", "k2", "k3", " k1 ", "", None]),
        "subject": st.sampled_from(["s1", "s1", "s2"]),
        "quantity": st.sampled_from(["1", "2", "0.000000001"]).map(Decimal),
        "hour": hours,
        "delay": delays,
        "plan": st.sampled_from(["pro", "free", None]),
        "trial": st.sampled_from([True, False, None]),
        "broken": st.sampled_from([None] * 9 + ["quantity", "subject", "date", "future"]),
    }
)


class Sequences(RuleBasedStateMachine):
    """A lake and the model of it, changed in the same ways."""

    @initialize(
        aggregation=st.sampled_from(
            ["sum", "count", "avg", "min", "max", "first", "last", "rate", "unique_count"]
        )
    )
    def begin(self, aggregation: str) -> None:
        self.folder = tempfile.mkdtemp(dir=FOLDER)
        self.lake = Lake.init(self.folder)
        self.body: dict[str, Any] = METER | {"aggregation": aggregation, "event_retention_days": RETENTION}
        if aggregation == "unique_count":
            self.body["unique"] = "plan"
        self.meter = define(self.lake, **self.body)
        self.model = Model(self.body)
        self.inputs: set[str] = set()
        # By day, how often its files were merged: a producer may not use their names again.
        self.merged = Counter[dt.date]()

    @rule(
        day=st.sampled_from(DAYS), name=st.sampled_from("abc"), said=st.lists(facts, min_size=1, max_size=3)
    )
    def write_a_file(self, day: dt.date, name: str, said: list[dict[str, Any]]) -> None:
        """A producer writes a file, or replaces one."""
        events = [self._event(day, one) for one in said]
        name = f"{name}{self.merged[day]}"
        put(self.lake, self.meter, f"{name}.parquet", *events, day=day)
        self.model.put(day, name, [self._modelled(e) for e in events if not e["broken"]])

    @rule(day=st.sampled_from(DAYS), name=st.sampled_from("abc"))
    def remove_a_file(self, day: dt.date, name: str) -> None:
        name = f"{name}{self.merged[day]}"
        (Path(self.folder) / paths.events(self.meter.name, day) / f"{name}.parquet").unlink(missing_ok=True)
        self.model.drop(day, name)

    @rule(days=st.lists(st.sampled_from(DAYS), min_size=1, max_size=3), one=facts)
    def land_an_input(self, days: list[dt.date], one: dict[str, Any]) -> None:
        """The same fact on several dates, as retries with a new timestamp are."""
        events = [self._event(day, one | {"broken": None}) for day in days]
        lines = "".join(json.dumps(self._usage_body(e)) + "\n" for e in events)
        file = Path(self.folder) / "input.jsonl"
        file.write_text(lines)
        with reported(self.lake, "land") as report:
            land(self.lake, [str(file)], report)
        # What is not landed because all its dates are sealed may be tried again, to the same end.
        if lines not in self.inputs:
            for day in set(days):
                mine = [self._modelled(e) for e in events if e["timestamp"].date() == day]
                self.model.put(day, f"input {len(self.inputs)}", mine)
        self.inputs.add(lines)

    @precondition(lambda self: "trial" not in self.model.dimensions)
    @rule()
    def add_a_dimension(self) -> None:
        self.body["dimensions"] = [
            *METER["dimensions"],
            {"name": "trial", "type": "boolean", "required": False},
        ]
        self.meter = define(self.lake, **self.body)
        self.model.dimensions["trial"] = "boolean"

    @rule()
    def aggregate(self) -> None:
        report = aggregated(self.lake)
        if DUPLICATE_MOVED in recomputed(report).values():
            seen("a winner moved to another date")
        self._compare()
        assert aggregated(self.lake).partitions == []

    @rule(aggregated_before=st.booleans(), waited=st.booleans())
    def compact(self, *, aggregated_before: bool, waited: bool) -> None:
        """No number changes for it, whether what was merged before is there still or goes now."""
        if aggregated_before:
            self.aggregate()
        with (
            patch.object(listing, "GRACE", dt.timedelta(0) if waited else listing.GRACE),
            reported(self.lake, "compact") as report,
        ):
            compact(self.lake, report, as_of=FIRST + dt.timedelta(days=9))
        for done in report.partitions:
            if done.action == "compacted":
                seen("files were merged")
                self.merged[done.date] += 1
        if aggregated_before:
            self._compare()

    @rule(days=st.integers(0, 5))
    def retain(self, days: int) -> None:
        retained(self.lake, FIRST + dt.timedelta(days=RETENTION + days))
        for day in sorted(load_state(self.lake.storage, self.meter.name).sealed):
            if day not in self.model.sealed:
                seen("a partition was sealed")
            self.model.seal(day)

    @rule(days=st.integers(0, 5))
    def nightly(self, days: int) -> None:
        self.aggregate()
        self.retain(days)
        self._compare()

    def teardown(self) -> None:
        if hasattr(self, "lake"):
            aggregated(self.lake)
            self._compare()
            aggregated(self.lake, rebuild=True)
            self._compare()
            shutil.rmtree(self.folder)

    def _compare(self) -> None:
        expected = self.model.tables()
        for table in TABLES:
            found = getattr(self.lake, table)(self.meter.name).collect()
            assert found.to_dicts() == [dict.fromkeys(found.columns) | row for row in expected[table]], table

    def _event(self, day: dt.date, said: dict[str, Any]) -> dict[str, Any]:
        """An event as a producer writes it; a broken one breaks one rule."""
        at = dt.datetime.combine(day, dt.time(said["hour"]), dt.UTC)
        event = said | {"timestamp": at, "received_at": at + dt.timedelta(minutes=said["delay"])}
        broken = {
            "quantity": {"quantity": Decimal(-1)},
            "subject": {"subject": "no space"},
            "date": {"timestamp": at - dt.timedelta(days=9)},
            "future": {"received_at": at - dt.timedelta(hours=25)},
        }
        return event | broken.get(said["broken"], {})

    def _modelled(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event as it is kept: trimmed, and without what is not declared yet."""
        kept = {name: event[name] for name in ("subject", "quantity", "timestamp", "received_at")}
        kept["idempotency_key"] = (event["idempotency_key"] or "").strip() or None
        return kept | {name: event[name] for name in self.model.dimensions}

    def _usage_body(self, event: dict[str, Any]) -> dict[str, Any]:
        times = {name: event[name].isoformat() for name in ("timestamp", "received_at")}
        metadata = {name: event[name] for name in self.model.dimensions if event[name] is not None}
        rest = {"meter": self.meter.name, "quantity": str(event["quantity"]), "metadata": metadata}
        return {"idempotency_key": event["idempotency_key"], "subject": event["subject"], **times, **rest}


def _part(number: int) -> Any:
    """A share of the sequences as a test of its own, so that processes can share them out."""

    @seed(number)
    class Part(Sequences):
        pass

    Part.TestCase.settings = settings(max_examples=EXAMPLES // 4, stateful_step_count=8)
    return Part.TestCase


test_sequences_1, test_sequences_2, test_sequences_3, test_sequences_4 = map(_part, range(4))
