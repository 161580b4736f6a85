"""Checksums: of a file they find every flipped byte, of rows they are the same however those are written."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from lake.checksums import SHA256_KEY, embedded_and_actual_sha256, rows_checksum, write_with_sha256
from schemas.columns import INSTANT, QUANTITY

NOON = dt.datetime(2026, 6, 19, 12, tzinfo=dt.UTC)
ROWS = pl.DataFrame(
    {
        "subject": ["a", "b\n", ""],
        "plan": ["pro", None, "é"],
        "seats": [1.5, None, -2.0],
        "trial": [True, None, False],
        "quantity": [Decimal("1.5"), Decimal("-0.000000001"), None],
        "events": [1, 2, 3],
        "at": [NOON, None, NOON],
    },
    schema={
        "subject": pl.String,
        "plan": pl.String,
        "seats": pl.Float64,
        "trial": pl.Boolean,
        "quantity": QUANTITY,
        "events": pl.Int64,
        "at": INSTANT,
    },
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_with_sha256(ROWS, tmp_path / "a.parquet", {"record": "{}"})
    return tmp_path / "a.parquet"


def test_a_stamped_file_says_the_checksum_of_its_own_bytes(file: Path) -> None:
    said, found = embedded_and_actual_sha256(file.read_bytes())
    assert said == found == pl.read_parquet_metadata(file)[SHA256_KEY]
    assert pl.read_parquet_metadata(file)["record"] == "{}"
    assert pl.read_parquet(file).equals(ROWS)


def test_any_flipped_bit_anywhere_is_found(file: Path) -> None:
    body = file.read_bytes()
    for place in range(len(body)):
        for bit in (1, 0x80):
            said, found = embedded_and_actual_sha256(
                body[:place] + bytes([body[place] ^ bit]) + body[place + 1 :]
            )
            assert said != found or not said, place


def test_a_file_cut_short_or_made_longer_is_found(file: Path) -> None:
    body = file.read_bytes()
    for other in (body[:-1], body + b"\0", body[: len(body) // 2], b""):
        said, found = embedded_and_actual_sha256(other)
        assert said != found or not said


def test_the_same_rows_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    write_with_sha256(ROWS, tmp_path / "b.parquet", {"record": "{}"})
    assert (tmp_path / "b.parquet").read_bytes() == file.read_bytes()


def test_values_that_look_like_a_checksum_are_not_taken_for_it(tmp_path: Path) -> None:
    texts = [f"{SHA256_KEY}\x18@{'0' * 64}", "0" * 64]
    write_with_sha256(pl.DataFrame({"subject": texts}), tmp_path / "a.parquet", {texts[1]: texts[1]})
    said, found = embedded_and_actual_sha256((tmp_path / "a.parquet").read_bytes())
    assert said == found


def test_rows_have_the_same_checksum_however_they_are_held() -> None:
    expected = rows_checksum(ROWS)
    apart = pl.concat([ROWS[:1], ROWS[1:2], ROWS[2:]], rechunk=False)
    assert rows_checksum(apart) == expected
    assert rows_checksum(pl.concat([ROWS, ROWS])[3:]) == expected
    # Pinned, since records of sealed partitions hold it for good.
    assert expected == "06e74ffe6dfbbcde3b93a945055cf0327ee938869747be23fb6f71b8cc3d3efa"


@pytest.mark.parametrize(
    "edit",
    [
        pl.col("subject").replace("a", "A"),
        pl.col("plan").fill_null(""),
        pl.col("seats").fill_null(0.0),
        pl.col("trial").fill_null(value=False),
        pl.col("quantity").fill_null(0),
        pl.col("quantity") + Decimal("0.000000001"),
        pl.col("events") + 1,
        pl.col("at").fill_null(dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
        pl.col("subject").alias("subjects"),
    ],
)
def test_an_edit_changes_the_checksum_of_rows(edit: pl.Expr) -> None:
    edited = ROWS.with_columns(edit)
    assert rows_checksum(edited) != rows_checksum(ROWS)
    assert rows_checksum(ROWS.reverse()) != rows_checksum(ROWS)


def test_text_can_not_move_from_one_row_to_the_next() -> None:
    one, other = (pl.DataFrame({"subject": texts}) for texts in (["ab", "c"], ["a", "bc"]))
    assert rows_checksum(one) != rows_checksum(other)


def test_no_rows_have_a_checksum_too(tmp_path: Path) -> None:
    assert rows_checksum(ROWS.clear()) != rows_checksum(ROWS)
    write_with_sha256(ROWS.clear(), tmp_path / "a.parquet")
    said, found = embedded_and_actual_sha256((tmp_path / "a.parquet").read_bytes())
    assert said == found
