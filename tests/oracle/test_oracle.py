"""The two oracles agree with each other, and both with numbers computed by hand from the contract."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from .generate import (
    AGGREGATIONS,
    SCHEMA,
    UNIQUE,
    Spec,
    encode,
    generate,
    meter_body,
    to_json_lines,
    write_lake,
)
from .model import Event, Model
from .tables import MEASURES, Oracle

SMALL = Spec(
    events=700, dates=5, subjects=9, duplicates=0.4, cross_date=0.5, conflicts=0.5, keyless=0.1, seed=7
)
TABLES = ("usage", "usage_by_subject", "usage_by_dimension")
D1, D2, D3 = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)


def instant(text: str) -> datetime:
    """`1 10:30` is half past ten on 1 January 2026."""
    return datetime.strptime(f"2026-01-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def event(key: str | None, at: str, quantity: str, received: str = "", **more: Any) -> Event:
    """An event of subject a on plan pro, received when it happened."""
    defaults = {"subject": "a", "plan": "pro", "service.tier": None, "seats": None, "trial": None}
    times = {"timestamp": instant(at), "received_at": instant(received or at)}
    head = {"idempotency_key": key, "quantity": Decimal(quantity), "metadata": None}
    return {**head, **times, **defaults, **more}


def model_of(frame: pl.DataFrame, aggregation: str) -> Model:
    """The model with one file a date."""
    model = Model(meter_body(aggregation, "m"))
    days = frame.with_columns(pl.col("timestamp").dt.date().alias("#date"))
    for (day,), part in days.partition_by("#date", as_dict=True, include_key=False).items():
        model.put(day, "all", part.to_dicts())
    return model


def both(root: Path, events: Sequence[Event], aggregation: str = "sum") -> tuple[Oracle, Model]:
    """The same events in both oracles, split over two files a date."""
    frame = pl.DataFrame(list(events), schema=SCHEMA)
    write_lake(root, "m", frame, 2, 0)
    return Oracle(root, meter_body(aggregation, "m")), model_of(frame, aggregation)


def agreed(oracle: Oracle, model: Model) -> dict[str, list[dict[str, Any]]]:
    """The tables that both oracles give, with the columns in the same order."""
    rows = {name: getattr(oracle, name)().to_dicts() for name in TABLES}
    expected = model.tables()
    for name in TABLES:
        assert [list(row.items()) for row in rows[name]] == [list(row.items()) for row in expected[name]]
    assert oracle.losers()["conflict"].sum() == model.conflicts()
    assert oracle.losers().height == len(model.losers())
    return expected


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    root = tmp_path_factory.mktemp("small")
    frame = generate(SMALL)
    write_lake(root, "m", frame, 3, 1)
    return root, frame


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_oracles_agree(small: tuple[Path, pl.DataFrame], aggregation: str) -> None:
    root, frame = small
    oracle, model = Oracle(root, meter_body(aggregation, "m")), model_of(frame, aggregation)
    agreed(oracle, model)
    days = [date(2026, 1, day) for day in (1, 2, 4, 30)]
    for table, keys in (
        ("usage", ["subject"]),
        ("usage", ["service.tier", "seats"]),
        ("usage_by_subject", []),
        ("usage_by_dimension", ["dimension", "value"]),
    ):
        assert oracle.totals(table, keys, days).to_dicts() == model.totals(table, keys, days)


def test_oracles_choose_the_same_winners(small: tuple[Path, pl.DataFrame]) -> None:
    root, frame = small
    names = [name for name in SCHEMA if name != "metadata"]  # full ties differ in nothing else
    chosen = pl.DataFrame(model_of(frame, "sum").winners(), schema=SCHEMA).select(names).sort(names)
    assert Oracle(root, meter_body("sum", "m")).winners().select(names).sort(names).equals(chosen)


def test_splitting_and_order_do_not_matter(tmp_path: Path, small: tuple[Path, pl.DataFrame]) -> None:
    root, frame = small
    write_lake(tmp_path, "m", frame.reverse(), 1, 99)
    one, other = Oracle(root, meter_body("last", "m")), Oracle(tmp_path, meter_body("last", "m"))
    assert one.usage().equals(other.usage())
    assert one.winners().equals(other.winners())


def test_decimal_types_and_columns(small: tuple[Path, pl.DataFrame]) -> None:
    root, _ = small
    table = Oracle(root, meter_body("sum", "m")).usage_by_dimension()
    assert table.columns == ["date", "dimension", "value", "subjects", *MEASURES]
    assert table.schema["quantity"] == table.schema["quantity_sum"] == pl.Decimal(38, 9)
    assert table.schema["events"] == table.schema["subjects"] == pl.Int64
    assert table.schema["first_at"] == pl.Datetime("us", "UTC")
    assert Oracle(root, meter_body("avg", "m")).usage().schema["quantity"] == pl.Decimal(38, 9)


def test_no_files_no_rows(tmp_path: Path) -> None:
    oracle, model = Oracle(tmp_path, meter_body("avg", "m")), Model(meter_body("avg", "m"))
    assert agreed(oracle, model) == {name: [] for name in TABLES}
    assert oracle.totals("usage", [], [D1]).height == 0


def test_meter_without_dimensions(tmp_path: Path) -> None:
    body = {"name": "m", "unit": "u"}
    frame = pl.DataFrame([event("k", "1 10:00", "2")], schema=SCHEMA)
    write_lake(tmp_path, "m", frame.drop("plan", "service.tier", "seats", "trial"), 1, 0)
    model = Model(body)
    model.put(D1, "f", frame.to_dicts())
    tables = agreed(Oracle(tmp_path, body), model)
    assert tables["usage_by_dimension"] == []
    assert tables["usage"][0]["quantity"] == 2


def test_dimension_that_no_file_has_yet_is_null(tmp_path: Path) -> None:
    frame = pl.DataFrame([event("k", "1 10:00", "2")], schema=SCHEMA)
    write_lake(tmp_path, "m", frame.drop("trial"), 1, 0)
    assert Oracle(tmp_path, meter_body("sum", "m")).usage()["trial"].to_list() == [None]


@pytest.mark.parametrize("name", ["a/b", "..", "x=y", "50%", "007", "2026-01-01", "größe m²", "what?*[x]"])
def test_any_meter_name(tmp_path: Path, name: str) -> None:
    write_lake(tmp_path, name, pl.DataFrame([event("k", "1 10:00", "2")], schema=SCHEMA), 1, 0)
    write_lake(tmp_path, "other", pl.DataFrame([event("k", "1 10:00", "5")], schema=SCHEMA), 1, 0)
    assert Oracle(tmp_path, meter_body("sum", name)).usage()["quantity"].to_list() == [Decimal(2)]
    assert (tmp_path / "events" / f"meter={encode(name)}" / "date=2026-01-01").is_dir()


def test_winner_is_received_first_on_a_later_date(tmp_path: Path) -> None:
    early = event("k", "1 23:00", "5", received="3 08:00")
    late = event("k", "2 01:00", "5", received="2 01:00")
    other = event("o", "1 12:00", "1")
    before = agreed(*both(tmp_path / "before", [early, other]))
    after = agreed(*both(tmp_path / "after", [early, other, late]))
    assert [(row["date"], row["quantity"]) for row in before["usage"]] == [(D1, 6)]
    assert [(row["date"], row["quantity"]) for row in after["usage"]] == [(D1, 1), (D2, 5)]


def test_winner_order_column_by_column(tmp_path: Path) -> None:
    copies = [
        event("k", "1 10:00", "5", received="1 12:00", subject="b", plan="pro", trial=False),
        event("k", "1 10:00", "5", received="1 12:00", subject="a", plan="pro", trial=False),
        event("k", "1 10:00", "5", received="1 12:00", subject="a", plan="Pro", trial=True),
        event("k", "1 10:00", "5", received="1 12:00", subject="a", plan="Pro", trial=False),
        event("k", "1 10:00", "5", received="1 12:00", subject="a", plan="Pro", trial=None),
        event("k", "1 10:00", "4", received="1 12:00", subject="z"),
        event("k", "1 09:00", "9", received="1 12:00", subject="z"),
        event("k", "1 23:00", "9", received="1 11:00", subject="z"),
    ]
    names = ["quantity", "subject", "plan", "trial"]
    winners = []
    for count in range(1, 9):
        oracle, model = both(tmp_path / str(count), copies[:count])
        agreed(oracle, model)
        winners.append(oracle.winners().select(names).row(0))
    assert winners[:5] == [
        (Decimal(5), "b", "pro", False),
        (Decimal(5), "a", "pro", False),
        (Decimal(5), "a", "Pro", True),
        (Decimal(5), "a", "Pro", False),
        (Decimal(5), "a", "Pro", None),
    ]
    assert [row[:2] for row in winners[5:]] == [(Decimal(4), "z"), (Decimal(9), "z"), (Decimal(9), "z")]


def test_keyless_events_always_count(tmp_path: Path) -> None:
    same = [event(key, "1 10:00", "2") for key in (None, None, "", "", "k", "k")]
    oracle, model = both(tmp_path, same)
    (row,) = agreed(oracle, model)["usage"]
    assert (row["events"], row["quantity"]) == (5, 10)
    assert oracle.losers()["conflict"].to_list() == [False]


def test_conflicts_are_counted_against_the_winner(tmp_path: Path) -> None:
    copies = [
        event("k", "1 10:00", "2"),
        event("k", "1 10:01", "2"),  # only the times differ: no conflict
        event("k", "1 10:02", "2", metadata='{"n":1}'),  # nor is metadata payload
        event("k", "1 10:03", "3"),
        event("k", "1 10:04", "2", subject="b"),
        event("k", "2 10:00", "2", plan="free"),
        event("k", "2 10:01", "2", trial=False),
        event("k", "2 10:02", "3"),  # equal to another loser, still a conflict
    ]
    oracle, model = both(tmp_path, copies)
    assert len(agreed(oracle, model)["usage"]) == 1
    assert (oracle.losers().height, model.conflicts()) == (7, 5)


def test_first_and_last_tie_rules(tmp_path: Path) -> None:
    events = [
        event("1", "1 10:00", "7", received="1 11:00"),
        event("2", "1 10:00", "3", received="1 10:30"),
        event("3", "1 10:00", "2", received="1 10:30"),
        event("4", "1 20:00", "4", received="1 20:30"),
        event("5", "1 20:00", "1", received="1 21:00"),
        event("6", "1 20:00", "6", received="1 21:00"),
    ]
    row = agreed(*both(tmp_path, events, "last"))["usage_by_subject"][0]
    assert (row["quantity_first"], row["first_at"], row["first_received_at"]) == (
        2,
        instant("1 10:00"),
        instant("1 10:30"),
    )
    assert (row["quantity_last"], row["last_at"], row["last_received_at"]) == (
        6,
        instant("1 20:00"),
        instant("1 21:00"),
    )
    assert row["quantity"] == 6


@pytest.mark.parametrize(
    ("aggregation", "first_day", "both_days"),
    [
        ("sum", Decimal("3.3"), Decimal("7.3")),
        ("count", Decimal(2), Decimal(3)),
        ("avg", Decimal("1.65"), Decimal("2.433333333")),
        ("min", Decimal("1.1"), Decimal("1.1")),
        ("max", Decimal("2.2"), Decimal(4)),
        ("first", Decimal("2.2"), Decimal("2.2")),
        ("last", Decimal("1.1"), Decimal(4)),
        ("rate", Decimal("0.000023148"), Decimal("0.000011574")),
        ("unique_count", Decimal(2), Decimal(2)),
    ],
)
def test_nine_aggregations(tmp_path: Path, aggregation: str, first_day: object, both_days: object) -> None:
    tiers = ["gold", "silver", "gold"]
    events = [event("1", "1 10:00", "2.2"), event("2", "1 11:00", "1.1"), event("3", "2 09:00", "4")]
    events = [each | {UNIQUE: tier} for each, tier in zip(events, tiers, strict=True)]
    oracle, model = both(tmp_path, events, aggregation)
    assert agreed(oracle, model)["usage_by_subject"][0]["quantity"] == first_day
    (total,) = oracle.totals("usage_by_subject", ["subject"], [D1, D2, D3]).to_dicts()
    assert total["quantity"] == both_days
    assert model.totals("usage_by_subject", ["subject"], [D1, D2, D3]) == [total]


def test_values_of_dimensions(tmp_path: Path) -> None:
    events = [
        event("1", "1 10:00", "1", seats=1.0, trial=True),
        event("2", "1 10:00", "2", seats=1.0, trial=False, subject="b"),
        event("3", "1 10:00", "4", seats=-0.25, plan=""),
        event("4", "1 10:00", "8", seats=1000000.0, plan="Zoo"),
        event("5", "1 10:00", "16", plan="été"),
    ]
    table = agreed(*both(tmp_path, events))["usage_by_dimension"]
    assert [(row["dimension"], row["value"], row["subjects"], row["quantity"]) for row in table] == [
        ("plan", "", 1, 4),
        ("plan", "Zoo", 1, 8),
        ("plan", "pro", 2, 3),
        ("plan", "été", 1, 16),
        ("seats", None, 1, 16),
        ("seats", "-0.25", 1, 4),
        ("seats", "1", 2, 3),
        ("seats", "1000000", 1, 8),
        ("service.tier", None, 2, 31),
        ("trial", None, 1, 28),
        ("trial", "false", 1, 2),
        ("trial", "true", 1, 1),
    ]


def test_sums_are_exact(tmp_path: Path) -> None:
    quantities = ["99999999999999999999.999999999", "0.000000001", "0.1", "0.2", "1e-9"]
    events = [event(str(index), "1 10:00", text) for index, text in enumerate(quantities)]
    (row,) = agreed(*both(tmp_path, events))["usage"]
    assert row["quantity"] == Decimal("100000000000000000000.300000001")


def test_date_is_the_utc_date() -> None:
    evening = datetime.fromisoformat("2026-01-01T23:30:00-02:00")
    model = Model(meter_body("sum", "m"))
    model.put(D2, "f", [event("k", "1 10:00", "1", timestamp=evening)])
    assert [row["date"] for row in model.tables()["usage"]] == [D2]
    with pytest.raises(ValueError, match="2026-01-01"):
        model.put(D1, "f", [event("k", "1 10:00", "1", timestamp=evening)])


def test_sealed_date_is_final_and_its_copies_stay_lost() -> None:
    model = Model(meter_body("sum", "m"))
    model.put(D1, "f", [event("moved", "1 10:00", "1"), event("alone", "1 11:00", "2")])
    model.put(D2, "f", [event("moved", "2 10:00", "4")])
    model.seal(D1)
    frozen = [(D1, 3)]
    assert [(row["date"], row["quantity"]) for row in model.tables()["usage"]] == frozen
    assert [(loser["conflict"], loser["settled"]) for loser in model.losers()] == [(True, True)]

    model.put(D1, "late", [event("new", "1 12:00", "8")])  # ignored: sealed
    model.put(D3, "f", [event("moved", "3 10:00", "16", received="1 01:00")])  # settled: lost
    assert [(row["date"], row["quantity"]) for row in model.tables()["usage"]] == frozen

    model.put(D3, "g", [event("alone", "3 10:00", "32")])  # forgotten: counts anew
    assert [(row["date"], row["quantity"]) for row in model.tables()["usage"]] == [*frozen, (D3, 32)]
    assert model.totals("usage", ["subject"], [D1, D3])[0]["quantity"] == 35


def test_sealing_a_losers_date_leaves_the_winner() -> None:
    model = Model(meter_body("sum", "m"))
    model.put(D1, "f", [event("k", "1 10:00", "1", received="3 10:00")])
    model.put(D2, "f", [event("k", "2 10:00", "4")])
    model.seal(D1)
    assert [(row["date"], row["quantity"]) for row in model.tables()["usage"]] == [(D2, 4)]
    model.drop(D2, "f")
    assert model.tables()["usage"] == []


def test_generated_lake_has_every_feature(tmp_path: Path) -> None:
    frame = generate(Spec())
    assert frame.schema == SCHEMA
    assert frame.height == 200_000
    assert (frame["timestamp"] - frame["received_at"]).max() <= timedelta(hours=24)  # type: ignore[operator]
    write_lake(tmp_path, "m", frame, 4, 1)
    losers = Oracle(tmp_path, meter_body("sum", "m")).losers()
    winners = Oracle(tmp_path, meter_body("sum", "m")).winners()
    pairs = losers.join(winners, on="idempotency_key", suffix="_winner")
    received_ties = pl.col("received_at") == pl.col("received_at_winner")
    tie = received_ties & (pl.col("timestamp") == pl.col("timestamp_winner"))
    features = {
        "conflicts": pl.col("conflict"),
        "same date": pl.col("date") == pl.col("date_winner"),
        "winner on a later date": pl.col("date") < pl.col("date_winner"),
        "winner on an earlier date": pl.col("date") > pl.col("date_winner"),
        "another subject": pl.col("subject") != pl.col("subject_winner"),
        "another quantity": pl.col("quantity") != pl.col("quantity_winner"),
        "received_at ties": received_ties,
        "full ties": tie & ~pl.col("conflict"),
        "ties with conflict": tie & pl.col("conflict"),
    }
    counts = pairs.select(**{name: rule.sum() for name, rule in features.items()}).row(0, named=True)
    assert {name: count for name, count in counts.items() if count < 500} == {}
    assert winners["date"].n_unique() == 20
    assert winners.group_by("subject").agg(pl.col("date").n_unique())["date"].max() == 20
    assert winners.group_by("subject", "timestamp").len()["len"].max() > 5  # type: ignore[operator]
    assert frame["quantity"].max() > 10**14  # type: ignore[operator]


def test_generating_is_repeatable() -> None:
    assert generate(SMALL).equals(generate(SMALL))
    assert not generate(SMALL).equals(generate(Spec(**{**SMALL.__dict__, "seed": 8})))


def test_features_turn_off() -> None:
    plain = generate(Spec(events=500, duplicates=0, keyless=0, large=0, tied_timestamps=0, zeros=0.5))
    assert plain["idempotency_key"].n_unique() == 500
    assert plain["quantity"].max() <= 1_000_000  # type: ignore[operator]
    assert plain["quantity"].min() == 0


def test_json_lines_say_the_same() -> None:
    frame = generate(SMALL)
    bodies = [json.loads(line, parse_float=Decimal) for line in to_json_lines(frame, "m").splitlines()]
    assert [Decimal(body["quantity"]) for body in bodies] == frame["quantity"].to_list()
    assert [body.get("idempotency_key") for body in bodies] == frame["idempotency_key"].to_list()
    instants = [datetime.fromisoformat(body["received_at"]) for body in bodies]
    assert instants == frame["received_at"].to_list()
    metadata = [body["metadata"] for body in bodies]
    tiers = [each.get("service.tier", each.get("service", {}).get("tier")) for each in metadata]
    assert tiers == frame["service.tier"].to_list()
    assert {"flat", "nested", "both"} == {
        "both" if {"service", "service.tier"} <= keys else "flat" if "service.tier" in keys else "nested"
        for keys in map(set, metadata)
        if {"service", "service.tier"} & keys
    }
