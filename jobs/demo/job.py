"""The demo: a small lake of the active-users use case, the whole nightly job on it, and the answers on screen."""

from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from jobs.demo.data import TODAY, Inputs, write_inputs
from jobs.demo.questions import active_customers, ranked, to_bill
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.run_report import PartitionAction, RunReport, reported
from jobs.screen.table import Share, Table, heading, line, prose, shares
from lake import Lake
from lake.meters import save_meter
from schemas.meter import parse_meter

MONTH = TODAY.replace(day=1)


def demo(folder: str, console: Console, program: str = "meterlake") -> dict[str, Any]:
    """Make a lake in an empty folder, run everything on it, print what happened, and return it as a document."""
    lake = Lake.init(folder)
    inputs = write_inputs(Path(folder) / "input")
    for path in inputs.meters:
        save_meter(lake.storage, parse_meter(path.read_bytes(), path.name))
    prose(
        console,
        f"A lake in {folder}/, with the meters active_users (sum), seats (last) and users (unique_count).",
    )
    line(console)
    happened = _run(lake, inputs, console)
    answers = _answers(lake)
    _show_answers(answers, console)
    _show_next(folder, program, console)
    return {
        "lake": lake.url,
        "today": TODAY,
        **happened,
        **{name: df.to_dicts() for name, df in answers.items()},
    }


def _run(lake: Lake, inputs: Inputs, console: Console) -> dict[str, Any]:
    landed = _land(lake, inputs.first)
    prose(
        console,
        f"Landed {len(inputs.first)} files: {landed.events_landed:,} events in their partitions, and "
        f"{sum(landed.quarantined.values())} rows in quarantine with their reason and their text:",
    )
    for reason, count in sorted(landed.quarantined.items()):
        line(console, f"  {count}  {reason}")
    first = _nightly(lake)
    recomputed, dropped = _done(first, PartitionAction.AGGREGATED), _done(first, PartitionAction.DROPPED)
    across = _across(lake)
    line(console)
    prose(console, f"First night, as of {TODAY}: {len(recomputed)} partitions aggregated.")
    for text in (
        f"{first.duplicates} retries count once, {across} of them sent again on another date;",
        f"{first.conflicts} of them has a different quantity: a conflict, to be looked at.",
        f"{len(dropped)} partition was older than 180 days: sealed, its events dropped ({dropped[0].date}).",
    ):
        prose(console, f"  {text}")
    late = _land(lake, inputs.late)
    second = _nightly(lake)
    line(console)
    prose(
        console,
        f"A file came late, with {late.events_landed} events. Second night, only what it touches:",
    )
    for partition in _done(second, PartitionAction.AGGREGATED):
        line(console, f"  {partition.meter} {partition.date}  {partition.reason}")
    line(console)
    return {
        "events_landed": landed.events_landed + late.events_landed,
        "quarantined": landed.quarantined,
        "duplicates": first.duplicates,
        "duplicates_across_dates": across,
        "conflicts": lake.duplicates("active_users").filter("conflict").collect().height,
        "dropped": [partition.date for partition in dropped],
        "recomputed_for_late_file": sorted(
            {partition.date for partition in _done(second, PartitionAction.AGGREGATED)}
        ),
    }


def _land(lake: Lake, files: list[Path]) -> RunReport:
    with reported(lake, "land") as report:
        land(lake, [str(file) for file in files], report)
    return report


def _nightly(lake: Lake) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=TODAY)
    return report


def _done(report: RunReport, action: PartitionAction) -> list[Any]:
    return [partition for partition in report.partitions if partition.action == action]


def _across(lake: Lake) -> int:
    lost = lake.duplicates("active_users").filter(pl.col("date") != pl.col("winner_date"))
    return lost.collect().height


def _answers(lake: Lake) -> dict[str, pl.DataFrame]:
    until = TODAY + dt.timedelta(days=1)
    return {
        "active_customers": active_customers(lake.usage_by_subject("active_users"), TODAY),
        "plans": ranked(lake.totals("active_users", ["plan"], MONTH, until), "plan"),
        "to_bill": to_bill(
            lake.totals("seats", ["subject"], MONTH, until),
            lake.totals("seats", ["subject", "workspace"], MONTH, until),
        ),
        "roles": ranked(lake.totals("active_users", ["role"], MONTH, until), "role"),
    }


def _show_answers(answers: dict[str, pl.DataFrame], console: Console) -> None:
    month = f"{TODAY:%B}"
    prose(console, "Activity is counted in user-days: one user active in one workspace on one day.")
    active = answers["active_customers"]
    table = Table("customer", ">last 7 days", f">{month}", "|")
    for (subject, week, total), bar in zip(active.iter_rows(), shares(active["month"]), strict=True):
        table.add(subject, week, total, bar)
    _titled(table, "Which customers were active?", console)
    for name, title in (
        ("plans", "Which plans drive the most active usage?"),
        ("roles", "Which roles use it most?"),
    ):
        table = Table(name.removesuffix("s"), ">user-days", ">share", "|")
        for value, quantity, share in answers[name].iter_rows():
            table.add(value, int(quantity), f"{share:.0%}", Share(share))
        _titled(table, f"{title} ({month})", console)
    bill = answers["to_bill"]
    table = Table("customer", ">workspaces", ">seats", "|")
    for (subject, workspaces, seats), bar in zip(bill.iter_rows(), shares(bill["seats"]), strict=True):
        table.add(subject, workspaces, seats, bar)
    table.add("all", int(bill["workspaces"].sum()), int(bill["seats"].sum()), Share(0.0))
    _titled(table, f"How many seats and workspaces to bill? ({month}, last snapshot)", console)


def _titled(table: Table, title: str, console: Console) -> None:
    heading(console, title)
    table.print(console)


def _show_next(folder: str, program: str, console: Console) -> None:
    line(console)
    prose(console, "The lake is yours to look at:")
    for command in ("status", "report --out report.html", "nightly"):
        line(console, f"  {program} --lake {shlex.quote(folder)} {command} --as-of {TODAY}")
