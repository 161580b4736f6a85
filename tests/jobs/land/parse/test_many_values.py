"""One text of very many values is refused, since they would not fit into memory; what stands beside it lands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.land.job import land
from jobs.land.parse.value_limit import MAX_VALUES, count_marks, has_too_many_values
from jobs.run_report import reported
from lake import Lake, paths
from support import a_lake

METER = "active_users"


def body(key: str, **metadata: Any) -> dict[str, Any]:
    usage = {"idempotency_key": key, "subject": "org_1", "meter": METER, "quantity": 1}
    return usage | ({"metadata": metadata} if metadata else {})


def landed(folder: Path, name: str, text: str) -> tuple[list[str], list[tuple[int, str, str]]]:
    """Return the keys of what landed, and position, reason and text of what did not."""
    lake, _ = a_lake(folder / "lake")
    (folder / name).write_text(text)
    with reported(lake, "land") as report:
        land(lake, [str(folder / name)], report)
    return sorted(lake.raw_events(METER).collect()["idempotency_key"]), quarantined(lake)


def quarantined(lake: Lake) -> list[tuple[int, str, str]]:
    files = sorted((Path(lake.url) / paths.QUARANTINE).rglob("*.parquet"))
    frames = [pl.read_parquet(file, hive_partitioning=False) for file in files]
    return pl.concat(frames).select("position", "reason", "raw").sort("position").rows() if frames else []


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small limit, and blocks of a document that are smaller than its elements."""
    monkeypatch.setattr("jobs.land.parse.value_limit.MAX_VALUES", 100)
    monkeypatch.setattr("jobs.land.read.json_stream.BLOCK_BYTES", 64)


MANY: dict[str, Any] = {
    "empty arrays": [[]] * 60,
    "empty objects": [{}] * 60,
    "members": {f"k{number}": number for number in range(60)},
    "objects in objects": [{"": {"": {}}}] * 30,
}
FEW: dict[str, Any] = {
    "marks in a text": '[{"' * 200 + ",:" * 200,
    "a text that ends in a backslash": ["\\", "[[[", '"', "]"] * 8,
    "few": {"a": [1, {"b": "]"}]},
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("value", [*MANY.values(), *FEW.values()], ids=[*MANY, *FEW])
@pytest.mark.parametrize("form", ["lines", "document", "objects"])
def test_only_a_text_of_too_many_values_is_refused(tmp_path: Path, form: str, value: object) -> None:
    large = json.dumps(body("large", value=value))
    texts = [json.dumps(body("a", x="y" * 30)), large, json.dumps(body("b")), json.dumps(body("c"))]
    if form == "lines":
        keys, rejected = landed(tmp_path, "usage.jsonl", "\n".join(texts))
    elif form == "document":
        keys, rejected = landed(tmp_path, "usage.json", f"[{', '.join(texts)}]")
    else:
        # Objects one after the other, which are a document where the first line is no object by itself.
        keys, rejected = landed(tmp_path, "usage.json", "{\n" + " ".join(texts)[1:])
    if value in FEW.values():
        assert (keys, rejected) == (["a", "b", "c", "large"], [])
    else:
        assert (keys, rejected) == (["a", "b", "c"], [(2, "too_large", large)])


@pytest.mark.usefixtures("few")
def test_elements_that_are_no_objects_are_refused_by_what_they_are(tmp_path: Path) -> None:
    many = json.dumps([[]] * 60)
    keys, rejected = landed(tmp_path, "usage.json", f"[{json.dumps(body('a'))}, {many}, [1], {many}]")
    assert keys == ["a"]
    assert [found[:2] for found in rejected] == [(2, "too_large"), (3, "not_an_object"), (4, "too_large")]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("end", ["", "]", '"', "}"])
def test_an_element_of_many_values_that_has_no_end_is_the_rest_of_its_document(
    tmp_path: Path, end: str
) -> None:
    text = f'[{json.dumps(body("a"))}, {{"x": [{"[]," * 200}{end}'
    keys, rejected = landed(tmp_path, "usage.json", text)
    assert keys == ["a"]
    assert [found[:2] for found in rejected] == [(2, "not_json")]


def test_an_element_that_is_too_long_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.land.read.json_stream.BLOCK_BYTES", 64)
    monkeypatch.setattr("jobs.land.read.json_stream.MAX_ELEMENT_CHARS", 500)
    long = json.dumps(body("long", x="y" * 2_000))
    keys, rejected = landed(
        tmp_path, "usage.json", f"[{json.dumps(body('a'))}, {long}, {json.dumps(body('b'))}]"
    )
    assert keys == ["a"]
    assert rejected == [(2, "too_large", long[:500])]


def test_a_number_of_any_length_ends_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"[{json.dumps(body('a'))}, {'1' * 5_000}, {json.dumps(body('b'))}, {'1' * 30_000}, 2]"
    monkeypatch.setattr("jobs.land.read.json_stream.BLOCK_BYTES", 64)
    monkeypatch.setattr("jobs.land.read.json_stream.MAX_ELEMENT_CHARS", 8_000)
    keys, rejected = landed(tmp_path, "usage.json", text)
    assert keys == ["a", "b"]
    assert [found[:2] for found in rejected] == [(2, "not_an_object"), (4, "too_large")]


def test_very_many_short_elements_are_one_row_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_LINES", 7)
    keys, rejected = landed(tmp_path, "usage.json", "[" + "1, " * 20 + json.dumps(body("a")) + ", 2]")
    assert keys == ["a"]
    assert [position for position, _, _ in rejected] == [*range(1, 21), 22]


def test_marks_in_texts_are_no_values() -> None:
    text = json.dumps("[" * (MAX_VALUES + 1)).encode()
    assert count_marks(text) == MAX_VALUES + 1
    assert not has_too_many_values(text)
    assert has_too_many_values(b"[" * (MAX_VALUES + 1))
    assert not has_too_many_values(b"[" * MAX_VALUES)
