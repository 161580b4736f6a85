"""The demo: its numbers against its own input counted in plain Python, and how it looks."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.demo.data import EXPIRED, LATE_DATES, TODAY
from jobs.demo.job import demo
from lake import Lake
from lake.state.state_file import load_state

WIDTH = 80


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder, text = tmp_path_factory.mktemp("demo"), io.StringIO()
    answers = demo(str(folder), Console(file=text, width=WIDTH, color_system=None))
    return folder, answers, text.getvalue()


def _winners(folder: Path, meter: str) -> list[dict[str, Any]]:
    """The valid events of the input, the first received of each key."""
    files = {"active_users": ["activity", "retries", "history", "late"], "users": ["users", "late"]}
    found: dict[str, dict[str, Any]] = {}
    for name in files.get(meter, [meter]):
        for line in (folder / "input" / f"{name}.jsonl").read_text().splitlines():
            if "broken" in line or "org_ac" in line.rsplit('"', 1)[-1] or not line.endswith("}"):
                continue
            event = json.loads(line)
            if event["meter"] != meter:
                continue
            known = found.get(event["idempotency_key"])
            if known is None or event["received_at"] < known["received_at"]:
                found[event["idempotency_key"]] = event
    return list(found.values())


def test_active_customers_are_those_of_the_input(ran: tuple[Path, dict[str, Any], str]) -> None:
    folder, answers, _ = ran
    month, week = Counter[str](), Counter[str]()
    for event in _winners(folder, "active_users"):
        date = dt.date.fromisoformat(event["timestamp"][:10])
        month[event["subject"]] += date >= TODAY.replace(day=1)
        week[event["subject"]] += date > TODAY - dt.timedelta(days=7)
    expected = {subject: (week[subject], count) for subject, count in month.items() if count}
    assert {row["subject"]: (row["week"], row["month"]) for row in answers["active_customers"]} == expected
    assert len(expected) == 9


@pytest.mark.parametrize(("answer", "dimension"), [("plans", "plan"), ("roles", "role")])
def test_plans_and_roles_are_those_of_the_input(
    ran: tuple[Path, dict[str, Any], str], answer: str, dimension: str
) -> None:
    folder, answers, _ = ran
    events = [e for e in _winners(folder, "active_users") if e["timestamp"] >= f"{TODAY.replace(day=1)}"]
    expected = Counter(event["metadata"][dimension] for event in events)
    assert {row[dimension]: int(row["quantity"]) for row in answers[answer]} == expected
    assert sum(row["share"] for row in answers[answer]) == pytest.approx(1)


def test_seats_and_workspaces_are_the_last_snapshots_of_the_input(
    ran: tuple[Path, dict[str, Any], str],
) -> None:
    folder, answers, _ = ran
    last: dict[tuple[str, str], tuple[str, int]] = {}
    for event in _winners(folder, "seats"):
        if event["timestamp"] < f"{TODAY.replace(day=1)}":
            continue
        key = event["subject"], event["metadata"]["workspace"]
        last[key] = max(last.get(key, ("", 0)), (event["timestamp"], event["quantity"]))
    seats, workspaces = Counter[str](), Counter[str]()
    for (subject, _), (_, count) in last.items():
        seats[subject] += count
        workspaces[subject] += count > 0
    found = {row["subject"]: (row["seats"], row["workspaces"]) for row in answers["to_bill"]}
    assert found == {subject: (seats[subject], workspaces[subject]) for subject in seats}


def test_users_of_a_month_are_those_of_the_input(ran: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, _ = ran
    june = [e for e in _winners(folder, "users") if e["timestamp"] >= f"{TODAY.replace(day=1)}"]
    expected = {(e["subject"], e["metadata"]["user"]) for e in june}
    by_subject = Counter(subject for subject, _ in expected)
    totals = Lake(str(folder)).totals(
        "users", ["subject"], TODAY.replace(day=1), TODAY + dt.timedelta(days=1)
    )
    assert dict(totals.select("subject", "quantity").collect().rows()) == by_subject
    # As many user-days as the meter that adds them up.
    assert len(june) == len(
        [e for e in _winners(folder, "active_users") if e["timestamp"] >= f"{TODAY.replace(day=1)}"]
    )


def test_everything_that_goes_wrong_is_in_it_and_told(ran: tuple[Path, dict[str, Any], str]) -> None:
    folder, answers, text = ran
    assert len(answers["quarantined"]) == 8
    assert all(reason in text for reason in answers["quarantined"])
    assert (answers["duplicates"], answers["duplicates_across_dates"], answers["conflicts"]) == (51, 10, 1)
    assert answers["dropped"] == [EXPIRED]
    assert answers["recomputed_for_late_file"] == list(LATE_DATES)
    assert load_state(Lake(str(folder)).storage, "active_users").sealed == {EXPIRED}


def test_it_fits_the_screen(ran: tuple[Path, dict[str, Any], str]) -> None:
    _, _, text = ran
    assert (
        max(len(line) for line in text.splitlines() if "demo" not in line and str(ran[0]) not in line)
        <= WIDTH
    )
    assert 40 < len(text.splitlines()) < 80
