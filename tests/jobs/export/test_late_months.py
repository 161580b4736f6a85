"""A night exports every month that changed, however old, in each of its forms, and reads nothing of the others."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.cli import app
from jobs.export.billing import parse_period
from jobs.export.job import export
from jobs.export.month import Options
from jobs.nightly import nightly
from jobs.report_page.figures import gather
from jobs.report_page.render import document
from jobs.run_report import ExportReport, RunReport, reported
from jobs.status import status
from lake import Lake, paths
from lake.state.state_file import load_state
from lake.storage import StoredFile
from schemas.meter import Meter
from support import DAY, METER, a_lake, aggregated, content, define, event, put

NAME = METER["name"]
# Far from DAY, which lies in June.
NOVEMBER = dt.date(2026, 11, 20)
FORMS = {
    "2026-06": Options(),
    "2026-06/by=plan": Options(by=("plan",)),
    "2026-06/by=plan/columns=open-spanner/csv=safe": Options(("plan",), "open-spanner", csv_safe=True),
}


def night(lake: Lake, as_of: dt.date = NOVEMBER) -> RunReport:
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=as_of)
    return report


def well(lake: Lake, as_of: dt.date = NOVEMBER) -> dict[str, ExportReport]:
    """Run a night that has to go well; gives what it exported."""
    report = night(lake, as_of)
    assert report.errors == []
    return {done.form: done for done in report.exports if done.action == "exported"}


def exported(lake: Lake, period: str = "2026-06", **more: Any) -> ExportReport:
    with reported(lake, "export") as report:
        export(lake, report, parse_period(period), **more)
    assert report.errors == []
    return report.exports[-1]


def told(lake: Lake, form: str) -> dict[Any, Decimal]:
    """What all revisions of an export come to: the last usage, and the adjustments after it."""
    found: dict[Any, Decimal] = {}
    for folder in sorted((Path(lake.url) / f"{paths.EXPORTS}{NAME}/period={form}").glob("revision=*")):
        name = "usage" if (folder / "usage.parquet").exists() else "adjustments"
        rows = pl.read_parquet(folder / f"{name}.parquet")
        keys = [key for key in ("subject", "plan") if key in rows.columns]
        quantity = "quantity" if name == "usage" else "quantity_after"
        if name == "usage":
            found = {}
        for *key, after in rows.select(*keys, quantity).iter_rows():
            found[tuple(key)] = after
    return {key: after for key, after in found.items() if after is not None}


@pytest.fixture
def billed(scratch: Path) -> tuple[Lake, Meter]:
    """A lake with usage of June and November whose June is exported in three forms."""
    lake, meter = a_lake(scratch, event_retention_days=3650)
    put(lake, meter, "a.parquet", event("x"), event("y", subject="b", plan="free"))
    put(lake, meter, "a.parquet", event("z", day=NOVEMBER), day=NOVEMBER)
    well(lake)
    for options in [*FORMS.values()][1:]:
        exported(lake, options=options)
    return lake, meter


def late(lake: Lake, meter: Meter, key: str = "late", **more: Any) -> Path:
    return put(lake, meter, f"{key}.parquet", event(key, **more))


# What is exported


def test_a_late_event_is_billed_in_each_form_of_its_month(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    late(lake, meter, quantity="2.5")
    done = well(lake)
    assert {form: (each.revision, each.adjustments) for form, each in done.items()} == dict.fromkeys(
        FORMS, (2, 1)
    )
    assert told(lake, "2026-06") == {("b",): 1, ("org_1",): Decimal("3.5")}
    assert told(lake, "2026-06/by=plan") == {("b", "free"): 1, ("org_1", "pro"): Decimal("3.5")}
    assert well(lake) == {}


def test_a_closed_month_is_adjusted_and_its_open_forms_are_told_anew(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    exported(lake, close=True)
    late(lake, meter)
    assert {form: (each.revision, each.closed) for form, each in well(lake).items()} == {
        form: (2, form == "2026-06") for form in FORMS
    }
    folder = Path(lake.url) / paths.revision(paths.exports(NAME, "2026-06"), 2)
    assert not (folder / "usage.csv").exists()
    assert told(lake, "2026-06") == {("b",): 1, ("org_1",): 2}


@pytest.mark.parametrize("sealed", [False, True])
def test_a_month_with_usage_that_was_never_exported_is_exported(scratch: Path, *, sealed: bool) -> None:
    lake, meter = a_lake(scratch, event_retention_days=30 if sealed else 3650)
    put(lake, meter, "a.parquet", event("x"))
    put(lake, meter, "b.parquet", event("y", day=dt.date(2019, 2, 3)), day=dt.date(2019, 2, 3))
    if sealed:
        night(lake, DAY)
        shutil.rmtree(scratch / paths.EXPORTS)
    assert {*well(lake)} == {"2019-02", "2026-06"}
    assert bool(load_state(lake.storage, NAME).sealed) == sealed
    assert well(lake) == {}


def test_a_month_of_which_only_another_form_was_exported_gets_the_usual_one(scratch: Path) -> None:
    lake, meter = a_lake(scratch, event_retention_days=3650)
    put(lake, meter, "a.parquet", event("x"))
    aggregated(lake)
    exported(lake, options=Options(by=("plan",)))
    assert {*well(lake)} == {"2026-06"}


def test_a_winner_that_moves_to_another_month_is_told_of_both(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    august = dt.date(2026, 8, 3)
    exported(lake, close=True)
    put(lake, meter, "other.parquet", event("other", day=august), day=august)
    well(lake)
    exported(lake, "2026-08", close=True)
    # Its copy was received before it.
    late(lake, meter, "other", subject="b", plan="free")
    assert {*well(lake)} == {*FORMS, "2026-08"}
    assert told(lake, "2026-06") == {("b",): 2, ("org_1",): 1}
    assert told(lake, "2026-08") == {}


def test_usage_that_is_gone_is_taken_back(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    (Path(lake.url) / paths.events(meter.name, DAY) / "a.parquet").unlink()
    assert {form: each.rows for form, each in well(lake).items()} == dict.fromkeys(FORMS, 0)
    assert told(lake, "2026-06") == {}


def test_months_after_the_as_of_date_are_left_alone(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    july = dt.date(2026, 7, 9)
    for number, day in enumerate((DAY, july, NOVEMBER)):
        put(lake, meter, "late.parquet", event(f"late {number}", day=day), day=day)
    noted = load_state(lake.storage, NAME).exported["2026-11"]
    assert {*well(lake, DAY)} == {*FORMS}
    assert load_state(lake.storage, NAME).exported["2026-11"] == noted
    assert {*well(lake, july)} == {"2026-07"}
    assert {*well(lake)} == {"2026-11"}


def test_what_is_no_form_of_a_month_is_left_alone(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    folder = Path(lake.url) / paths.exports(NAME, "2026-06")
    others = ["backup", "by=plan,plan", "by=", "columns=odd", "csv=no", "columns=default", "csv=safe/by=plan"]
    for other in others:
        shutil.copytree(folder / "revision=0001", folder / other / "revision=0001")
    shutil.copytree(folder, folder.with_name("period=2026-13"))
    shutil.copytree(folder, folder.with_name("2026-06"))
    # A form of which nothing was ever finished.
    (folder / "csv=safe/revision=0001").mkdir()
    (folder / "csv=safe/revision=0001/usage.csv").write_text("half")
    before = content(Path(lake.url), paths.EXPORTS)
    late(lake, meter)
    assert {*well(lake)} == {*FORMS}
    after = content(Path(lake.url), paths.EXPORTS)
    changed = {path for path in before if after.get(path) != before[path]}
    assert changed == {paths.latest(paths.exports(NAME, *form.split("/"))) for form in FORMS}


def test_a_meter_that_was_removed_is_left_alone(billed: tuple[Lake, Meter]) -> None:
    lake, meter = billed
    late(lake, meter)
    define(lake, name="other")
    (Path(lake.url) / paths.meter_definition(NAME)).unlink()
    before = content(Path(lake.url), paths.EXPORTS)
    report = night(lake)
    assert [done.meter for done in report.exports] == ["other", "other"]
    assert content(Path(lake.url), paths.EXPORTS) == before


# What fails


@pytest.mark.parametrize(
    "broken",
    ["not a manifest", "pipe", "unknown dimension", "folder that can't be listed", "missing rows"],
)
def test_a_month_that_fails_is_named_and_keeps_no_other(billed: tuple[Lake, Meter], broken: str) -> None:
    lake, meter = billed
    folder = Path(lake.url) / paths.exports(NAME, "2026-06")
    manifest = folder / "revision=0001" / paths.MANIFEST
    if broken == "not a manifest":
        manifest.write_text("{")
    elif broken == "pipe":
        manifest.unlink()
        os.mkfifo(manifest)
    elif broken == "unknown dimension":
        (folder / "by=nowhere").mkdir()
        shutil.copytree(folder / "revision=0001", folder / "by=nowhere/revision=0001")
    elif broken == "folder that can't be listed":
        (folder / "by=region").symlink_to("nowhere")
    else:
        (folder / "revision=0001/usage.parquet").unlink()
    august = dt.date(2026, 8, 3)
    for day in (DAY, august, NOVEMBER):
        put(lake, meter, "late.parquet", event(f"late {day}", day=day), day=day)
    report = night(lake)
    assert report.exit_code in (1, 3)
    (problem,) = report.errors
    assert "2026-06" in problem["where"] or "nowhere" in problem["what"]
    done = {each.form for each in report.exports if each.action == "exported"}
    usual = {"2026-06"} if broken in ("unknown dimension", "folder that can't be listed") else set()
    assert done == {*FORMS} - {"2026-06"} | {"2026-08", "2026-11"} | usual
    # And it is named every night until it is mended.
    assert [each["what"] for each in night(lake).errors] == [problem["what"]]


def test_exports_that_cant_be_listed_are_not_made_again(
    billed: tuple[Lake, Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, meter = billed
    listed = lake.storage.list

    def denied(prefix: str) -> Any:
        folder = paths.meter_exports(NAME).rstrip("/")
        files = [file for file in listed(prefix) if not file.path.startswith(folder)]
        return [*files, StoredFile(folder, 0, "", "a folder that can't be listed")]

    monkeypatch.setattr(
        lake.storage, "list", lambda prefix: denied(prefix) if prefix == paths.EXPORTS else listed(prefix)
    )
    late(lake, meter)
    before = content(Path(lake.url), paths.EXPORTS)
    define(lake, name="other")
    report = night(lake)
    assert [problem["where"] for problem in report.errors] == [paths.meter_exports(NAME).rstrip("/")]
    assert content(Path(lake.url), paths.EXPORTS) == before


# What is read


@pytest.fixture
def reads(billed: tuple[Lake, Meter], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The exports and aggregates that are read from now on."""
    storage, found = billed[0].storage, list[str]()

    def noting(name: str) -> None:
        real = getattr(storage, name)

        def noted(what: Any, *arguments: Any, **options: Any) -> Any:
            those = [what] if isinstance(what, str) else what
            names = [each if isinstance(each, str) else each.path for each in those]
            found.extend(each for each in names if each.startswith((paths.EXPORTS, paths.AGGREGATES)))
            return real(what, *arguments, **options)

        monkeypatch.setattr(storage, name, noted)

    for name in ("read", "read_all", "scan"):
        noting(name)
    return found


def test_a_quiet_night_reads_no_export_and_no_row(billed: tuple[Lake, Meter], reads: list[str]) -> None:
    lake, _ = billed
    well(lake)
    reads.clear()
    state = (Path(lake.url) / paths.state(NAME)).read_bytes()
    assert {each.form for each in night(lake).exports} == {"2026-10", "2026-11"}
    assert reads == []
    assert (Path(lake.url) / paths.state(NAME)).read_bytes() == state


def test_where_the_state_is_lost_each_manifest_is_read_once(
    billed: tuple[Lake, Meter], reads: list[str]
) -> None:
    lake, _ = billed
    well(lake)
    (Path(lake.url) / paths.state(NAME)).unlink()
    reads.clear()
    assert well(lake) == {}
    exports = [path for path in reads if path.startswith(paths.EXPORTS)]
    assert sorted(path for path in exports if path.endswith(paths.MANIFEST)) == sorted(
        f"{paths.exports(NAME, *form.split('/'))}revision=0001/manifest.json" for form in [*FORMS, "2026-11"]
    )
    reads.clear()
    assert well(lake) == {}
    assert reads == []


def test_a_late_event_reads_rows_of_its_own_month_alone(billed: tuple[Lake, Meter], reads: list[str]) -> None:
    lake, meter = billed
    well(lake)
    late(lake, meter)
    reads.clear()
    assert {*well(lake)} == {*FORMS}
    assert all(f"date={DAY}" in path or "period=2026-06" in path for path in reads)


# Closed months whose definition changed


def changed_definition(lake: Lake) -> None:
    """Let another number be billed of the same events, as no command would allow."""
    defined(lake, aggregation="max")


def defined(lake: Lake, **changes: Any) -> None:
    body = METER | {"event_retention_days": 3650} | changes
    lake.storage.publish(paths.meter_definition(NAME), json.dumps(body).encode())


@pytest.fixture
def closed(billed: tuple[Lake, Meter]) -> tuple[Lake, Meter]:
    lake, meter = billed
    put(lake, meter, "more.parquet", event("more", quantity="4"))
    well(lake)
    exported(lake, close=True)
    return lake, meter


@pytest.mark.parametrize("state", ["as of a night", "lost", "of an export after the last night"])
def test_a_change_of_definition_alone_makes_no_revision_of_a_closed_month(
    closed: tuple[Lake, Meter], state: str
) -> None:
    lake, _ = closed
    if state == "as of a night":
        well(lake)
    elif state == "lost":
        (Path(lake.url) / paths.state(NAME)).unlink()
    changed_definition(lake)
    for _ in range(2):
        report = night(lake)
        assert report.errors == []
        pending = {each.form: each.pending_adjustments for each in report.exports if each.pending_adjustments}
        assert pending == {"2026-06": 1}
    assert told(lake, "2026-06") == {("b",): 1, ("org_1",): 5}
    # The other forms are open.
    assert told(lake, "2026-06/by=plan") == {("b", "free"): 1, ("org_1", "pro"): 4}
    done = exported(lake)
    assert (done.action, done.revision, done.adjustments, done.closed) == ("exported", 3, 1, True)
    assert told(lake, "2026-06") == {("b",): 1, ("org_1",): 4}
    assert not any(each.pending_adjustments for each in night(lake).exports)


def test_a_late_event_after_a_change_of_definition_is_billed(closed: tuple[Lake, Meter]) -> None:
    lake, meter = closed
    changed_definition(lake)
    night(lake)
    late(lake, meter, quantity="7")
    assert "2026-06" in well(lake)
    assert told(lake, "2026-06") == {("b",): 1, ("org_1",): 7}


@pytest.mark.parametrize("happened", ["sealed", "files copied", "files merged"])
def test_series_that_are_set_wait_for_a_request_in_closed_months_alone(scratch: Path, happened: str) -> None:
    dimensions = [{"name": "workspace", "type": "string"}]
    days = 60 if happened == "sealed" else 3650
    seats = {"aggregation": "last", "event_retention_days": days, "dimensions": dimensions}
    lake, meter = a_lake(scratch, **seats)
    months = [DAY, dt.date(2026, 8, 3), dt.date(2026, 11, 3)]
    for first in months:
        # Not on one date: what is ambiguous can't be closed.
        for n, day in ((2, first), (3, first + dt.timedelta(days=1))):
            level = event(f"{day}", quantity=f"{n}", day=day, workspace=f"w{n}")
            put(lake, meter, "a.parquet", level, day=day)
    well(lake)
    assert len(load_state(lake.storage, NAME).sealed) == (4 if happened == "sealed" else 0)
    exported(lake, "2026-06", close=True)
    if happened == "files copied":
        # Which is no late event, either.
        for file in scratch.glob("events/*/*/*"):
            os.utime(file, (1, 1))
    elif happened == "files merged":
        for file in scratch.glob("events/*/*/*"):
            pl.read_parquet(file, hive_partitioning=False).write_parquet(file.with_name("b.parquet"))
            file.unlink()
    before = [told(lake, f"{day:%Y-%m}") for day in months]
    defined(lake, **seats, series=["workspace"])
    report = night(lake)
    assert report.errors == []
    # Sealed or not, what is open is told anew.
    assert [told(lake, f"{day:%Y-%m}") for day in months] == [before[0], {("org_1",): 5}, {("org_1",): 5}]
    assert {each.form: each.pending_adjustments for each in report.exports} == {
        "2026-06": 1,
        "2026-08": 0,
        "2026-10": 0,
        "2026-11": 0,
    }
    assert exported(lake).adjustments == 1
    assert told(lake, "2026-06") == {("org_1",): 5}


# What status and page say


def due(lake: Lake) -> dict[str, tuple[int, bool, str, int]]:
    found = status(lake, runs=0)
    assert found.problems == []
    return {
        f"{month.period} {month.form}": (month.revision, month.closed, month.why, month.pending_adjustments)
        for each in found.meters
        for month in each.exports_due
    }


@pytest.mark.parametrize("lost", [False, True])
def test_status_names_the_months_that_no_revision_tells_rightly(
    closed: tuple[Lake, Meter], reads: list[str], *, lost: bool
) -> None:
    lake, meter = closed
    well(lake)
    assert due(lake) == {}
    july, tomorrow = dt.date(2026, 7, 9), dt.datetime.now(dt.UTC).date() + dt.timedelta(days=40)
    late(lake, meter)
    # Not before it is aggregated, which is named, too.
    assert due(lake) == {}
    for day in (july, tomorrow):
        put(lake, meter, "a.parquet", event(f"a {day}", day=day), day=day)
    aggregated(lake)
    if lost:
        (Path(lake.url) / paths.state(NAME)).unlink()
    reads.clear()
    assert due(lake) == {
        "2026-06 usual": (2, True, "changed", 0),
        "2026-06 by=plan": (2, False, "changed", 0),
        "2026-06 by=plan, columns=open-spanner, csv=safe": (2, False, "changed", 0),
        "2026-07 usual": (0, False, "no revision", 0),
    }
    # Of exports the manifests alone are read, and where the state knows them none.
    read = {path for path in reads if path.startswith(paths.EXPORTS)}
    assert {path.rsplit("/", 1)[-1] for path in read} == ({paths.MANIFEST} if lost else set())
    well(lake)
    assert due(lake) == {}


def test_status_and_page_name_closed_months_that_wait_for_a_request(
    closed: tuple[Lake, Meter], capsys: pytest.CaptureFixture[str]
) -> None:
    lake, _ = closed
    changed_definition(lake)
    assert app.run(["--lake", lake.url, "nightly", "--as-of", str(NOVEMBER), "--no-lease"]) == 0
    told_of_run = " ".join(capsys.readouterr().out.split())
    assert (
        "active_users 2026-06: closed; its definition or the program changed, 1 row would be adjusted by: meterlake export --period 2026-06"
        in told_of_run
    )
    assert "period 2026-06/by=plan revision 3 rows 2 adjustments 1 outcome exported" in told_of_run
    assert due(lake) == {"2026-06 usual": (2, True, "definition or program changed", 1)}
    assert app.run(["--lake", lake.url, "status"]) == 0
    shown = capsys.readouterr().out
    assert (
        "to be exported: active_users\n"
        "  2026-06  definition or program changed since revision 2, closed: 1 row would be adjusted\n"
    ) in shown
    assert "if that is to be billed: meterlake export --period 2026-06" in " ".join(shown.split())
    page = document(gather(lake, NOVEMBER, 90))
    assert (
        "1 month closed before the definition or the program changed (2026-06). Run: meterlake export" in page
    )
    exported(lake)
    assert due(lake) == {}
    assert "closed before" not in document(gather(lake, NOVEMBER, 90))


def test_the_page_names_the_newest_months_of_many(scratch: Path) -> None:
    lake, meter = a_lake(scratch, event_retention_days=3650)
    for month in range(1, 10):
        day = dt.date(2026, month, 3)
        put(lake, meter, "a.parquet", event(f"k{month}", day=day), day=day)
    aggregated(lake)
    page = document(gather(lake, NOVEMBER, 90))
    assert "9 months with usage that no revision has (… 2026-04, 2026-05, 2026-06" in page
    night(lake)
    late(lake, meter, day=DAY)
    put(lake, meter, "b.parquet", event("b", day=DAY), day=DAY)
    aggregated(lake)
    assert "1 month changed since exported (2026-06). Run: meterlake nightly" in document(
        gather(lake, NOVEMBER, 90)
    )


def test_an_export_that_cant_be_read_is_a_problem_of_status_alone(billed: tuple[Lake, Meter]) -> None:
    lake, _ = billed
    manifest = Path(lake.url) / paths.revision(paths.exports(NAME, "2026-06"), 1) / paths.MANIFEST
    manifest.write_text("{")
    found = status(lake, runs=0)
    assert [problem["where"] for problem in found.problems] == [str(manifest.relative_to(lake.url))]
    assert [each.exports_due for each in found.meters] == [[]]


# Levels that are carried


@pytest.fixture
def seats(scratch: Path) -> tuple[Lake, Meter]:
    """Two workspaces with seats in June; of one they end in July."""
    lake, meter = a_lake(scratch, **SEATS, carry_days=45)
    put(lake, meter, "a.parquet", *(event(f"{n}", quantity=f"{n}", workspace=f"w{n}") for n in (2, 3)))
    july = dt.date(2026, 7, 9)
    put(lake, meter, "a.parquet", event("end", quantity="0", day=july, workspace="w2"), day=july)
    return lake, meter


SEATS: dict[str, Any] = {
    "aggregation": "last",
    "event_retention_days": 3650,
    "dimensions": [{"name": "workspace", "type": "string"}],
    "series": ["workspace"],
}


def test_months_into_which_levels_are_carried_are_exported(seats: tuple[Lake, Meter]) -> None:
    lake, meter = seats
    august = dt.date(2026, 8, 20)
    assert {*well(lake, august)} == {"2026-06", "2026-07", "2026-08"}
    totals = [told(lake, f"2026-{month:02}") for month in range(6, 10)]
    # On the first of September June is 74 dates ago.
    assert totals == [{("org_1",): 5}, {("org_1",): 3}, {("org_1",): 3}, {}]
    assert {*well(lake, NOVEMBER)} == set()
    # A late event of a date that was looked back to.
    put(lake, meter, "late.parquet", event("late", quantity="7", workspace="w3", timestamp=LATER), day=DAY)
    assert {*well(lake, NOVEMBER)} == {"2026-06", "2026-07", "2026-08"}
    assert [told(lake, f"2026-{month:02}") for month in range(6, 10)] == [
        {("org_1",): 9},
        {("org_1",): 7},
        {("org_1",): 7},
        {},
    ]
    assert well(lake, NOVEMBER) == {}


LATER = event("", day=DAY)["timestamp"] + dt.timedelta(hours=1)


def test_other_carry_days_wait_for_a_request_in_closed_months_alone(seats: tuple[Lake, Meter]) -> None:
    lake, meter = seats
    well(lake)
    exported(lake, "2026-07", close=True)
    defined(lake, **SEATS, carry_days=3)
    assert {form: done.rows for form, done in well(lake).items()} == {"2026-08": 0}
    assert due(lake) == {"2026-07 usual": (1, True, "definition or program changed", 1)}
    # A late event is billed by today's definition.
    put(lake, meter, "late.parquet", event("late", day=DAY, workspace="w4"), day=DAY)
    assert {*well(lake)} == {"2026-06"}
    july = dt.date(2026, 7, 2)
    put(lake, meter, "late.parquet", event("july", day=july, workspace="w5"), day=july)
    assert {*well(lake)} == {"2026-07"}
    assert told(lake, "2026-07") == {("org_1",): 1}
    assert due(lake) == {}


def test_a_late_event_that_is_carried_into_a_closed_month_is_billed(scratch: Path) -> None:
    lake, meter = a_lake(scratch, **SEATS, carry_days=45)
    exported(lake, "2026-07", close=True)
    put(lake, meter, "a.parquet", event("a", workspace="w"))
    assert {*well(lake)} == {"2026-06", "2026-07", "2026-08"}
    assert told(lake, "2026-07") == {("org_1",): 1}


def test_nothing_is_carried_into_a_month_that_has_not_begun(scratch: Path) -> None:
    lake, meter = a_lake(scratch, **SEATS, carry_days=366)
    today = dt.datetime.now(dt.UTC).date()
    put(lake, meter, "a.parquet", event("a", day=today, workspace="w"), day=today)
    well(lake, today)
    following = (today.replace(day=1) + dt.timedelta(days=32)).strftime("%Y-%m")
    assert exported(lake, following).action == "nothing used"
    assert due(lake) == {}
