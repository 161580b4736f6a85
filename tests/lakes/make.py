# ruff: noqa: E402 - what it imports is found by the path that it sets
"""Makes a lake of every state that a lake can be in, to be kept as files: run it with the program whose lakes it is.

`python tests/lakes/make.py NAME` writes NAME-local/, NAME-s3/ and what their readers said to NAME.json, beside this
file. It was run once, at the commit that NAME is; later programs must read these lakes as that one did.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import polars as pl
from moto.s3.models import s3_backends

from jobs import compact as compaction
from jobs.aggregate.job import aggregate
from jobs.compact import compact
from jobs.export.billing import parse_period
from jobs.export.job import Options, export
from jobs.land.job import land
from jobs.nightly import nightly
from jobs.run_report import RunReport, now, reported
from lake import Lake, paths
from lake.meters import save_meter
from schemas.columns import event_columns
from schemas.errors import MeterlakeError
from schemas.meter import Meter, parse_meter
from storage.lakes import ACCOUNT, answers
from storage.server import KEY, SECRET, running

FIRST = dt.date(2026, 7, 27)
TODAY = dt.date(2026, 9, 10)
PLAN = {"name": "plan", "type": "string", "required": False}
METERS: list[dict[str, Any]] = [
    {
        "name": "calls",
        "unit": "call",
        "aggregation": "sum",
        "event_retention_days": 30,
        "dimensions": [PLAN, {"name": "size", "type": "number", "required": False}],
    },
    {"name": "latency", "unit": "ms", "aggregation": "avg", "event_retention_days": 30, "dimensions": [PLAN]},
    {
        "name": "traffic",
        "unit": "request",
        "aggregation": "rate",
        "event_retention_days": 30,
        "dimensions": [PLAN],
    },
    {
        "name": "seats",
        "unit": "seat",
        "aggregation": "last",
        "event_retention_days": 90,
        "dimensions": [{"name": "workspace", "type": "string"}, PLAN],
    },
    {"name": "a/b ü=1", "unit": "x", "aggregation": "count", "event_retention_days": 90},
    {
        "name": "odd_files",
        "unit": "x",
        "aggregation": "sum",
        "event_retention_days": 90,
        "dimensions": [PLAN],
    },
]


def body(  # noqa: PLR0917 - an event has many parts
    meter: str, key: str | None, subject: str, quantity: Any, day: dt.date, hour: int, **metadata: Any
) -> str:
    """One event as a client sends it."""
    at = dt.datetime.combine(day, dt.time(hour), dt.UTC).isoformat()
    said = {"idempotency_key": key, "subject": subject, "meter": meter, "quantity": quantity, "timestamp": at}
    return json.dumps(said | {"received_at": at, "metadata": metadata}) + "\n"


def events(first: dt.date, days: int, tag: str) -> str:
    """Events of all meters over some days, with retries on the same and on later dates, and rows that break rules."""
    lines = []
    for number in range(days):
        day = first + dt.timedelta(days=number)
        for n in range(4):
            subject, plan = f"org_{n % 3}", ("pro", "team", None)[n % 3]
            lines.append(
                body(
                    "calls",
                    f"{tag}-{number}-{n}",
                    subject,
                    f"{n + 1}.{number:03}",
                    day,
                    n,
                    plan=plan,
                    size=n / 2,
                )
            )
        # Sent again, on a later date, once with another quantity.
        lines.append(
            body("calls", f"{tag}-{number}-1", "org_1", "9", day + dt.timedelta(days=7), 9, plan="team")
        )
        lines.append(body("calls", None, "org_0", "0.1", day, 20))
        if number % 5 == 0:
            for n in range(3):
                lines.append(
                    body("latency", f"{tag}-{number}-{n}", f"org_{n}", f"{n}.333333333", day, n, plan="pro")
                )
                lines.append(body("latency", f"{tag}+{number}-{n}", f"org_{n}", "1", day, n + 1, plan="pro"))
                lines.append(body("traffic", f"{tag}-{number}-{n}", f"org_{n}", n + 7, day, n, plan="pro"))
                lines.append(
                    body("seats", f"{tag}-{number}-{n}", "org_1", n, day, n, workspace=f"w{n}", plan="pro")
                )
            lines.append(body("a/b ü=1", f"{tag}-{number}", "org_1", 1, day, 5))
            lines.append(body("calls", f"bad-{number}", "org_1", -1, day, 5))
            lines.append(body("nobody", f"bad-{number}", "org_1", 1, day, 5))
    return "".join(lines)


def ran(lake: Lake, work: Any) -> None:
    """Run a job with its report."""
    try:
        with reported(lake, "job") as report:
            work(report)
    except MeterlakeError as error:
        print("refused:", error)


def put(lake: Lake, meter: Meter, day: dt.date, name: str, df: pl.DataFrame) -> None:
    """Write a producer's file."""
    local = lake.storage.scratch(".parquet")
    df.write_parquet(local)
    lake.storage.publish_file(paths.events(meter.name, day) + name, local)


def produced(meter: Meter, day: dt.date, *keys: str) -> pl.DataFrame:
    """Events as a producer writes them."""
    at = dt.datetime.combine(day, dt.time(15), dt.UTC)
    rows = [
        {
            "idempotency_key": key,
            "subject": "org_p",
            "quantity": Decimal(3),
            "timestamp": at,
            "received_at": at,
        }
        for key in keys
    ]
    return (
        pl.DataFrame(rows, schema_overrides=event_columns(meter))
        .with_columns(
            pl.lit(None, dtype).alias(name)
            for name, dtype in event_columns(meter).items()
            if name not in rows[0]
        )
        .select(*event_columns(meter))
    )


class Dies(BaseException):
    """The process is gone."""


def fill(lake: Lake, folder: Path) -> None:
    """Everything that can be in a lake."""
    meters = {m["name"]: parse_meter(json.dumps(m).encode(), "make") for m in METERS}
    for meter in meters.values():
        save_meter(lake.storage, meter)
    calls, odd = meters["calls"], meters["odd_files"]

    def landed(name: str, text: str) -> None:
        (folder / name).write_text(text)
        ran(lake, lambda report: land(lake, [str(folder / name)], report))

    # One lake of two halves: all of July and August's first days expire, some with duplicates in open partitions.
    landed("first.jsonl", events(FIRST, 16, "a"))
    ran(lake, lambda report: nightly(lake, report, as_of=dt.date(2026, 8, 12)))
    landed("second.jsonl", events(FIRST + dt.timedelta(days=16), 10, "b"))
    for number in range(3):
        put(
            lake,
            calls,
            dt.date(2026, 8, 20),
            f"producer-{number}.parquet",
            produced(calls, dt.date(2026, 8, 20), f"p{number}", "p"),
        )
    invalid = produced(calls, dt.date(2026, 8, 21), "v1", "v2").with_columns(
        quantity=pl.Series([Decimal(-1), Decimal(2)], dtype=pl.Decimal(38, 9))
    )
    put(lake, calls, dt.date(2026, 8, 21), "half-invalid.parquet", invalid)
    ran(
        lake,
        lambda report: export(
            lake, report, parse_period("2026-07"), meter="calls", options=Options(("plan",))
        ),
    )
    ran(lake, lambda report: nightly(lake, report, as_of=dt.date(2026, 9, 5)))
    ran(lake, lambda report: export(lake, report, parse_period("2026-07"), close=True))
    ran(lake, lambda report: export(lake, report, parse_period("2026-08"), meter="calls", close=True))
    ran(
        lake,
        lambda report: export(
            lake, report, parse_period("2026-08"), meter="latency", options=Options(("plan",))
        ),
    )
    # After the closing: a late event of an open date of the closed month, and one of a sealed date.
    landed(
        "late.jsonl",
        body("calls", "late-1", "org_2", "100", dt.date(2026, 8, 22), 6)
        + body("calls", "late-2", "org_2", "100", dt.date(2026, 7, 28), 6),
    )
    put(
        lake,
        calls,
        dt.date(2026, 7, 29),
        "too-late.parquet",
        produced(calls, dt.date(2026, 7, 29), "too-late"),
    )
    ran(lake, lambda report: nightly(lake, report, as_of=dt.date(2026, 9, 6)))
    ran(lake, lambda report: export(lake, report, parse_period("2026-08"), meter="calls"))

    # Compacted, once long enough ago for the merged files to be gone; on S3 once more, with the merged files there still.
    def later() -> dt.datetime:
        return now() + dt.timedelta(hours=2)

    ran(lake, lambda report: compact(lake, report, as_of=TODAY))
    with mock.patch.object(compaction, "now", later):
        ran(lake, lambda report: compact(lake, report, as_of=TODAY))
    if lake.url.startswith("s3://"):
        for number in range(3, 6):
            put(
                lake,
                calls,
                dt.date(2026, 8, 23),
                f"producer-{number}.parquet",
                produced(calls, dt.date(2026, 8, 23), f"p{number}", "p"),
            )
        ran(lake, lambda report: aggregate(lake, report))
        ran(lake, lambda report: compact(lake, report, as_of=TODAY))
    # Producers' files that can't be counted: no Parquet at all, and a quantity in doubles.
    day = dt.date(2026, 9, 3)
    put(lake, odd, day, "whole.parquet", produced(odd, day, "o1", "o2"))
    lake.storage.publish(paths.events(odd.name, day) + "broken.parquet", b"PAR1 no more than this")
    put(
        lake,
        odd,
        day,
        "doubles.parquet",
        produced(odd, day, "o3").with_columns(pl.col("quantity").cast(pl.Float64)),
    )
    ran(lake, lambda report: nightly(lake, report, as_of=TODAY))
    # An input of which a part has landed.
    (folder / "interrupted.jsonl").write_text(INTERRUPTED)
    published, publish_file = [0], lake.storage.publish_file

    def dies(*about: Any, **options: Any) -> Any:
        published[0] += 1
        if published[0] > 1:
            raise Dies
        return publish_file(*about, **options)

    with mock.patch.object(lake.storage, "publish_file", dies):
        try:
            land(lake, [str(folder / "interrupted.jsonl")], RunReport(job="land", started_at=now()))
        except Dies:
            print("interrupted")


INTERRUPTED = (
    body("a/b ü=1", "i1", "org_i", 1, dt.date(2026, 9, 7), 1)
    + body("a/b ü=1", "i2", "org_i", 1, dt.date(2026, 9, 8), 1)
    + body("a/b ü=1", "i3", "org_i", -1, dt.date(2026, 9, 8), 1)
)


def main() -> None:
    """Make both lakes."""
    name = sys.argv[1]
    found = {}
    (HERE / f"{name}-interrupted.jsonl").write_text(INTERRUPTED)
    with tempfile.TemporaryDirectory() as folder:
        local = Lake.init(str(HERE / f"{name}-local"))
        fill(local, Path(folder))
        (HERE / f"{name}-local" / ".tmp").mkdir(exist_ok=True)
        (HERE / f"{name}-local" / ".tmp" / f"999999-{'0' * 32}.parquet").write_bytes(
            b"left by a process that died"
        )
        found["local"] = answers(local)
    with running() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": server.url,
            "AWS_REGION": "us-east-1",
        }
        s3_backends[ACCOUNT]["aws"].create_bucket("lakes", "us-east-1")
        remote = Lake.init("s3://lakes/lake")
        fill(remote, Path(folder))
        found["s3"] = answers(remote)
        for file in remote.storage.list(""):
            target = HERE / f"{name}-s3" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(remote.storage.read(file.path) or b"")
    (HERE / f"{name}.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
