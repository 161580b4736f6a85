"""CSV: what is RFC 4180 lands; all else is a row in quarantine with its own text, and costs no other row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.land.job import land
from jobs.land.read import csv_records, csv_rows
from jobs.land.read.conflicts import find_conflicts
from jobs.land.read.csv_records import Record, csv_chunks, field_texts, split_records
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from schemas.meter import parse_meter
from support import a_lake

DIMENSIONS = [
    {"name": "plan", "type": "string", "required": False},
    {"name": "size", "type": "number", "required": False},
    {"name": "ok", "type": "boolean", "required": False},
]
HEADER = "subject,meter,quantity,timestamp,idempotency_key,plan"


def row(key: str, quantity: int = 1, plan: str = "Team") -> str:
    return f"org_1,calls,{quantity},2026-06-19T10:00:00Z,{key},{plan}"


def land_text(folder: Path, text: str | bytes, name: str = "usage.csv") -> tuple[Lake, RunReport]:
    new = not (folder / "lake").exists()
    lake = (
        a_lake(folder / "lake", name="calls", dimensions=DIMENSIONS)[0] if new else Lake(str(folder / "lake"))
    )
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with reported(lake, "land") as report:
        land(lake, [str(folder / name)], report)
    return lake, report


def keys(lake: Lake) -> list[str]:
    return sorted(lake.raw_events("calls").collect()["idempotency_key"])


def quarantined(lake: Lake) -> list[tuple[int, str, str]]:
    files = sorted((Path(lake.url) / paths.QUARANTINE).rglob("*.parquet"))
    frames = [pl.read_parquet(file, hive_partitioning=False) for file in files]
    return pl.concat(frames).select("position", "reason", "raw").sort("position").rows() if frames else []


# The plans of four rows, k1 to k4, which rows land, and the texts that go into quarantine.
STRAY: dict[str, tuple[list[str], list[str], list[str]]] = {
    "a quote that closes in another row": (
        ['"Team', "Pro", '"Team"', "Pro"],
        ["k2", "k3", "k4"],
        ['k1,"Team'],
    ),
    "text behind a closing quote": (['"Team"x', "Pro", '"a"', "b"], ["k2", "k3", "k4"], ['k1,"Team"x']),
    "a quote within an unquoted field": (['Te"am', "Pro", '"a"', "b"], ["k2", "k3", "k4"], ['k1,Te"am']),
    "two quotes within an unquoted field": (['T"ea"m', "Pro", '"a"', "b"], ["k2", "k3", "k4"], ['k1,T"ea"m']),
    "a space before a quote": ([' "Team"', "Pro", '"a"', "b"], ["k2", "k3", "k4"], ['k1, "Team"']),
    "a backslash for an escape": (['"Te\\"am"', "Pro", '"a"', "b"], ["k2", "k3", "k4"], ['k1,"Te\\"am"']),
    "a quote that is never closed": (['"Team', "Pro", "a", "b"], ["k2", "k3", "k4"], ['k1,"Team']),
    "a quote that is never closed among escaped ones": (
        ['"Team', '""', '"a""b"', "b"],
        ["k2", "k3", "k4"],
        ['k1,"Team'],
    ),
    "three stray quotes": (['"Team', 'P"ro', "a", 'b"'], ["k3"], ['k1,"Team', 'k2,P"ro', 'k4,b"']),
    "a quote that looks as if it closed two rows later": (
        ['"Team', "Pro", 'Team"', "b"],
        ["k4"],
        [f'k1,"Team\n{row("k2", plan="Pro")}\n{row("k3")}"'],
    ),
}


@pytest.mark.parametrize("case", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("block_bytes", [30, 8 * 2**20])
def test_a_stray_quote_costs_its_own_row_and_no_other(
    tmp_path: Path,
    case: tuple[list[str], list[str], list[str]],
    block_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans, landing, refused = case
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", block_bytes)
    rows = [row(f"k{number}", plan=plan) for number, plan in enumerate(plans, 1)]
    lake, report = land_text(tmp_path, "\n".join([HEADER, *rows]) + "\n")
    assert keys(lake) == landing
    assert report.exit_code == 1
    found = quarantined(lake)
    assert [raw.split("Z,", 1)[1] for _, _, raw in found] == refused
    assert {reason for _, reason, _ in found} == {"not_json"}
    if len(landing) == 3:
        assert [position for position, _, _ in found] == [1]


def test_a_value_at_a_path_in_the_metadata_and_in_a_column_of_its_name_is_a_conflict() -> None:
    columns = pl.DataFrame({"service.tier": ["a", "a", None, "a"]})
    nested = '{"service": {"tier": "b"}}'
    metadata = pl.Series([nested, '{"service": {"zone": 1}, "service.x": 1}', nested, '{"service": 1}'])
    assert find_conflicts(metadata, columns)[1] == [0]


def test_a_file_that_ends_in_quotes_lands_no_cut_number(tmp_path: Path) -> None:
    head = "subject,meter,timestamp,idempotency_key,quantity\n"
    rows = 'org_1,calls,2026-06-19T10:00:00Z,k1,"5"\norg_1,calls,2026-06-19T10:00:01Z,k2,"15'
    lake, report = land_text(tmp_path, head + rows)
    assert lake.raw_events("calls").collect()["quantity"].to_list() == [Decimal(5)]
    assert report.exit_code == 1
    assert quarantined(lake) == [(2, "not_json", 'org_1,calls,2026-06-19T10:00:01Z,k2,"15')]


def test_rows_hidden_in_a_quoted_field_are_no_events_and_do_not_vanish(tmp_path: Path) -> None:
    """RFC 4180 has this as one row; whether it is or a quote is missing can't be told, so it is shown, not counted."""
    hidden = row("k1") + '"\n'
    text = f'{HEADER},note\n{row("k0")},"first\n{row("k9", 1_000_000)},x\nlast"\n{hidden}{row("k2")},\n'
    lake, report = land_text(tmp_path, text)
    assert keys(lake) == ["k2"]
    assert [raw for _, _, raw in quarantined(lake)] == [
        text.removeprefix(f"{HEADER},note\n").removesuffix(f"\n{hidden}{row('k2')},\n"),
        hidden[:-1],
    ]
    assert report.exit_code == 1


def test_text_over_several_lines_that_is_no_row_lands(tmp_path: Path) -> None:
    notes = [
        "two\nlines",
        "three\r\n\r\nlines, with, commas, and, more, and, more",
        "\n",
        'say "calls"\n,,calls',
    ]
    out = io.StringIO()
    csv.writer(out).writerows(
        [[*HEADER.split(","), "note"]]
        + [[*row(f"k{number}").split(","), note] for number, note in enumerate(notes)]
    )
    lake, report = land_text(tmp_path, out.getvalue())
    assert (report.exit_code, report.events_landed) == (0, 4)
    found = lake.raw_events("calls").collect()["metadata"].to_list()
    assert sorted(json.loads(text)["note"] for text in found) == sorted(notes)


@pytest.mark.parametrize("block_bytes", range(100, 140))
def test_a_line_end_in_quotes_on_the_edge_of_a_block_loses_no_byte(
    tmp_path: Path, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", block_bytes)
    text = f'{HEADER}\r\n{row("k1")[:-4]}"{"z" * 30}A\r\nB"\r\n{row("k2")}\r\n'
    lake, report = land_text(tmp_path, text)
    assert (report.exit_code, keys(lake)) == (0, ["k1", "k2"])
    assert lake.raw_events("calls").collect()["plan"].to_list() == ["z" * 30 + "A\r\nB", "Team"]


LINES = [HEADER, row("k1"), row("k2", plan='"a,b"'), row("k3")]
RIGHT: dict[str, bytes] = {
    "line feeds": "\n".join([*LINES, ""]).encode(),
    "CR LF": "\r\n".join([*LINES, ""]).encode(),
    "CR": "\r".join([*LINES, ""]).encode(),
    "no last line end": "\n".join(LINES).encode(),
    "a byte order mark": b"\xef\xbb\xbf" + "\n".join(LINES).encode(),
    "a header in quotes": "\n".join(['"' + HEADER.replace(",", '","') + '"', *LINES[1:]]).encode(),
    "blank lines": "\n\n".join(["", *LINES, "", ""]).encode(),
    "a column with a line end in its name": "\n".join(
        [HEADER + ',"a\nb"', *(line + "," for line in LINES[1:])]
    ).encode(),
    "gzip": gzip.compress("\n".join(LINES).encode()),
    "rows of nothing but separators": "\n".join(
        [*LINES[:2], ",,,,,", *LINES[2:], ",,,", '"",,,"",,', ",", ""]
    ).encode(),
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("block_bytes", [11, 8 * 2**20])
def test_every_form_of_right_csv_lands(
    tmp_path: Path, content: bytes, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", block_bytes)
    lake, report = land_text(tmp_path, content)
    assert (report.exit_code, report.errors, report.quarantined) == (0, [], {})
    assert lake.raw_events("calls").sort("idempotency_key").collect()["plan"].to_list() == [
        "Team",
        "a,b",
        "Team",
    ]


WRONG: dict[str, tuple[str, bytes, str]] = {
    "too few fields": ("not_json", b"org_1,calls,1", "org_1,calls,1"),
    "too many fields": ("not_json", row("k").encode() + b",more", row("k") + ",more"),
    "too few fields over two lines": ("not_json", b'org_1,"a\nb",1', 'org_1,"a\nb",1'),
    "bytes that are not UTF-8": ("not_json", row("k\udcff").encode(errors="surrogateescape"), row("k\\xff")),
    "a NUL in the subject": ("subject_invalid", b"\x00" + row("k").encode(), ""),
}


@pytest.mark.parametrize(("reason", "line", "raw"), WRONG.values(), ids=WRONG)
def test_a_row_that_is_wrong_is_kept_with_its_number_and_text(
    tmp_path: Path, reason: str, line: bytes, raw: str
) -> None:
    content = b"\n".join([HEADER.encode(), row("k1").encode(), b"", b",,", line, row("k2").encode()])
    lake, report = land_text(tmp_path, content)
    assert (keys(lake), report.exit_code) == (["k1", "k2"], 1)
    ((position, found, text),) = quarantined(lake)
    # Blank lines have no number.
    assert (position, found) == (3, reason)
    assert text == raw or not raw


def long_rows(kind: str) -> str:
    plans = {
        "unquoted": "x" * 5000,
        "quoted": '"' + "x" * 2500 + '"',
        "over several lines": '"' + "x,calls,1\n" * 250 + '"',
        "open": '"' + "x" * 5000,
    }
    return row("long", plan=plans[kind])


@pytest.mark.parametrize("kind", ["unquoted", "quoted", "over several lines", "open"])
@pytest.mark.parametrize("block_bytes", [300, 1_000, 100_000])
def test_a_row_over_the_limit_is_kept_in_part_and_the_others_land(
    tmp_path: Path, kind: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", block_bytes)
    for module in (csv_records, csv_rows):
        monkeypatch.setattr(f"{module.__name__}.MAX_LINE_BYTES", 2_000)
    monkeypatch.setattr(csv_records, "MAX_QUOTED_BYTES", 4_000)
    monkeypatch.setattr("jobs.land.read.csv_rows.KEPT_OF_LONG_LINE_BYTES", 50)
    long = long_rows(kind)
    lake, report = land_text(tmp_path, "\n".join([HEADER, row("k1"), long, row("k2"), row("k3")]))
    assert (keys(lake), report.exit_code) == (["k1", "k2", "k3"], 1)
    assert quarantined(lake) == [(2, "too_large", long[:50])]


def test_a_quote_that_is_not_closed_soon_is_a_stray_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", 300)
    monkeypatch.setattr(csv_records, "MAX_LINE_BYTES", 500)
    monkeypatch.setattr(csv_records, "MAX_QUOTED_BYTES", 1_000)
    rows = [row(f"k{number:03}") for number in range(100)]
    lake, report = land_text(
        tmp_path, "\n".join([HEADER, row("first", plan='"Team'), *rows, row("z", plan='x"')])
    )
    assert report.events_landed == 100
    assert [position for position, _, _ in quarantined(lake)] == [1, 102]


def test_an_empty_file_is_refused_and_a_header_alone_is_not(tmp_path: Path) -> None:
    _, report = land_text(tmp_path, "")
    assert report.errors[0]["what"] == "column 'subject' is missing"
    _, report = land_text(tmp_path, HEADER + "\n", "header.csv")
    assert (report.exit_code, report.errors) == (0, [])


BAD_HEADERS = {
    "semicolons": (HEADER.replace(",", ";"), "the columns are separated by semicolons"),
    "tabs": (HEADER.replace(",", "\t"), "the columns are separated by tabs"),
    "a column twice": (HEADER + ",plan", "column 'plan' is duplicated"),
    "a stray quote": (HEADER + ',"x', "the header is not CSV"),
    "no meter": ("subject,quantity", "column 'meter' is missing"),
    "no quantity": ("subject,meter", "column 'quantity' is missing"),
    "a key in other letters": (
        HEADER.replace("idempotency_key", "IdempotencyKey"),
        "column 'IdempotencyKey' is no field of an event",
    ),
    "a space before a field": (HEADER.replace(",", ", "), "column ' meter' is no field of an event"),
}


@pytest.mark.parametrize(("header", "what"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_header_refuses_the_whole_file(tmp_path: Path, header: str, what: str) -> None:
    lake, report = land_text(tmp_path, f"{header}\n{row('k1')}\n")
    assert (report.exit_code, report.errors[0]["what"]) == (1, what)
    assert report.errors[0]["expected"]
    assert not (Path(lake.url) / paths.LANDED).exists()


def test_a_header_that_is_not_utf_8_refuses_the_whole_file(tmp_path: Path) -> None:
    _, report = land_text(tmp_path, HEADER.encode() + b",\xff\n" + row("k1").encode())
    assert report.errors[0]["expected"] == "a header in RFC 4180 and UTF-8"


DIMENSION_TEXTS: dict[str, tuple[str, float | bool | None]] = {
    **{text: ("size", number) for text, number in {".5": 0.5, "+5": 5.0, "5.": 5.0, "-.5e1": -5.0}.items()},
    **{text: ("size", number) for text, number in {" 7 ": 7.0, "007": 7.0, "1e3": 1000.0, "": None}.items()},
    **dict.fromkeys(("true", "True", "TRUE", " TRUE "), ("ok", True)),
    **dict.fromkeys(("false", "False", "FALSE"), ("ok", False)),
}


@pytest.mark.parametrize("text", DIMENSION_TEXTS)
def test_dimensions_of_csv_are_written_as_spreadsheets_and_python_do(tmp_path: Path, text: str) -> None:
    name, expected = DIMENSION_TEXTS[text]
    rows = [f"{HEADER},{name}", f"{row('k1')},{text}", f"{row('k2')},"]
    lake, report = land_text(tmp_path, "\n".join(rows))
    assert (report.exit_code, report.quarantined) == (0, {})
    found = lake.raw_events("calls").sort("idempotency_key").collect()
    assert found[name].to_list() == [expected, None]
    assert found["metadata"].to_list() == [None, None]


METADATA: dict[str, tuple[str, str, str | None]] = {
    "another name": ('{"note": "x"}', "Team", None),
    "an empty column": ('{"plan": "x"}', "", None),
    "the same name": ('{"plan": "x"}', "Team", "metadata_conflict"),
    "the same value": ('{"plan": "Team"}', "Team", "metadata_conflict"),
    "a null of the same name": ('{"plan": null, "x": 1}', "Team", None),
    "an escaped name": ('{"pl\\u0061n": "x"}', "Team", "metadata_conflict"),
    "the name within a text": ('{"note": "\\"plan\\": 1"}', "Team", None),
    "the name deeper down": ('{"note": {"plan": 1}}', "Team", None),
    "no object": ('"plan"', "Team", "metadata_invalid"),
}


@pytest.mark.parametrize(("metadata", "plan", "reason"), METADATA.values(), ids=METADATA)
def test_a_value_in_a_column_and_in_the_metadata_is_a_conflict(
    tmp_path: Path, metadata: str, plan: str, reason: str | None
) -> None:
    out = io.StringIO()
    rows = [[*row(key, plan=plan).split(","), "more", metadata] for key in ("k1", "k2")]
    rows[1][-1] = '{"x": 1}'
    csv.writer(out).writerows([[*HEADER.split(","), "further", "metadata"], *rows])
    lake, report = land_text(tmp_path, out.getvalue())
    assert report.quarantined == ({reason: 1} if reason else {})
    assert keys(lake) == (["k2"] if reason else ["k1", "k2"])
    files = [str(file) for file in (tmp_path / "lake" / paths.QUARANTINE).rglob("*.parquet")]
    assert ["meter=calls" in file for file in files] == ([True] if reason else [])


@pytest.mark.parametrize("text", ["1e400", "NaN", "inf", "0x1", "1_000", "1,5", "yes", ".", "+", "1", "t"])
def test_other_texts_are_no_number_and_no_truth_value(tmp_path: Path, text: str) -> None:
    name = "ok" if text in {"yes", "1", "t"} else "size"
    _, report = land_text(tmp_path, f'{HEADER},{name}\n{row("k1")},"{text}"\n')
    assert report.quarantined == {"dimension_type": 1}


texts = st.text(alphabet='a,"\n\r', max_size=40).map(str.encode)


def records_in_blocks(text: bytes, block_bytes: int) -> list[Record]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "BLOCK_BYTES", block_bytes)
        chunks = list(csv_chunks(pa.input_stream(pa.py_buffer(text))))
    return [
        record
        for chunk in chunks
        for record in (
            split_records(chunk.text, len(chunk.text))[0] if chunk.records is None else chunk.records
        )
    ]


@given(texts, st.integers(4, 20))
@example(b'a,"b\r\nc"\r\n', 7)
def test_no_byte_is_lost_wherever_blocks_end(text: bytes, block_bytes: int) -> None:
    records = records_in_blocks(text, block_bytes)
    assert records == split_records(text, len(text))[0]
    at = 0
    for record in records:
        found = text.index(record.text, at)
        assert not text[at:found].strip(b"\r\n")
        at = found + len(record.text)
    assert not text[at:].strip(b"\r\n")


@given(texts)
def test_what_is_taken_for_right_at_once_is_right_row_by_row(text: bytes) -> None:
    for chunk in csv_chunks(pa.input_stream(pa.py_buffer(text))):
        records, _ = split_records(chunk.text, len(chunk.text))
        assert (chunk.records is None) == all(record.legal for record in records)
        if chunk.records is None:
            inner = [record.text for record in records if b"\n" in record.text or b"\r" in record.text]
            assert [found.strip(b"\r\n") for found in chunk.multiline] == [
                found.strip(b"\r\n") for found in inner
            ]


@given(st.lists(st.lists(st.text(alphabet='a,"\n\r é', max_size=6), min_size=2, max_size=3), max_size=5))
def test_what_a_strict_writer_writes_is_read_as_it_was(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    text = out.getvalue().encode()
    records, _ = split_records(text, len(text))
    assert all(record.legal for record in records)
    assert [[field.decode() for field in field_texts(record.text)] for record in records] == rows


def test_a_broken_file_is_read_in_linear_time() -> None:
    for lines in (b'a,"b\n', b'a",b\n', b'","\n"', b'a,"",""b\n', b'"\n'):
        records, _ = split_records(lines * 200_000, 10**9)
        assert records


def test_the_bounds_of_batches_are_those_that_names_of_landed_files_rest_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that end in one block are one batch; refused ones behind the last event go with the next batch."""
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", 200)
    chance = random.Random(4)
    rows = [row(f"k{n}", plan="x" * chance.randrange(40)) for n in range(20)]
    rows[7] = rows[3] = "a,b"
    text = "\n".join([HEADER, *rows]) + "\n"
    meter = parse_meter(
        json.dumps({"name": "calls", "unit": "call", "dimensions": DIMENSIONS}).encode(), "test"
    )
    batches = list(csv_rows.csv_batches(pa.input_stream(pa.py_buffer(text.encode())), "x", {"calls": meter}))
    found = [(list(batch.positions or []), batch.refused is not None) for batch in batches]
    expected: list[tuple[list[int], bool]] = []
    ends = [len(HEADER) + 1 + sum(len(line) + 1 for line in rows[: n + 1]) for n in range(20)]
    late: list[int] = []
    for block in range(max(ends) // 200 + 1):
        numbers = [n + 1 for n, end in enumerate(ends) if (end - 1) // 200 == block]
        good = [n for n in numbers if rows[n - 1] != "a,b"]
        late += [n for n in numbers if rows[n - 1] == "a,b"]
        if good:
            expected.append((good, False))
            if ready := [n for n in late if n < good[-1]]:
                expected.append((ready, True))
            late = [n for n in late if n > good[-1]]
    assert found == expected


def test_rows_that_are_much_json_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"k{number:03}", quantity=number) for number in range(100)]
    text = "\n".join([HEADER, *rows[:50], ",,,,,", *rows[50:], row("last", quantity=0)])
    whole, _ = land_text(tmp_path / "whole", text)
    monkeypatch.setattr("jobs.land.read.line_batches.MAX_LINE_BYTES", 2_000)
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_BYTES", 1_000)
    pieces, _ = land_text(tmp_path / "pieces", text)
    assert keys(pieces) == keys(whole) == [f"k{number:03}" for number in range(1, 100)]
    assert [number for number, _, _ in quarantined(pieces)] == [1, 102]
    assert quarantined(pieces) == quarantined(whole)


def test_many_columns_become_the_same_metadata_as_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = HEADER + "".join(f",c{number}" for number in range(7))
    text = "\n".join([header, row("a") + ",,,,,,,", row("b") + ",1,,x,,,,7", row("c") + ",,,x,y,z,,"])
    found = []
    for at_once in (1_000, 2):
        monkeypatch.setattr("jobs.land.read.tabular.COLUMNS_AT_ONCE", at_once)
        lake, _ = land_text(tmp_path / str(at_once), text)
        found.append(lake.raw_events("calls").sort("idempotency_key").collect()["metadata"].to_list())
    assert found[0] == found[1] == [None, '{"c0":"1","c2":"x","c6":"7"}', '{"c2":"x","c3":"y","c4":"z"}']


def test_very_many_rows_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.land.read.line_batches.BATCH_LINES", 7)
    monkeypatch.setattr("jobs.land.read.csv_rows.ROWS_AT_ONCE", 11)
    rows = [row(f"k{number:02}") if number % 3 else f"org_{number},calls" for number in range(1, 60)]
    lake, _ = land_text(tmp_path, "\n".join([HEADER, *rows]))
    assert keys(lake) == [f"k{number:02}" for number in range(1, 60) if number % 3]
    assert quarantined(lake) == [(number, "not_json", f"org_{number},calls") for number in range(3, 60, 3)]
