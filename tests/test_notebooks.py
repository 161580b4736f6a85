"""The notebooks run on a demo lake, what they say is what the raw files say, and they are committed without results."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import io
import json
import os
import re
import runpy
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import matplotlib as mpl
import nbformat
import polars as pl
import psutil
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from rich.console import Console

from jobs.demo.data import FIRST, TODAY
from jobs.demo.job import demo
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.report_page.figures import gather
from jobs.run_report import reported
from lake import Lake
from schemas.meter import AGGREGATIONS
from support import a_lake, aggregated, define, event, put, retained

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
tidied: Callable[[str], str] = runpy.run_path(str(ROOT / "notebooks" / "tidy.py"))["tidied"]
DIMENSIONS = [
    {"name": name, "type": "string", "required": False} for name in ("plan", "workspace", "role", "source")
]
# Frames that charts are drawn from; they are in no printed table.
DRAWN = {
    "active_users": ("daily", "weekly", "mix_by_week", "seats", "retention"),
    "reconcile_billing": ("explained",),
}
EXECUTED = "executed.ipynb"


class Ran:
    """A notebook that a kernel has executed: its cells, and the frames it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.notebook = nbformat.read(folder / EXECUTED, 4)
        self.cells = [cell for cell in self.notebook.cells if cell.cell_type == "code"]
        self._folder = folder

    def outputs(self, kind: str) -> list[str]:
        """All outputs of one MIME type."""
        shown = [output for cell in self.cells for output in cell.outputs if "data" in output]
        return [output.data[kind] for output in shown if kind in output.data]

    def printed(self) -> str:
        return "".join(output.text for cell in self.cells for output in cell.outputs if "text" in output)

    def table(self, *columns: str) -> list[tuple[str, ...]]:
        """The rows of the one printed table that has these columns."""
        (found,) = (rows for rows in map(_rows, self.outputs("text/html")) if rows[0] == columns)
        return found[1:]

    def frame(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self._folder / f"{name}.parquet")


class _Table(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self._in_cell = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def _rows(html: str) -> list[tuple[str, ...]]:
    parser = _Table()
    parser.feed(html)
    return [tuple(cell.strip('"') for cell in row) for row in parser.rows]


@contextlib.contextmanager
def _settings(home: Path, **more: str) -> Iterator[None]:
    """Environment of a kernel that leaves nothing in anybody's home."""
    names = ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({name: str(home / name) for name in names} | more).items():
            patch.setenv(name, value)
        yield


def _execute(name: str, lake: Path, home: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    save = "; ".join(f"{frame}.write_parquet({str(home / frame)!r} + '.parquet')" for frame in DRAWN[name])
    asked = nbformat.v4.new_code_cell(save, id="asked")
    notebook.cells.append(asked)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}})
    with _settings(home, METERLAKE_LAKE=str(lake), PYTHONPATH=str(ROOT)):
        client.execute()
    notebook.cells.remove(asked)
    nbformat.write(notebook, home / EXECUTED)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process of the test run makes, and the others wait for."""
    root = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, done = root / name, root / f"{name}.done"
    try:
        folder.mkdir()
    except FileExistsError:
        until = time.monotonic() + 200
        while not done.exists():
            assert time.monotonic() < until, f"{name} was not made"
            time.sleep(0.1)
        return folder
    try:
        make(folder)
    finally:
        done.touch()
    return folder


@pytest.fixture(scope="module")
def demo_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _once(
        tmp_path_factory, "notebooks-lake", lambda folder: demo(str(folder), Console(file=io.StringIO()))
    )


@pytest.fixture(scope="module")
def active_users(demo_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    name = "active_users"
    return Ran(_once(tmp_path_factory, name, lambda folder: _execute(name, demo_lake, folder)))


@pytest.fixture(scope="module")
def reconcile_billing(demo_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    name = "reconcile_billing"
    return Ran(_once(tmp_path_factory, name, lambda folder: _execute(name, demo_lake, folder)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_results_and_with_ids_by_place(path: Path) -> None:
    text = path.read_text()
    assert tidied(text) == text, "run: make format"


@pytest.mark.parametrize("name", DRAWN)
def test_every_cell_runs_without_a_word_on_stderr(name: str, request: pytest.FixtureRequest) -> None:
    ran: Ran = request.getfixturevalue(name)
    said = [output for cell in ran.cells for output in cell.outputs if output.get("name") == "stderr"]
    assert not said
    assert [cell.execution_count for cell in ran.cells] == list(range(1, len(ran.cells) + 1))
    charts = [base64.b64decode(png) for png in ran.outputs("image/png")]
    assert len(charts) == sum("plt.show()" in cell.source for cell in ran.cells)
    # A picture of some size that is not one colour all over.
    assert all(chart.startswith(b"\x89PNG") and len(chart) > 5_000 for chart in charts)
    assert tidied(nbformat.writes(ran.notebook)) == (ROOT / "notebooks" / f"{name}.ipynb").read_text()


@pytest.fixture
def counting(demo_lake: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with `counting`: of each key the winner, in the months that the lake still has events of."""
    with duckdb.connect() as database:
        database.execute(f"""
            create table counting as
            select * exclude (meter, date), date::date as date
            from read_parquet('{demo_lake}/events/meter=active_users/**/*.parquet', hive_partitioning = true)
            qualify row_number() over (partition by idempotency_key
                order by received_at, timestamp, quantity, subject, plan, workspace, role, source) = 1
        """)
        yield database


def _numbers(rows: list[tuple[str, ...]], first: int) -> list[tuple[Any, ...]]:
    """Printed rows with their columns from `first` on as numbers."""
    return [(*row[:first], *(Decimal(cell) for cell in row[first:])) for row in rows]


@pytest.mark.parametrize(("frame", "every"), [("daily", "day"), ("weekly", "week")])
def test_active_customers_and_workspaces_are_those_of_the_raw_events(
    active_users: Ran, counting: duckdb.DuckDBPyConnection, frame: str, every: str
) -> None:
    expected = counting.sql(f"""
        select date_trunc('{every}', date)::date as start, count(distinct subject), count(distinct workspace)
        from counting group by start order by start
    """).fetchall()
    # The first and last week are cut by the range.
    whole = expected[1:-1] if every == "week" else expected
    assert active_users.frame(frame).select("start", "customers", "workspaces").rows() == whole
    assert len(whole) == {"day": 91, "week": 12}[every]


def test_printed_months_are_those_of_the_raw_events(
    active_users: Ran, counting: duckdb.DuckDBPyConnection
) -> None:
    expected = counting.sql("""
        select strftime(date, '%B %Y'), count(distinct subject), count(distinct workspace)
        from counting group by 1 order by min(date)
    """).fetchall()
    assert _numbers(active_users.table("month", "customers", "workspaces"), 1) == expected
    plans = counting.sql("""
        select strftime(date, '%B %Y') as month, plan, sum(quantity),
            round(100 * sum(quantity) / sum(sum(quantity)) over (partition by month), 1)
        from counting group by month, plan order by min(date_trunc('month', date)), plan
    """).fetchall()
    printed = _numbers(active_users.table("month", "plan", "user-days", "%"), 2)
    assert [row[:3] for row in printed] == [row[:3] for row in plans]
    assert [float(row[3]) for row in printed] == pytest.approx([row[3] for row in plans])


def test_the_mix_by_week_adds_up_and_is_that_of_the_raw_events(
    active_users: Ran, counting: duckdb.DuckDBPyConnection
) -> None:
    expected = {
        (week, plan): float(quantity)
        for week, plan, quantity in counting.sql(
            "select date_trunc('week', date)::date, plan, sum(quantity) from counting group by 1, 2"
        ).fetchall()
    }
    for row in active_users.frame("mix_by_week").iter_rows(named=True):
        week = row.pop("week")
        found = {plan: expected.get((week, plan), 0.0) for plan in row}
        assert row == pytest.approx({plan: 100 * part / sum(found.values()) for plan, part in found.items()})


def test_printed_customers_and_roles_are_those_of_the_raw_events(
    active_users: Ran, counting: duckdb.DuckDBPyConnection
) -> None:
    customers = counting.sql("""
        select subject, sum(quantity) filter (date >= '2026-06-01') as now,
            coalesce(sum(quantity) filter (date between '2026-05-01' and '2026-05-31'), 0)
        from counting group by subject having now > 0 order by now desc, subject limit 10
    """).fetchall()
    assert _numbers(active_users.table("subject", "now", "before"), 1) == customers
    roles = counting.sql("""
        select role, sum(quantity) from counting where date >= '2026-06-01' group by role order by 2 desc
    """).fetchall()
    printed = _numbers(active_users.table("role", "quantity", "%"), 1)
    assert [row[:2] for row in printed] == roles
    assert float(sum(row[2] for row in printed)) == pytest.approx(100, abs=0.2)


def _inputs(lake: Path, *names: str) -> list[dict[str, Any]]:
    """The events of the demo's input files that are valid."""
    lines = [line for name in names for line in (lake / "input" / f"{name}.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in lines if "broken" not in line and line.endswith("}}")]


def test_seats_are_the_last_snapshots_of_the_input_carried_on(active_users: Ran, demo_lake: Path) -> None:
    snapshots = defaultdict[str, dict[tuple[str, str], int]](dict)
    for said in sorted(_inputs(demo_lake, "seats"), key=lambda said: said["timestamp"]):
        workspace = said["subject"], said["metadata"]["workspace"]
        snapshots[said["timestamp"][:10]][workspace] = said["quantity"]
    customers = sorted({subject for day in snapshots.values() for subject, _ in day})
    last: dict[tuple[str, str], int] = {}
    expected = []
    for number in range((TODAY - FIRST).days + 1):
        date = FIRST + dt.timedelta(days=number)
        last |= snapshots[f"{date}"]
        # Before its first snapshot a workspace has no number, which adds nothing.
        for customer in customers:
            seats = [count for (subject, _), count in last.items() if subject == customer]
            expected.append((date, customer, sum(seats), sum(count > 0 for count in seats)))
    assert active_users.frame("seats").rows() == expected
    today = sorted((row[1:] for row in expected if row[0] == TODAY and row[2]), key=lambda row: -row[1])
    printed = active_users.table("date", "subject", "seats", "workspaces")
    assert [(row[1], int(row[2]), int(row[3])) for row in printed] == today


def test_cohorts_are_those_of_the_input(active_users: Ran, demo_lake: Path) -> None:
    days = defaultdict[str, set[dt.date]](set)
    for said in _inputs(demo_lake, "activity", "history", "late"):
        days[said["subject"]].add(dt.date.fromisoformat(said["timestamp"][:10]))
    # Mondays of whole weeks.
    weeks = [dt.date(2026, 4, 6) + dt.timedelta(weeks=number) for number in range(12)]
    active = {
        customer: [any(week <= date < week + dt.timedelta(weeks=1) for date in dates) for week in weeks]
        for customer, dates in days.items()
    }
    cohorts = defaultdict[dt.date | None, list[list[bool]]](list)
    for customer, dates in days.items():
        joined = min(dates).replace(day=1) if min(dates) >= FIRST else None
        cohorts[joined].append(active[customer][active[customer].index(True) :])
    expected = [
        (joined, len(lives), age, sum(life[age] for life in lives))
        for joined, lives in sorted(cohorts.items(), key=lambda cohort: cohort[0] or dt.date.min)
        for age in range(min(map(len, lives)))
    ]
    found = active_users.frame("retention").select("joined", "customers", "age", "active")
    assert found.rows() == expected
    assert [len(lives) for lives in cohorts.values()] == [6, 3, 3, 1]


def test_the_bill_is_accounted_for_to_the_last_row(
    reconcile_billing: Ran, demo_lake: Path, counting: duckdb.DuckDBPyConnection
) -> None:
    raw, raw_quantity = duckdb.sql(f"""
        select count(*), sum(quantity)
        from read_parquet('{demo_lake}/events/meter=active_users/date=2026-06-*/*.parquet')
        where subject = 'org_acme'
    """).fetchall()[0]
    june = counting.sql("""
        select count(*), sum(quantity) from counting where subject = 'org_acme' and date >= '2026-06-01'
    """).fetchall()[0]
    account = {
        step: (int(rows), Decimal(quantity))
        for step, rows, quantity in reconcile_billing.table("step", "rows", "quantity_sum")
    }
    assert account["landed in this month"] == (raw, raw_quantity)
    assert account["count"] == june
    *taken, counted = [rows for rows, _ in account.values()]
    assert taken[0] - sum(taken[1:]) == counted
    csv = (demo_lake / "exports/active_users/period=2026-06/revision=0002/usage.csv").read_text()
    (billed,) = (line.split(",")[6] for line in csv.splitlines() if ",org_acme," in line)
    assert f"org_acme, 2026-06: {billed} user billed" in reconcile_billing.printed()
    assert Decimal(billed) == june[1]


def test_every_copy_of_the_input_is_explained(reconcile_billing: Ran, demo_lake: Path) -> None:
    first = {said["idempotency_key"]: said for said in _inputs(demo_lake, "activity")}
    expected = sorted(
        (
            said["idempotency_key"],
            said["timestamp"][:10],
            first[said["idempotency_key"]]["timestamp"][:10],
            said["quantity"],
            "quantity" if said["quantity"] == 2 else "",
        )
        for said in _inputs(demo_lake, "retries")
        if said["subject"] == "org_acme"
    )
    explained = reconcile_billing.frame("explained")
    found = explained.select(
        "idempotency_key",
        pl.col("date", "winner date").cast(pl.String),
        pl.col("quantity").cast(pl.Int64),
        "says otherwise",
    )
    assert sorted(found.rows()) == expected
    assert explained["decided by"].unique().to_list() == ["received_at"]
    assert {row[4] for row in expected} == {"", "quantity"}
    assert {row[1] == row[2] for row in expected} == {True, False}


def test_what_came_late_is_what_was_adjusted(reconcile_billing: Ran, demo_lake: Path) -> None:
    late = [said for said in _inputs(demo_lake, "late") if said["meter"] == "active_users"]
    dates = ", ".join(sorted({said["timestamp"][:10] for said in late}))
    (row,) = reconcile_billing.table(
        "revision", "quantity_before", "quantity_after", "quantity_change", "dates changed", "of late events"
    )
    assert row[4] == dates
    assert int(row[3]) == int(row[5]) == int(row[2]) - int(row[1]) == len(late)


def test_every_rejected_row_of_the_customer_is_shown(reconcile_billing: Ran, demo_lake: Path) -> None:
    lines = (demo_lake / "input" / "activity.jsonl").read_text().splitlines()
    rejected = [line for line in lines if '"broken"' in line and '"org_acme"' in line]
    printed = reconcile_billing.printed()
    assert [line in printed for line in rejected] == [True] * 6
    assert len(reconcile_billing.table("reason", "detail", "source", "position")) == 6


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a notebook's code in this process, which is faster than a kernel, with other words in some places."""
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

    def run(name: str, lake: Path, **replaced: str) -> dict[str, Any]:
        monkeypatch.setenv("METERLAKE_LAKE", str(lake))
        notebook = nbformat.read(f"{name}.ipynb", 4)
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        for old, new in replaced.items():
            assert f'"{old}"' in code
            code = code.replace(f'"{old}"', f'"{new}"')
        names: dict[str, Any] = {}
        exec(compile(code, f"{name}.ipynb", "exec"), names)  # noqa: S102
        return names

    mpl.use("agg")
    with mpl.rc_context(), pl.Config(), contextlib.redirect_stdout(io.StringIO()):
        yield run


def test_seats_are_the_same_in_notebook_export_page_and_answers(active_users: Ran, demo_lake: Path) -> None:
    lake, until = Lake(str(demo_lake)), TODAY + dt.timedelta(days=1)
    month = TODAY.replace(day=1)
    answered = lake.query("seats", month, until, bucket="month", by=["subject"]).collect()
    seats = dict(answered.select("subject", "quantity").rows())
    assert (seats["org_acme"], sum(seats.values())) == (61, 168)
    whole = lake.query("seats", month, until, bucket="month").collect()
    assert (
        whole["quantity"].to_list() == lake.totals("seats", (), month, until).collect()["quantity"].to_list()
    )
    assert whole["quantity"].item() == 168
    folder = demo_lake / f"exports/seats/period={month:%Y-%m}"
    last = json.loads((folder / "latest.json").read_bytes())["revision"]
    exported = pl.read_parquet(folder / f"revision={last:04d}" / "usage.parquet")
    assert dict(exported.select("subject", "quantity").rows()) == seats
    frame = active_users.frame("seats").filter(pl.col("date") == TODAY)
    # Those that have left have 0 there.
    drawn = dict(frame.select("subject", "seats").rows())
    assert drawn == dict.fromkeys(drawn, 0) | seats
    page = gather(lake, until, TODAY.day)
    (figures,) = (each for each in page.meters if each.status.meter == "seats")
    assert figures.quantity == "168"
    (ranking,) = (each for each in figures.rankings if each.field == "subject")
    assert all(Decimal(bar.quantity) == seats[str(bar.name)] for bar in ranking.bars)
    assert (ranking.bars[0].name, ranking.bars[0].quantity) == ("org_acme", "61")


def test_no_cell_imports_an_internal_module() -> None:
    for notebook in NOTEBOOKS:
        cells = nbformat.read(notebook, 4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        ours = re.findall(r"^\s*(?:from|import) ((?:lake|jobs|schemas)\b.*)", code, re.MULTILINE)
        assert ours == ["lake import Lake"], notebook.name


@pytest.mark.parametrize(
    ("meter", "customer"),
    [("active_users", "org_globex"), ("seats", "org_acme")],
)
def test_any_bill_can_be_explained(
    read: Callable[..., dict[str, Any]], demo_lake: Path, meter: str, customer: str
) -> None:
    names = read("reconcile_billing", demo_lake, active_users=meter, org_acme=customer)
    assert names["billed"] == names["from_raw"] > 0
    (row,) = (row for row in names["csv"].iter_rows(named=True) if row["subject"] == customer)
    assert Decimal(row["quantity"]) == names["billed"]


def test_a_changed_export_is_found(
    read: Callable[..., dict[str, Any]], demo_lake: Path, tmp_path: Path
) -> None:
    lake = shutil.copytree(demo_lake, tmp_path / "lake")
    csv = lake / "exports/active_users/period=2026-06/revision=0001/usage.csv"
    csv.write_text(csv.read_text().replace("874", "974"))
    with pytest.raises(AssertionError, match=r"usage\.csv"):
        read("reconcile_billing", lake)


# A month that is over, whatever the clock says; notebooks are told so.
JUNE = dt.date(2025, 6, 1)
THAT_JUNE = {"2026-06": "2025-06"}
AT_MIDNIGHT = dt.datetime(2025, 6, 2, tzinfo=dt.UTC)


def _exported(lake: Lake, *, close: bool = False) -> None:
    aggregated(lake)
    with reported(lake, "export") as report:
        export(lake, report, parse_period("2025-06"), close=close)


@pytest.fixture
def small_bill(tmp_path: Path, request: pytest.FixtureRequest) -> Lake:
    """One customer's June: three events that count, a copy of one of May, and a row that breaks a rule."""
    aggregation = getattr(request, "param", "sum")
    unique = {"unique": "plan"} if aggregation == "unique_count" else {}
    lake, meter = a_lake(tmp_path / "lake", aggregation=aggregation, **unique)
    may = JUNE - dt.timedelta(days=1)
    put(lake, meter, "a.parquet", event("may", "org_acme", day=may), day=may)
    put(
        lake,
        meter,
        "a.parquet",
        event("june", "org_acme", "5", JUNE, received_at=AT_MIDNIGHT),
        event("may", "org_acme", "2", JUNE),
        # Received before the valid one of its key, which wins all the same.
        event("june", "org_acme", "-1", JUNE),
        event(None, "org_acme", "0.25", JUNE),
        event(None, "org_acme", "0.25", JUNE),
        day=JUNE,
    )
    _exported(lake)
    return lake


@pytest.mark.parametrize("small_bill", AGGREGATIONS, indirect=True)
def test_the_bill_of_any_aggregation_can_be_explained(
    read: Callable[..., dict[str, Any]], small_bill: Lake
) -> None:
    names = read("reconcile_billing", Path(small_bill.url), **THAT_JUNE)
    billed = {
        "sum": Decimal("5.5"),
        "count": Decimal(3),
        "avg": Decimal("1.833333333"),
        "min": Decimal("0.25"),
        "max": Decimal(5),
        "first": Decimal("0.25"),
        "last": Decimal(5),
        "rate": Decimal("0.000001157"),
        "unique_count": 1,
    }
    assert names["billed"] == billed[small_bill.meters()[0].aggregation]
    assert names["account"]["rows"].to_list() == [5, 0, 0, 1, 0, 1, 3]
    assert [reason.removesuffix("_not_positive") for reason in names["rejected"]["reason"]] in (
        ["quantity"],
        ["quantity_negative"],
    )


def test_a_copy_is_explained_whatever_decided(read: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    dimensions = [{"name": "n.x", "type": "number", "required": False}]
    lake, meter = a_lake(tmp_path / "lake", name="a/b = ü%", dimensions=dimensions)
    mine = "org.acme:1-x"
    put(
        lake,
        meter,
        "a.parquet",
        event("dimension", mine, day=JUNE),
        event("dimension", mine, day=JUNE, **{"n.x": 1.5}),
        event("quantity", mine, "2", JUNE),
        event("quantity", mine, "3", JUNE),
        event("subject", mine, "4", JUNE),
        event("subject", "another", "4", JUNE),
        event("time", mine, "8", JUNE),
        event("time", mine, "8", JUNE, received_at=AT_MIDNIGHT),
        event("alike", mine, "16", JUNE),
        event("alike", mine, "16", JUNE),
        day=JUNE,
    )
    _exported(lake)
    names = read("reconcile_billing", tmp_path / "lake", **THAT_JUNE, active_users=meter.name, org_acme=mine)
    explained = names["explained"].select("idempotency_key", "decided by", "says otherwise").sort(pl.all())
    assert explained.rows() == [
        ("alike", "all alike", ""),
        ("dimension", "n.x", "n.x"),
        ("quantity", "quantity", "quantity"),
        ("subject", "subject", "subject"),
        ("time", "received_at", ""),
    ]
    # What another customer won is not on this bill.
    assert names["billed"] == 1 + 2 + 8 + 16


def test_copies_of_dropped_events_stay_lost(read: Callable[..., dict[str, Any]], small_bill: Lake) -> None:
    dropped = retained(small_bill, JUNE + dt.timedelta(days=30))
    assert [partition.date for partition in dropped.partitions] == [JUNE - dt.timedelta(days=1)]
    names = read("reconcile_billing", Path(small_bill.url), **THAT_JUNE)
    assert names["billed"] == Decimal("5.5")
    assert names["account"]["rows"].to_list() == [5, 0, 0, 0, 1, 1, 3]


def test_a_closed_month_is_explained_with_its_adjustments(
    read: Callable[..., dict[str, Any]], small_bill: Lake
) -> None:
    _exported(small_bill, close=True)
    day = JUNE + dt.timedelta(days=1)
    put(small_bill, small_bill.meters()[0], "late.parquet", event("late", "org_acme", "0.5", day), day=day)
    _exported(small_bill)
    names = read("reconcile_billing", Path(small_bill.url), **THAT_JUNE)
    assert [manifest["kind"] for manifest in names["manifests"].values()] == ["usage", "adjustments"]
    assert names["told"]["quantity"].to_list() == [Decimal("5.5"), Decimal(6)]


def test_events_that_came_after_the_export_are_told_as_such(
    read: Callable[..., dict[str, Any]], small_bill: Lake
) -> None:
    put(small_bill, small_bill.meters()[0], "late.parquet", event("late", "org_acme", "0.5", JUNE), day=JUNE)
    with pytest.raises(AssertionError, match="events have come since"):
        read("reconcile_billing", Path(small_bill.url), **THAT_JUNE)


def test_a_month_whose_events_are_gone_is_told_as_such(
    read: Callable[..., dict[str, Any]], small_bill: Lake
) -> None:
    retained(small_bill, JUNE + dt.timedelta(days=60))
    with pytest.raises(AssertionError, match="dropped by retention"):
        read("reconcile_billing", Path(small_bill.url), **THAT_JUNE)


def test_active_users_of_a_lake_of_one_day(read: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    define(lake, unit="user", dimensions=DIMENSIONS)
    define(lake, name="seats", unit="seat", aggregation="last", dimensions=DIMENSIONS)
    body = {"subject": "org_1", "quantity": 2, "timestamp": "2026-06-19T10:00:00Z"}
    (tmp_path / "one.jsonl").write_text(
        "".join(
            json.dumps(body | {"meter": meter, "metadata": metadata}) + "\n"
            for meter in ("active_users", "seats")
            for metadata in ({"plan": "pro", "workspace": "one"}, {})
        )
    )
    with reported(lake, "land") as report:
        land(lake, [str(tmp_path / "one.jsonl")], report)
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=dt.date(2026, 6, 20))
    names = read("active_users", tmp_path / "lake")
    assert names["monthly"]["customers"].to_list() == [0, 0, 1]
    assert names["monthly"]["workspaces"].to_list() == [0, 0, 1]
    assert names["top"].rows() == [("org_1", Decimal(4), Decimal(0))]


def test_a_lake_without_usage_is_told_as_such(read: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    a_lake(tmp_path / "lake", dimensions=DIMENSIONS)
    with pytest.raises(AssertionError, match="no usage yet"):
        read("active_users", tmp_path / "lake")


def test_a_page_of_a_notebook_needs_no_network(active_users: Ran) -> None:
    exporter = HTMLExporter(template_file=str(ROOT / "notebooks" / "page.html.j2"))
    page, _ = exporter.from_notebook_node(active_users.notebook)
    assert page.count('src="data:image/png;base64,') == len(active_users.outputs("image/png"))
    assert not re.findall(r"""(?:src|href)=["']?https?:|@import|url\(["']?http|import\s.*["']http""", page)


def test_a_kernel_listens_on_this_machine_only_and_ends(tmp_path: Path) -> None:
    running = set(psutil.Process().children(recursive=True))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; print(os.getpid())")])
    client = NotebookClient(notebook)
    ips = []
    client.on_notebook_start = lambda **_: ips.append(client.km.ip)
    with _settings(tmp_path):
        client.execute()
    assert ips == ["127.0.0.1"]
    (process,) = (int(output.text) for output in notebook.cells[0].outputs)
    assert not psutil.pid_exists(process)
    assert set(psutil.Process().children(recursive=True)) <= running
