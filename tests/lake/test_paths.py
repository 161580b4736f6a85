"""Every path of a lake, pinned: a lake that an older release wrote must stay readable."""

import datetime as dt

import pytest

from lake import paths
from lake.paths import ExportPlace, Partitioned

DAY = dt.date(2026, 6, 19)
START = dt.datetime(2026, 6, 19, 3, 0, 0, 1234, tzinfo=dt.UTC)
NO_METER = "__HIVE_DEFAULT_PARTITION__"


@pytest.mark.parametrize(
    ("built", "pinned"),
    [
        (paths.MARKER, "lake.json"),
        (paths.TEMPORARY, ".tmp/"),
        (paths.meter_definition("a/b"), "meters/a%2Fb.json"),
        (paths.events("m"), "events/meter=m/"),
        (paths.events("a=b", DAY), "events/meter=a%3Db/date=2026-06-19/"),
        (paths.events("m", dt.date(987, 1, 2)), "events/meter=m/date=0987-01-02/"),
        (paths.aggregates("usage", "m"), "aggregates/usage/meter=m/"),
        (paths.aggregates("usage", "m", DAY), "aggregates/usage/meter=m/date=2026-06-19/"),
        (
            paths.aggregate("usage_by_subject", "..", DAY),
            "aggregates/usage_by_subject/meter=%2E./date=2026-06-19/part.parquet",
        ),
        (paths.quarantine("m"), "quarantine/meter=m/"),
        (paths.quarantine("m", DAY), "quarantine/meter=m/date=2026-06-19/"),
        (paths.quarantine(None), f"quarantine/meter={NO_METER}/"),
        (paths.quarantine(None, DAY), f"quarantine/meter={NO_METER}/date=2026-06-19/"),
        (paths.index("m", "00ff"), "index/meter=m/00ff.parquet"),
        (paths.sealed_winners("m"), "settled/meter=m/"),
        (paths.sealed_winners("m", DAY), "settled/meter=m/date=2026-06-19/part.parquet"),
        (paths.state("a:b"), "state/a%3Ab.json"),
        (paths.landed("ab12"), "landed/ab12.json"),
        (paths.exports("a/b", "2026-06"), "exports/a%2Fb/period=2026-06/"),
        (
            paths.exports("m", "2026-06", "by=plan,role", "csv=safe"),
            "exports/m/period=2026-06/by=plan,role/csv=safe/",
        ),
        (paths.meter_exports("a/b"), "exports/a%2Fb/"),
        (
            paths.latest(paths.exports("m", "2026-06", "by=plan")),
            "exports/m/period=2026-06/by=plan/latest.json",
        ),
        (paths.revision("exports/m/period=2026-06/", 7), "exports/m/period=2026-06/revision=0007/"),
        (paths.landed_file("ab" * 32, 7), "land-abababababababab-0007.parquet"),
        (paths.compacted_file("0" * 16), "compacted-0000000000000000.parquet"),
        (paths.rejected_file("0" * 16), "producer-0000000000000000.parquet"),
        (paths.run(START, "nightly"), "runs/20260619T030000.001234Z-nightly.json"),
    ],
)
def test_the_path(built: str, pinned: str) -> None:
    assert built == pinned


def test_names_of_our_own_event_files_are_known_again() -> None:
    assert paths.landed_input(paths.landed_file("ab" * 32, 12_345)) == "ab" * 8
    assert paths.landed_input("land-ab-0001.parquet") is None
    assert paths.is_compacted(paths.compacted_file("0" * 16))
    assert not paths.is_compacted("compacted-.parquet")


def test_the_form_of_an_export_is_read_from_its_folder() -> None:
    assert paths.export_form(paths.exports("m", "2026-06")) == "2026-06"
    assert paths.export_form(paths.exports("m", "2026-06", "by=plan")) == "2026-06/by=plan"


def test_the_tables() -> None:
    assert paths.TABLES == ("usage", "usage_by_subject", "usage_by_dimension")


@pytest.mark.parametrize("name", ["m", "a/b", "a=b", "..", "meter=x", "100%", "日本 x", "date=2026-01-01/"])
def test_a_partition_is_taken_apart_again(name: str) -> None:
    assert paths.split_partition(paths.aggregate("usage", name, DAY)) == Partitioned(
        name, DAY, "part.parquet"
    )
    assert paths.meter_of_definition(paths.meter_definition(name)) == name


@pytest.mark.parametrize(
    "path",
    [
        "events/meter=m/a.parquet",
        "events/meter=m/date=2026-06-19/",
        "events/meter=m/date=2026-06-19/deeper/a.parquet",
        "events/meter=m/date=2026-06-19/part.parquet/",
        "events/meter=m/date=2026-6-19/a.parquet",
        "events/meter=m/date=2026-06-31/a.parquet",
        "events/meter=m/date=/a.parquet",
        "events/meter=m/backup/meter=m/date=2026-06-19/a.parquet",
        "aggregates/usage/meter=m/backup/meter=m/date=2026-06-19/part.parquet",
        "aggregates/other/meter=m/date=2026-06-19/part.parquet",
        "backup/events/meter=m/date=2026-06-19/a.parquet",
        "meter=m/date=2026-06-19/a.parquet",
        "events/meter=/date=2026-06-19/a.parquet",
        "events/meter=%6D/date=2026-06-19/a.parquet",
        "events/meter=m/date=\uff12026-06-19/a.parquet",
        "events/m/date=2026-06-19/a.parquet",
        "events/date=2026-06-19/a.parquet",
        "lake.json",
        "",
    ],
)
def test_what_is_no_partition(path: str) -> None:
    assert paths.split_partition(path) is None


@pytest.mark.parametrize("path", ["meters/m", "meters/a/b.json", "meters/m.txt"])
def test_what_is_no_definition(path: str) -> None:
    assert paths.meter_of_definition(path) is None


def test_a_run_is_taken_apart_again() -> None:
    assert paths.split_run(paths.run(START, "nightly")) == (START, "nightly")


@pytest.mark.parametrize(
    "path",
    ["runs/notes.json", "runs/20261399T030000.001234Z-x.json", "runs/20260619T030000.001234Z-x.txt", ""],
)
def test_what_is_no_run(path: str) -> None:
    assert paths.split_run(path) is None


def test_runs_sort_by_their_start() -> None:
    starts = [START + dt.timedelta(seconds=2, microseconds=-1234), START, START + dt.timedelta(days=200)]
    assert sorted(paths.run(start, "x") for start in starts) == [paths.run(s, "x") for s in sorted(starts)]


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("exports/m/period=2026-06/revision=0007/usage.csv", 7),
        ("exports/m/period=2026-06/revision=12345/manifest.json", 12345),
        ("exports/m/period=2026-06/closed.json", None),
        ("exports/m/period=2026-06/revision=7/usage.csv", None),
        ("exports/m/period=2026-06/by=plan/revision=0007/usage.csv", None),
        ("exports/n/period=2026-06/revision=0007/usage.csv", None),
    ],
)
def test_a_revisions_number_is_that_of_its_own_folder(path: str, number: int | None) -> None:
    assert paths.revision_number("exports/m/period=2026-06/", path) == number


@pytest.mark.parametrize("name", ["m", "a/b", "period=2026-06", "..", "日本 x"])
@pytest.mark.parametrize("variant", [(), ("by=plan,role",), ("by=plan", "columns=focus", "csv=safe")])
@pytest.mark.parametrize(
    "rest", ["latest.json", "closed.json", "revision=0007/usage.csv", "revision=0007/x/y"]
)
def test_an_export_is_taken_apart_again(name: str, variant: tuple[str, ...], rest: str) -> None:
    place = ExportPlace(name, "2026-06", variant)
    assert paths.split_export(paths.exports(name, "2026-06", *variant) + rest) == place


@pytest.mark.parametrize(
    "path",
    [
        "exports/m/latest.json",
        "exports/m/2026-06/latest.json",
        "exports/period=2026-06/latest.json",
        "exports/%6D/period=2026-06/latest.json",
        "backup/exports/m/period=2026-06/latest.json",
        "events/m/period=2026-06/latest.json",
        "exports/m/period=/latest.json",
        "latest.json",
        "",
    ],
)
def test_what_is_no_export(path: str) -> None:
    assert paths.split_export(path) is None


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("events/meter=m/date=2026-06-19/a.parquet", False),
        ("events/meter=__HIVE_DEFAULT_PARTITION__/date=2026-06-19/a_b.c.parquet", False),
        ("events/meter=m/date=2026-06-19/.a.parquet", True),
        ("events/meter=m/_temporary/0/a.parquet", True),
        ("events/.staging/meter=m/date=2026-06-19/a.parquet", True),
    ],
)
def test_names_of_other_programs_are_hidden(path: str, hidden: bool) -> None:
    assert paths.is_hidden(path) is hidden
