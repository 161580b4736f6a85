"""The demo: a small lake of the active-users use case, the whole nightly job on it, and the answers on screen."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from jobs.demo_data import TODAY, Inputs, write_inputs
from jobs.land import land
from jobs.nightly import nightly
from jobs.questions import active_customers, ranked, to_bill
from jobs.report import Report, reported
from lake import Lake
from lake.meters import save_meter
from schemas.meter import parse_meter

BAR_CHARS = 24
MONTH = TODAY.replace(day=1)


def demo(folder: str, console: Console) -> dict[str, Any]:
    """Make a lake in an empty folder, run everything on it, and print what happened; gives the same as a document."""
    lake = Lake.init(folder)
    inputs = write_inputs(Path(folder) / "input")
    for path in inputs.meters:
        save_meter(lake.storage, parse_meter(path.read_bytes(), path.name))
    console.print(f"A lake in {folder}/, with the meters active_users (sum) and seats (last).\n")
    happened = _run(lake, inputs, console)
    answers = _answers(lake)
    _show_answers(answers, console)
    _show_next(folder, console)
    return {
        "lake": lake.url,
        "today": TODAY,
        **happened,
        **{name: df.to_dicts() for name, df in answers.items()},
    }


def _run(lake: Lake, inputs: Inputs, console: Console) -> dict[str, Any]:
    landed = _land(lake, inputs.first)
    console.print(f"Landed {len(inputs.first)} files: {landed.events_landed:,} events in their partitions,")
    console.print(f"{sum(landed.quarantined.values())} rows in quarantine with their reason and their text:")
    console.print(_reasons(landed))
    first = _nightly(lake)
    recomputed, dropped = _done(first, "aggregated"), _done(first, "dropped")
    across = _across(lake)
    console.print(f"First night, as of {TODAY}: {len(recomputed)} partitions aggregated.")
    console.print(f"  {first.duplicates} retries count once, {across} of them sent again on another date;")
    console.print(f"  {first.conflicts} of them said another quantity: a conflict, kept for a look.")
    console.print(
        f"  {len(dropped)} partition was older than 180 days: sealed, its events dropped ({dropped[0].date}).\n"
    )
    late = _land(lake, inputs.late)
    second = _nightly(lake)
    console.print(f"A file came late, with {late.events_landed} events. Second night, only what it touches:")
    for partition in _done(second, "aggregated"):
        console.print(f"  {partition.meter} {partition.date}  {partition.why}")
    console.print()
    return {
        "events_landed": landed.events_landed + late.events_landed,
        "quarantined": landed.quarantined,
        "duplicates": first.duplicates,
        "duplicates_across_dates": across,
        "conflicts": lake.duplicates("active_users").filter("conflict").collect().height,
        "dropped": [partition.date for partition in dropped],
        "recomputed_for_late_file": [partition.date for partition in _done(second, "aggregated")],
    }


def _land(lake: Lake, files: list[Path]) -> Report:
    with reported(lake, "land") as report:
        land(lake, [str(file) for file in files], report)
    return report


def _nightly(lake: Lake) -> Report:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=TODAY)
    return report


def _done(report: Report, action: str) -> list[Any]:
    return [partition for partition in report.partitions if partition.action == action]


def _across(lake: Lake) -> int:
    lost = lake.duplicates("active_users").filter(pl.col("date") != pl.col("winner_date"))
    return lost.collect().height


def _answers(lake: Lake) -> dict[str, pl.DataFrame]:
    until = TODAY + dt.timedelta(days=1)
    return {
        "active_customers": active_customers(lake.usage_by_subject("active_users"), TODAY),
        "plans": ranked(lake.totals("active_users", ["plan"], MONTH, until), "plan"),
        "to_bill": to_bill(lake.totals("seats", ["subject", "workspace"], MONTH, until)),
        "roles": ranked(lake.totals("active_users", ["role"], MONTH, until), "role"),
    }


def _reasons(report: Report) -> str:
    counts = Counter(report.quarantined)
    return "".join(f"  {count}  {reason}\n" for reason, count in sorted(counts.items()))


def _show_answers(answers: dict[str, pl.DataFrame], console: Console) -> None:
    month = f"{TODAY:%B}"
    console.print("Activity is counted in user-days: one user active in one workspace on one day.\n")
    table = _table("Which customers were active?", "customer", "last 7 days", month, "")
    most = answers["active_customers"]["month"].max()
    for subject, week, total in answers["active_customers"].iter_rows():
        table.add_row(subject, f"{week:,}", f"{total:,}", _bar(total, most))
    console.print(table)
    console.print()
    for name, title in (
        ("plans", "Which plans drive the most active usage?"),
        ("roles", "Which roles use it most?"),
    ):
        table = _table(f"{title} ({month})", name.removesuffix("s"), "user-days", "share", "")
        for value, quantity, share in answers[name].iter_rows():
            table.add_row(value, f"{int(quantity):,}", f"{share:.0%}", _bar(share, 1))
        console.print(table)
        console.print()
    bill = answers["to_bill"]
    table = _table(
        f"How many seats and workspaces to bill? ({month}, last snapshot)",
        "customer",
        "workspaces",
        "seats",
        "",
    )
    for subject, workspaces, seats in bill.iter_rows():
        table.add_row(subject, f"{workspaces:,}", f"{seats:,}", _bar(seats, bill["seats"].max()))
    table.add_row("all", f"{bill['workspaces'].sum():,}", f"{bill['seats'].sum():,}")
    console.print(table)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first, min_width=16)
    for name in others:
        table.add_column(name, justify="right" if name else "left", min_width=11 if name else 0)
    return table


def _bar(value: Any, most: Any) -> str:
    return "█" * max(1, round(BAR_CHARS * float(value) / float(most))) if value else ""


def _show_next(folder: str, console: Console) -> None:
    console.print("\nThe lake is yours to look at:")
    console.print(f"  meterlake --lake {folder} status", highlight=False, soft_wrap=True)
    console.print(
        f"  meterlake --lake {folder} retain --dry-run --as-of 2026-12-31", highlight=False, soft_wrap=True
    )
    console.print(
        f"  python -c \"from lake import Lake; print(Lake({folder!r}).usage('seats').collect())\"",
        soft_wrap=True,
    )
