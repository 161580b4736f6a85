"""Compressed inputs as the usual programs write them, and inputs that have another form than the formats we take."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.land.job import land
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from schemas.encodings import other_encoding
from schemas.errors import BadInputError
from schemas.meter import parse_meter
from support import METER, a_lake

LINES = [
    json.dumps({"idempotency_key": f"k{n}", "subject": "s", "meter": "active_users", "quantity": 1})
    for n in range(3)
]
TEXT = "\n".join(LINES) + "\n"
BODY = TEXT.encode()
CSV = "subject,meter,quantity\n" + "s,active_users,1\n" * 3
GZIP = gzip.compress(BODY)


def zstd(body: bytes) -> bytes:
    return bytes(pa.compress(body, codec="zstd", asbytes=True))


def skippable(number: int, size_bytes: int) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, size_bytes) + bytes(size_bytes)


def land_bytes(folder: Path, content: bytes, name: str = "usage") -> tuple[Lake, RunReport]:
    lake, _ = a_lake(folder / "lake")
    (folder / name).write_bytes(content)
    with reported(lake, "land") as report:
        land(lake, [str(folder / name)], report)
    return lake, report


TAKEN = {
    "zstd with a skippable frame first": skippable(0, 4) + zstd(BODY),
    "zstd with skippable frames everywhere": (
        skippable(15, 0)
        + zstd(BODY[:50])
        + skippable(7, 9)
        + skippable(1, 70_000)
        + zstd(BODY[50:])
        + skippable(3, 1)
    ),
    "several zstd frames": zstd(BODY[:50]) + zstd(b"") + zstd(BODY[50:]),
    "several gzip members": gzip.compress(BODY[:50]) + gzip.compress(b"") + gzip.compress(BODY[50:]),
    "gzip and a zero": GZIP + bytes(1),
    "gzip and a block of zeros": GZIP + bytes(10_240),
    "gzip members and zeros": gzip.compress(BODY[:50]) + gzip.compress(BODY[50:]) + bytes(512),
}


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN)
def test_what_zstd_and_gzip_read_lands(tmp_path: Path, content: bytes) -> None:
    lake, report = land_bytes(tmp_path, content)
    assert (report.exit_code, report.errors, report.events_landed) == (0, [], 3)
    assert lake.raw_events("active_users").collect().height == 3


DAMAGED = {
    "gzip and garbage": GZIP + b"garbage",
    "gzip, zeros and garbage": GZIP + bytes(100) + b"garbage",
    "gzip and half a member": GZIP + GZIP[:30],
    "gzip with a wrong checksum": GZIP[:-8] + b"\0\1\2\3" + GZIP[-4:],
    "gzip of a wrong method": GZIP[:20] + b"\xff" * 20,
    "zstd and garbage": zstd(BODY) + b"garbage",
    "zstd and half a frame": zstd(BODY) + zstd(BODY)[:20],
    "half a skippable frame": zstd(BODY) + skippable(0, 100)[:50],
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_compressed_input_that_is_not_whole_lands_nothing(tmp_path: Path, content: bytes) -> None:
    lake, report = land_bytes(tmp_path, content)
    assert report.exit_code == 1
    assert report.errors[0]["what"] == "could not read this input"
    assert report.errors[0]["found"]
    assert not (Path(lake.url) / paths.LANDED).exists()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("usage.jsonl", TEXT)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("usage.jsonl")
        info.size = len(BODY)
        archive.addfile(info, io.BytesIO(BODY))
    return file.getvalue()


OTHER_FORMS = {
    "bzip2": (bz2.compress(BODY), "bzip2"),
    "bzip2 of nothing": (bz2.compress(b""), "bzip2"),
    "xz": (lzma.compress(BODY), "xz"),
    "zip": (zipped(), "a ZIP archive"),
    "zlib": (zlib.compress(BODY), "zlib"),
    "zlib, fast": (zlib.compress(BODY, 1), "zlib"),
    "lz4": (bytes(pa.compress(BODY, codec="lz4", asbytes=True)), "lz4"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100), "a 7z archive"),
    "tar": (tarred(), "a tar archive"),
    "tar in gzip": (gzip.compress(tarred()), "a tar archive"),
    "gzip in gzip": (gzip.compress(GZIP), "gzip in a compressed file"),
    "zstd in gzip": (gzip.compress(zstd(BODY)), "zstd in a compressed file"),
    "UTF-16 with a mark": (TEXT.encode("utf-16"), "UTF-16"),
    "UTF-16, big-endian, with a mark": (b"\xfe\xff" + TEXT.encode("utf-16-be"), "UTF-16"),
    "UTF-16, little-endian": (TEXT.encode("utf-16-le"), "UTF-16"),
    "UTF-16, big-endian": (TEXT.encode("utf-16-be"), "UTF-16"),
    "UTF-32 with a mark": (TEXT.encode("utf-32"), "UTF-32"),
    "UTF-32, little-endian": (TEXT.encode("utf-32-le"), "UTF-32"),
    "UTF-32, big-endian": (TEXT.encode("utf-32-be"), "UTF-32"),
    "UTF-16 in gzip": (gzip.compress(TEXT.encode("utf-16")), "UTF-16"),
    "CSV in UTF-16, as spreadsheets write it": (CSV.encode("utf-16"), "UTF-16"),
    "an Arrow file": (b"ARROW1\0\0" + bytes(20), "an Arrow file"),
}


@pytest.mark.parametrize(("content", "found"), OTHER_FORMS.values(), ids=OTHER_FORMS)
@pytest.mark.parametrize("name", ["usage.jsonl", "usage.csv"])
def test_an_input_of_another_form_is_refused_whole_as_what_it_is(
    tmp_path: Path, name: str, content: bytes, found: str
) -> None:
    lake, report = land_bytes(tmp_path, content, name)
    (problem,) = report.errors
    assert (report.exit_code, problem["what"]) == (1, "this input has another form")
    assert (problem["where"], problem["found"]) == (name, found)
    assert problem["hint"]
    assert not (Path(lake.url) / paths.LANDED).exists()


@pytest.mark.parametrize("start", ["x^2,", "BZh,", "PK,", "LZIP,", "Obj,", "\0,"])
def test_text_is_not_taken_for_another_form(tmp_path: Path, start: str) -> None:
    text = start + CSV.replace("\ns,", "\n1,s,")
    _, report = land_bytes(tmp_path, text.encode(), "usage.csv")
    assert (report.errors, report.events_landed) == ([], 3)


@pytest.mark.parametrize("start", [b"", b"{", b"{}", b"\0", b"ab\0\0", b'{"a":"\0b"}', b"a\0b"])
def test_a_zero_here_and_there_makes_no_other_encoding(start: bytes) -> None:
    assert other_encoding(start) is None


def test_a_definition_may_begin_with_a_byte_order_mark() -> None:
    text = json.dumps(METER)
    assert parse_meter(text.encode("utf-8-sig"), "test") == parse_meter(text.encode(), "test")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_definition_of_another_encoding_is_refused_as_such(encoding: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_meter(json.dumps(METER).encode(encoding), "test")
    assert caught.value.expected == "JSON in UTF-8"
    assert caught.value.found == encoding[:6].upper()
