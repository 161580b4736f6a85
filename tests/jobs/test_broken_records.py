"""Whatever is wrong with a stored record of one meter, every command names its file and does its work on the others."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from jobs.cli import app
from jobs.nightly import nightly
from jobs.run_report import reported
from lake import Lake, paths
from lake.checksums import SHA256_KEY, ZERO_SHA256, embed_sha256
from lake.events.listing import METADATA_KEY as COMPACTED_KEY
from lake.state.records import METADATA_KEY
from support import DAY, METER, a_lake, event, put, retained

BROKEN, WHOLE = "broken", "whole"
AS_OF = DAY + dt.timedelta(days=1)
DEEP = b'{"partitions":' + b"[" * 100_000
Breaking = Callable[[Lake], str]
Run = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two meters alike: a sealed date with settled winners, two open ones, exports, and a rejected file."""
    folder = tmp_path_factory.mktemp("prepared") / "lake"
    for name in (BROKEN, WHOLE):
        lake, meter = a_lake(folder, name=name)
        early = DAY - dt.timedelta(days=2)
        put(lake, meter, "a.parquet", event("retried", day=early), event("a", day=early), day=early)
        put(lake, meter, "a.parquet", event("retried"), event("b"))
        put(lake, meter, "bad.parquet", event("c")).write_bytes(b"no Parquet")
    with reported(lake, "nightly") as report:
        nightly(lake, report, as_of=AS_OF)
    retained(lake, DAY + dt.timedelta(days=29))
    for name in (BROKEN, WHOLE):
        assert lake.storage.list(paths.sealed_winners(name))
        put(lake, lake.meter(name), "new.parquet", event("new"))
    return folder


@pytest.fixture
def lake(prepared: Path, tmp_path: Path) -> Lake:
    shutil.copytree(prepared, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def meterlake(lake: Lake, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, Any]:
        code = app.run(["--lake", lake.url, *arguments, "--json"])
        printed = capsys.readouterr()
        assert "unexpected" not in printed.out + printed.err
        assert "Traceback" not in printed.err
        return code, json.loads(printed.out)

    return run


def raw(path: str, body: bytes) -> Breaking:
    """Break a file by giving it another content."""

    def breaking(lake: Lake) -> str:
        lake.storage.publish(path, body)
        return path

    return breaking


def state(change: Callable[[dict[str, Any]], object]) -> Breaking:
    """Break a state by a change of its JSON, under a checksum that fits, as who may write it can."""

    def breaking(lake: Lake) -> str:
        path = paths.state(BROKEN)
        document = json.loads(lake.storage.read(path) or b"")
        listed = {file.path: file.identity for file in lake.storage.list(paths.METERS)}
        document["definition"]["identity"] = listed[paths.meter_definition(BROKEN)]
        change(document)
        document["checksum"] = ""
        document["checksum"] = hashlib.sha256(msgspec.json.encode(document)).hexdigest()
        lake.storage.publish(path, msgspec.json.encode(document))
        return path

    return breaking


def records(**members: Any) -> Breaking:
    """Break the records of all partitions in the state."""
    return state(lambda document: [record.update(members) for record in document["partitions"].values()])


def without(member: str) -> Breaking:
    return state(lambda document: [record.pop(member) for record in document["partitions"].values()])


def known(**members: Any) -> Breaking:
    """Break the definition that the state knows."""
    return state(lambda document: document["definition"]["meter"].update(members))


def rejected(**parts: str) -> Breaking:
    return records(rejected={"bad.parquet": parts})


def definition(**members: Any) -> Breaking:
    body = json.dumps(METER | {"name": BROKEN} | members).encode()
    return raw(paths.meter_definition(BROKEN), body)


def settled(lake: Lake) -> str:
    (file,) = lake.storage.list(paths.sealed_winners(BROKEN))
    lake.storage.publish(file.path, b"PAR1 nothing PAR1")
    return file.path


def settled_of_other_columns(lake: Lake) -> str:
    (file,) = lake.storage.list(paths.sealed_winners(BROKEN))
    pl.DataFrame({"subject": [1]}).write_parquet(lake.storage.uri(file.path))
    return file.path


STATES = {
    "not UTF-8": raw(paths.state(BROKEN), b'{"partitions": {}, "checksum": "\xff"}'),
    "nested": raw(paths.state(BROKEN), DEEP),
    "empty": raw(paths.state(BROKEN), b""),
    "no object": raw(paths.state(BROKEN), b"[]"),
    "changed": raw(paths.state(BROKEN), b"{}"),
    "no files": without("files"),
    "no fingerprint": without("fingerprint"),
    "rejected without identity": rejected(what="unreadable file", where="x"),
    "rejected without what": rejected(identity="1", where="x"),
    "rejected without where": rejected(identity="1", what="unreadable file"),
    "rejected is text": records(rejected={"bad.parquet": "unreadable"}),
    "no zone": records(aggregated_at="2026-06-19T12:00:00"),
    "sealed without a zone": records(sealed_at="2026-06-19T12:00:00"),
    "year 9999": records(aggregated_at="9999-12-31T23:59:59-05:00"),
    "sealed in year 1": records(sealed_at="0001-01-01T00:00:00Z"),
    "negative": records(events=-1),
    "late classes": records(late={"shortest_seconds": 0, "longest_seconds": 1, "counts": {"99999": 1}}),
    "no date": state(lambda document: document["partitions"].update({"2026-06-31": {}})),
    "retention": known(event_retention_days=10**18),
    "no retention": known(event_retention_days=0),
    "dimension": known(dimensions=[{"name": "subject", "type": "string"}]),
    "dimension twice": known(dimensions=[{"name": "a", "type": "string"}, {"name": "A", "type": "string"}]),
    "aggregation": known(aggregation="median"),
}
DEFINITIONS = {
    "definition not UTF-8": raw(paths.meter_definition(BROKEN), b'{"name": "\xff"}'),
    "definition nested": raw(paths.meter_definition(BROKEN), b'{"name":' + b"[" * 100_000),
    "definition retention": definition(event_retention_days=10**18),
    "definition dimension": definition(dimensions=[{"name": "subject", "type": "string"}]),
    "definition of another": definition(name="other"),
}
SETTLED = {"settled": settled, "settled of other columns": settled_of_other_columns}


def partitions(done: Any) -> list[str]:
    return [each["meter"] for each in done["partitions"]]


def problems_of(done: Any) -> list[dict[str, str]]:
    return list(done["status"]["problems"] if "status" in done else done.get("errors", done.get("problems")))


# By command, the meters that it has worked on, from its document.
WORK: dict[str, Callable[[Any], list[str]]] = {
    "aggregate": partitions,
    "nightly --as-of 2026-06-20": partitions,
    "compact --as-of 2026-06-25": lambda _: [WHOLE],
    "export --period 2026-06": lambda done: [each["meter"] for each in done["exports"]],
    # What has expired and is not aggregated yet is an objection.
    "retain --as-of 2026-08-01": lambda done: [
        WHOLE for problem in done["errors"] if problem["where"].startswith(paths.events(WHOLE))
    ],
    "verify": lambda done: [
        WHOLE for problem in done["errors"] if problem["where"].startswith(paths.events(WHOLE))
    ],
    "status": lambda done: [each["meter"] for each in done["meters"] if each["events"]],
    "report --as-of 2026-06-20": lambda done: [
        each["status"]["meter"] for each in done["meters"] if each["days"]
    ],
}


@pytest.mark.parametrize("breaking", (STATES | DEFINITIONS).values(), ids=STATES | DEFINITIONS)
@pytest.mark.parametrize("command", WORK)
def test_a_command_names_the_broken_file_and_goes_on(
    lake: Lake, meterlake: Run, command: str, breaking: Breaking
) -> None:
    where = breaking(lake)
    code, done = meterlake(*command.split())
    about = {problem["where"] for problem in problems_of(done) if BROKEN in problem["where"]}
    assert about == {where}
    # A difference is what `verify` looks for.
    assert code == (1 if command == "verify" else 3)
    assert WHOLE in WORK[command](done)


@pytest.mark.parametrize("breaking", SETTLED.values(), ids=SETTLED)
@pytest.mark.parametrize("command", WORK)
def test_settled_winners_that_cannot_be_read_stop_no_other_meter(
    lake: Lake, meterlake: Run, command: str, breaking: Breaking
) -> None:
    where = breaking(lake)
    code, done = meterlake(*command.split())
    if command in {"aggregate", "nightly --as-of 2026-06-20", "verify"}:
        assert where in {problem["where"] for problem in problems_of(done)}
        assert code == (1 if command == "verify" else 3)
    assert WHOLE in WORK[command](done)


@pytest.mark.parametrize("breaking", (STATES | DEFINITIONS).values(), ids=STATES | DEFINITIONS)
@pytest.mark.parametrize(
    "command",
    [
        f"query --meter {WHOLE} --from 2026-06-01 --to 2026-07-01",
        f"query --meter {WHOLE} --from 2026-06-18 --to 2026-07-01 --bucket hour",
        f"values --meter {WHOLE} --dimension plan",
        f"meter show {WHOLE}",
    ],
)
def test_a_question_about_another_meter_is_answered(
    lake: Lake, meterlake: Run, command: str, breaking: Breaking
) -> None:
    breaking(lake)
    assert meterlake(*command.split())[0] == 0


def footers(body: bytes) -> Breaking:
    """Break the record in the footer of every aggregate file, where the state is lost."""

    def breaking(lake: Lake) -> str:
        lake.storage.delete(paths.state(BROKEN))
        for table in paths.TABLES:
            for file in lake.storage.list(paths.aggregates(table, BROKEN)):
                rows = pl.read_parquet(lake.storage.uri(file.path))
                rows.write_parquet(lake.storage.uri(file.path), metadata={METADATA_KEY: body.decode()})
        return paths.events(BROKEN, DAY - dt.timedelta(days=2))

    return breaking


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'{"files": {}}'])
@pytest.mark.parametrize("command", ["aggregate", "nightly --as-of 2026-06-20", "status"])
def test_a_record_in_a_footer_stops_no_other_meter(
    lake: Lake, meterlake: Run, command: str, body: bytes
) -> None:
    where = footers(body)(lake)
    code, done = meterlake(*command.split())
    assert code == 3
    assert where in {problem["where"] for problem in problems_of(done)}
    assert WHOLE in WORK[command](done)


COMPACTED = {
    "no JSON": "{",
    "nested": "[" * 100_000,
    "no zone": '{"at": "2026-06-19T12:00:00", "replaces": {}}',
    "year 9999": '{"at": "9999-12-31T23:59:59Z", "replaces": {}}',
    "other names": '{"at": "2026-06-19T12:00:00Z", "replaces": {"a.parquet": "1"}}',
}


@pytest.mark.parametrize("record", COMPACTED.values(), ids=COMPACTED)
@pytest.mark.parametrize(
    "command", ["aggregate", "nightly --as-of 2026-06-20", "compact", "status", "retain"]
)
def test_a_record_of_a_compacted_file_stops_nothing(
    lake: Lake, meterlake: Run, command: str, record: str
) -> None:
    path = paths.events(BROKEN, DAY) + f"{paths.COMPACTED}{'0' * 16}.parquet"
    local = Path(lake.storage.uri(path))
    meter = lake.meter(BROKEN)
    put(lake, meter, local.name, event("z"))
    pl.read_parquet(local).write_parquet(local, metadata={COMPACTED_KEY: record, SHA256_KEY: ZERO_SHA256})
    embed_sha256(local)
    code, done = meterlake(*command.split())
    found = problems_of(done)
    if command == "status":
        found += [each for meter in done["meters"] for each in meter["rejected_files"]]
    assert code in {0, 1}
    if command in {"aggregate", "nightly --as-of 2026-06-20", "status"}:
        assert path in {problem["where"] for problem in found}
        assert WHOLE in WORK[command](done)


BODIES = [b"", b"{", b"[]", b'{"a": "\xff"}', b"[" * 100_000, b"{}"]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("name", ["revision=0001/manifest.json", "closed.json"])
@pytest.mark.parametrize("command", ["export --period 2026-06", "nightly --as-of 2026-06-20", "report"])
def test_a_record_of_an_export_stops_no_other_meter(
    lake: Lake, meterlake: Run, command: str, name: str, body: bytes
) -> None:
    path = paths.exports(BROKEN, "2026-06") + name
    lake.storage.publish(path, body)
    code, done = meterlake(*command.split())
    if command != "report" or name != "closed.json":
        assert path in {problem["where"] for problem in problems_of(done)}
        assert code == 3
    if command != "report":
        assert WHOLE in [each["meter"] for each in done["exports"]]


@pytest.mark.parametrize(
    "members",
    [
        {"started_at": "2026-06-19T12:00:00"},
        {"finished_at": "9999-12-31T23:59:59Z"},
        {"partitions": [{"meter": "x"}]},
        {"quarantined": {"a": "1"}},
    ],
)
def test_a_run_report_is_shown_as_unreadable(lake: Lake, meterlake: Run, members: dict[str, Any]) -> None:
    *_, last = lake.storage.list(paths.RUNS)
    document = json.loads(lake.storage.read(last.path) or b"") | members
    lake.storage.publish(last.path, json.dumps(document).encode())
    _, found = meterlake("status", "--runs", "1")
    assert [run["outcome"] for run in found["runs"]] == ["unreadable report"]


@pytest.mark.parametrize("body", BODIES)
def test_a_run_report_that_is_none_is_shown_as_unreadable(lake: Lake, meterlake: Run, body: bytes) -> None:
    *_, last = lake.storage.list(paths.RUNS)
    lake.storage.publish(last.path, body)
    for command in (["status"], ["report", "--as-of", "2026-06-20"]):
        code, _ = meterlake(*command)
        assert code == 0


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("command", ["aggregate", "nightly", "compact", "retain", "verify", "status"])
def test_a_lease_that_cannot_be_read_says_how_to_get_past_it(
    lake: Lake, meterlake: Run, command: str, body: bytes
) -> None:
    lease = f"{paths.LEASE}000000000099.json"
    lake.storage.publish(lease, body)
    code, done = meterlake(command)
    error = done["error"] if "error" in done else problems_of(done)[0]
    assert code == 3
    assert (error["where"], error["kind"]) == (lease, "broken lake")
    assert "--take-lease" in error["hint"]
    lake.storage.delete(lease)
    assert meterlake(command)[0] in {0, 1}


@pytest.mark.parametrize("body", [*BODIES, b'{"source": "x", "landed_at": "2026-06-19T12:00:00"}'])
def test_a_record_of_a_landed_input_stops_that_input_only(
    lake: Lake, meterlake: Run, tmp_path: Path, body: bytes
) -> None:
    line = {"subject": "org_1", "meter": WHOLE, "quantity": 1, "timestamp": f"{DAY}T12:00:00Z"}
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_text(json.dumps(line | {"idempotency_key": file.name}) + "\n")
    path = paths.landed(hashlib.sha256(files[0].read_bytes()).hexdigest())
    lake.storage.publish(path, body)
    code, done = meterlake("land", *map(str, files))
    assert (code, done["events_landed"], [each["status"] for each in done["inputs"]]) == (
        3,
        1,
        ["rejected", "landed"],
    )
    assert [problem["where"] for problem in done["errors"]] == [path]
    assert path in {problem["where"] for problem in meterlake("verify")[1]["errors"]}
    assert meterlake("compact", "--as-of", "2026-06-25")[0] == 0
