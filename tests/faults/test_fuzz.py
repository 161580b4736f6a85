"""Damaged and random input in a process of its own, since what must not happen is that the process dies.

`METERLAKE_FUZZ` says how many inputs of each kind are tried, `METERLAKE_FUZZ_SEED` which.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT = os.environ.get("METERLAKE_FUZZ", "60")
SEED = os.environ.get("METERLAKE_FUZZ_SEED", "1")

PROGRAM = """
import gzip, io, json, random, sys
from pathlib import Path
import polars as pl
from jobs.aggregate.job import aggregate
from jobs.land.job import land
from jobs.run_report import reported
from jobs.verify.job import verify
from lake import paths
from support import DAY, a_lake, event, put
folder, kind, count, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
chance = random.Random(f"{kind} {seed}")
lake, meter = a_lake(folder / "lake")

def line(number):
    body = {"idempotency_key": f"k{number}", "subject": "s", "meter": meter.name, "quantity": number + 1,
            "timestamp": f"{DAY}T10:00:00Z", "metadata": {"plan": chance.choice(["pro", "a,b", 'q"q', "=1", None])}}
    return json.dumps(body).encode()

def damaged(body):
    body = bytearray(body)
    for _ in range(chance.choice([1, 1, 3, 20])):
        if not body:
            return b""
        place = chance.randrange(len(body))
        how = chance.randrange(5)
        if how == 0:
            body[place] = chance.randrange(256)
        elif how == 1:
            del body[place : place + chance.choice([1, 10, 1000])]
        elif how == 2:
            body[place:place] = chance.choice([b"null\\n", b"\\0", b"[", b"{", b'"', b"\\n", b"\\xff", b"1e999", b"\\r"])
        elif how == 3:
            start = chance.randrange(len(body))
            body[place:place] = body[start : start + chance.choice([1, 100])]
        else:
            body[place:] = bytes(chance.randrange(256) for _ in range(chance.choice([0, 8, 200])))
    return bytes(body)

lines = b"\\n".join(line(number) for number in range(30))
table = io.BytesIO()
pl.DataFrame({"subject": ["s"] * 30, "meter": [meter.name] * 30, "quantity": range(1, 31), "plan": ["x", None] * 15,
              "timestamp": [f"{DAY}T10:00:00Z"] * 30}).write_parquet(table)
csv = b"subject,meter,quantity,timestamp,plan\\n" + b"\\n".join(
    b's,%s,%d,2026-06-19T10:00:00Z,"a""b,"' % (meter.name.encode(), n) for n in range(1, 31))
whole = {"jsonl": lines, "json": b"[" + lines.replace(b"\\n", b",") + b"]", "csv": csv, "parquet": table.getvalue(),
         "gz": gzip.compress(lines)}

if kind == "producer":
    original = put(lake, meter, "whole.parquet", *(event(f"k{n}") for n in range(30))).read_bytes()
for number in range(count):
    file = folder / f"in-{number}.{kind}"
    file.write_bytes(damaged(original if kind == "producer" else whole[kind]))
    if kind == "producer":
        target = folder / "lake" / paths.events(meter.name, DAY) / f"bad-{number % 3}.parquet"
        target.write_bytes(file.read_bytes())
        with reported(lake, "aggregate") as report:
            aggregate(lake, report)
        assert lake.usage(meter.name).collect().height >= 1
    else:
        with reported(lake, "land") as report:
            land(lake, [str(file)], report)
        said = report.inputs[0]
        assert said["status"] != "landed" or said["events"] + said["quarantined"] or file.stat().st_size < 40, said
    file.unlink()
with reported(lake, "aggregate") as report:
    aggregate(lake, report)
with reported(lake, "verify") as report:
    verify(lake, report)
assert not report.errors, report.errors
"""


# The peak of a process begins with the memory of its parent, which is small here.
BETWEEN = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


def ran(program: str, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", BETWEEN, sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    # The input that it ended with lies in the test's folder.
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return done.stdout.strip()


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "gz", "producer"])
def test_damaged_input_neither_kills_the_process_nor_raises(tmp_path: Path, kind: str) -> None:
    ran(PROGRAM, str(tmp_path), kind, COUNT, SEED)


BOMB = """
import gzip, resource, sys
from pathlib import Path
from jobs.land.job import land
from jobs.run_report import reported
from support import a_lake
lake, _ = a_lake(Path(sys.argv[1]) / "lake")
bomb = Path(sys.argv[1]) / "bomb.jsonl.gz"
with gzip.open(bomb, "wb", compresslevel=1) as file:
    for _ in range(600):
        file.write(sys.argv[2].encode() * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with reported(lake, "land") as report:
    land(lake, [str(bomb)], report)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, report.quarantined)
"""


@pytest.mark.parametrize("character", ["x", " "], ids=["one endless line", "white space"])
def test_a_decompression_bomb_takes_no_memory_of_its_size(tmp_path: Path, character: str) -> None:
    """600 MiB out of 3: read in pieces, rejected as a line that is too long."""
    grown_mib, _, said = ran(BOMB, str(tmp_path), character).partition(" ")
    assert int(grown_mib) < 250
    assert said in {"{'too_large': 1}", "{}"}
