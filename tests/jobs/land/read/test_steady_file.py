"""What is read again is what was read first, or it is an error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.land.read.steady_file import BLOCK_BYTES, SteadyFile
from schemas.errors import BadInputError

CONTENT = os.urandom(2 * BLOCK_BYTES + 1000)


@contextmanager
def opened(path: Path) -> Iterator[SteadyFile]:
    file = SteadyFile(path, "usage")
    try:
        yield file
    finally:
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "usage"
    path.write_bytes(CONTENT)
    return path


def test_it_is_read_as_often_as_one_likes(path: Path) -> None:
    with opened(path) as file:
        assert file.reader().read() == CONTENT
        assert file.reader().read(5) == CONTENT[:5]
        assert file.reader().readall() == CONTENT
        file.check_size()


steps = st.tuples(st.sampled_from(["read", "seek", "end", "on"]), st.integers(-100, 2 * BLOCK_BYTES + 2000))


@given(st.lists(steps, max_size=12))
def test_it_reads_and_searches_as_any_file(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    if not path.exists():
        path.write_bytes(CONTENT)
    plain = io.BytesIO(CONTENT)
    with opened(path) as file:
        reader = file.reader()
        for move, number in moves:
            if move == "read":
                assert reader.read(number) == plain.read(number)
            elif move == "seek":
                assert reader.seek(max(0, number)) == plain.seek(max(0, number))
            elif move == "end":
                assert reader.seek(-abs(number) % len(CONTENT), os.SEEK_END) == plain.seek(
                    -abs(number) % len(CONTENT), os.SEEK_END
                )
            else:
                assert reader.seek(abs(number), os.SEEK_CUR) == plain.seek(abs(number), os.SEEK_CUR)
            assert reader.tell() == plain.tell()


def overwritten(path: Path) -> None:
    """Other bytes in the same place, with the same size and times."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(BLOCK_BYTES + 10)
        file.write(b"other")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncated(path: Path) -> None:
    os.truncate(path, BLOCK_BYTES + 1)


@pytest.mark.parametrize("change", [overwritten, truncated])
def test_a_block_that_changed_is_an_error(path: Path, change: Callable[[Path], None]) -> None:
    with opened(path) as file:
        assert file.reader().read() == CONTENT
        change(path)
        reader = file.reader()
        assert reader.read(BLOCK_BYTES) == CONTENT[:BLOCK_BYTES]
        with pytest.raises(BadInputError, match="usage: the input changed while it was landed"):
            reader.read(BLOCK_BYTES)


def test_a_file_that_grows_is_read_as_it_was_and_can_be_asked(path: Path) -> None:
    with opened(path) as file:
        with path.open("ab") as more:
            more.write(b"more")
        assert file.reader().read() == CONTENT
        with pytest.raises(BadInputError, match="expected 2,098,152 bytes, found 2,098,156 bytes"):
            file.check_size()


def test_a_file_that_is_renamed_over_it_is_not_seen(path: Path) -> None:
    with opened(path) as file:
        other = path.with_name("other")
        other.write_bytes(b"other")
        other.replace(path)
        assert file.reader().read() == CONTENT
        file.check_size()
