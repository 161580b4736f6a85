"""What a lake needs of its storage, on every storage that a lake can be written to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from lake.storage import Storage, StoredFile, open_storage
from schemas.errors import StorageError

HARD_NAMES = ["meter=a%2Fb", "meter=a b", "meter=ü", "meter=a#b", "meter=a+b&c=d", "meter=%2E.", "meter=a[1]"]


@pytest.fixture
def storage(url: str) -> Storage:
    return open_storage(url)


def names(storage: Storage, prefix: str) -> list[str]:
    return [file.path for file in storage.list(prefix)]


def put_parquet(storage: Storage, path: str, df: pl.DataFrame, **options: dict[str, str]) -> StoredFile:
    local = storage.scratch(".parquet")
    df.write_parquet(local, **options)  # type: ignore[arg-type]
    storage.publish_file(path, local)
    assert not local.exists()
    return next(file for file in storage.list(path.rsplit("/", 1)[0]) if file.path == path)


def test_what_is_published_is_read_and_what_is_not_is_not_there(storage: Storage) -> None:
    storage.publish("runs/a.json", b"1")
    storage.publish("runs/a.json", b"22")
    assert storage.read("runs/a.json") == b"22"
    assert storage.read("runs/b.json") is None
    assert storage.read_all(["runs/b.json", "runs/a.json"]) == [None, b"22"]
    assert storage.read_all([]) == []
    assert storage.exists("runs/a.json")
    assert not storage.exists("runs/b.json")
    assert not storage.exists("runs")


def test_listing_is_recursive_and_sorted_and_knows_folders_from_beginnings(storage: Storage) -> None:
    for path in ("events/b", "events/a/z", "events/a/y/x", "events2/a", "a"):
        storage.publish(path, b"123")
    assert names(storage, "events/") == names(storage, "events") == ["events/a/y/x", "events/a/z", "events/b"]
    assert names(storage, "") == ["a", "events/a/y/x", "events/a/z", "events/b", "events2/a"]
    assert names(storage, "nothing/") == []
    assert {file.size_bytes for file in storage.list("events/")} == {3}


def test_an_identity_changes_with_the_content_and_only_then(storage: Storage) -> None:
    storage.publish("events/a", b"1")
    before = storage.list("events/")
    assert storage.list("events/") == before
    storage.publish("events/a", b"2")
    assert storage.list("events/") != before


def test_of_many_creators_one_wins(storage: Storage, url: str) -> None:
    contents = [str(number).encode() for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda content: open_storage(url).create("lease/a", content), contents))
    (winner,) = (number for number, file in enumerate(made) if file)
    assert storage.read("lease/a") == contents[winner]
    assert names(storage, "lease/") == ["lease/a"]


def test_deleting(storage: Storage) -> None:
    paths = [f"events/{number}" for number in range(3)]
    for path in (*paths, "events/stays"):
        storage.publish(path, b"1")
    storage.delete(paths[0])
    storage.delete(paths[0])
    storage.delete_all(paths)
    storage.delete_all([])
    assert names(storage, "events/") == ["events/stays"]


@pytest.mark.parametrize("folder", HARD_NAMES)
def test_parquet_below_a_hard_name(storage: Storage, folder: str) -> None:
    df = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    one = put_parquet(storage, f"events/{folder}/1.parquet", df, metadata={"k": "v"})
    other = put_parquet(storage, f"events/{folder}/2.parquet", df)
    assert storage.schema(one) == df.schema
    assert storage.metadata(one)["k"] == "v"
    for _ in range(2):
        found = storage.scan([one, other], row_index_name="row").collect()
        assert found.rows() == [(0, 1, "x"), (1, 2, "y"), (2, 1, "x"), (3, 2, "y")]
        storage.prefetch([one, other])


def test_a_copy_is_never_of_an_older_content(storage: Storage) -> None:
    before = put_parquet(storage, "events/a.parquet", pl.DataFrame({"a": [1]}))
    storage.prefetch([before])
    after = put_parquet(storage, "events/a.parquet", pl.DataFrame({"a": [2]}))
    assert storage.scan([after]).collect().item() == 2


@pytest.mark.parametrize(
    "body", [b"", b"PAR", b"no parquet at all", b"x" * 100_000 + b"\xff\xff\xff\x7fPAR1"]
)
def test_a_file_that_is_no_parquet_is_polars_to_tell(storage: Storage, body: bytes) -> None:
    storage.publish("events/a.parquet", body)
    with pytest.raises(pl.exceptions.PolarsError):
        storage.schema(storage.list("events/")[0])


def test_a_long_footer_is_read_whole(storage: Storage) -> None:
    df = pl.DataFrame({f"a column with a long name, number {n}": [n] for n in range(2_000)})
    assert storage.schema(put_parquet(storage, "events/a.parquet", df)) == df.schema


def test_the_footer_of_a_file_that_is_not_there(storage: Storage) -> None:
    with pytest.raises((StorageError, OSError)):
        storage.schema(StoredFile("events/none.parquet", 1, "x"))
