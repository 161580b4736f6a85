"""Lakes on any storage, for tests: events written as a producer would, and what is in the lake at the end."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import polars as pl
from moto.s3.models import s3_backends

from jobs.nightly import nightly
from jobs.run_report import RunReport, reported
from lake import Lake, paths
from lake.meters import save_meter
from lake.state.state_file import load_state
from schemas.columns import event_columns
from schemas.meter import Meter, encode_name, parse_meter
from support import METER

ACCOUNT = "123456789012"


def defined(lake: Lake, name: str = "active_users", **changes: Any) -> Meter:
    """Add a meter."""
    meter = parse_meter(json.dumps(METER | {"name": name} | changes).encode(), "test")
    save_meter(lake.storage, meter)
    return meter


def parquet(meter: Meter, *events: dict[str, Any]) -> bytes:
    """A producer's file."""
    columns = event_columns(meter)
    body = io.BytesIO()
    pl.DataFrame([{c: e.get(c) for c in columns} for e in events], schema=columns).write_parquet(body)
    return body.getvalue()


def put(lake: Lake, meter: Meter, name: str, day: dt.date, *events: dict[str, Any]) -> str:
    """Write events into a partition; gives the path."""
    path = paths.events(meter.name, day) + name
    lake.storage.publish(path, parquet(meter, *events))
    return path


def fill(lake: Lake, contents: dict[str, bytes]) -> None:
    """Put files into a lake on the test server, past its door, which is faster."""
    bucket, _, prefix = lake.url.removeprefix("s3://").partition("/")
    for path, body in contents.items():
        s3_backends[ACCOUNT]["aws"].put_object(bucket, f"{prefix}/{path}", body)


def night(lake: Lake, as_of: dt.date) -> RunReport:
    """Run the nightly job."""
    return ran(lake, lambda report: nightly(lake, report, as_of=as_of))


def ran(lake: Lake, work: Callable[[RunReport], None]) -> RunReport:
    """Run a job with a report."""
    with reported(lake, "test") as report:
        work(report)
    return report


def ending(lake: Lake, *meters: str) -> dict[str, Any]:
    """What counts of a lake: the rows of the three tables, the records of the partitions, and the events left."""
    found: dict[str, Any] = {}
    for meter in meters:
        for table in paths.TABLES:
            found[f"{meter} {table}"] = getattr(lake, table)(meter).collect().rows()
        found[f"{meter} events"] = lake.events(meter).sort("date", "idempotency_key").collect().rows()
        found[f"{meter} state"] = {
            date: (record.events, record.duplicates, record.conflicts, record.losers, bool(record.sealed_at))
            for date, record in load_state(lake.storage, meter).partitions.items()
        }
        files = (file.path.rsplit("/", 2)[-2:] for file in lake.storage.list(paths.events(meter)))
        found[f"{meter} files"] = list(files)
        # Of each month the usage that was told last, whatever the number of the revision.
        listed = (file.path for file in lake.storage.list(f"{paths.EXPORTS}{encode_name(meter)}/"))
        told = {path.split("/")[2]: path for path in listed if path.endswith(f"/{paths.MANIFEST}")}
        for period, manifest in told.items():
            usage = manifest.removesuffix(paths.MANIFEST) + "usage.csv"
            found[f"{meter} {period}"] = lake.storage.read(usage)
    return found


def answers(lake: Lake) -> dict[str, Any]:
    """Everything that readers find in a lake, as JSON has it: tables, events, duplicates, totals and exports."""
    found: dict[str, Any] = {}
    for meter in lake.meters():
        tables = {table: getattr(lake, table)(meter.name).collect() for table in paths.TABLES}
        tables["events"] = lake.events(meter.name).drop("received_at").sort(pl.all()).collect()
        tables["duplicates"] = (
            lake.duplicates(meter.name).select("date", "idempotency_key", "conflict").sort(pl.all()).collect()
        )
        tables["totals"] = lake.totals(meter.name, by=["subject"]).collect()
        found[meter.name] = {
            name: [[str(v) for v in row] for row in df.rows()] for name, df in tables.items()
        }
        listed = [file.path for file in lake.storage.list(f"{paths.EXPORTS}{encode_name(meter.name)}/")]
        found[meter.name]["exports"] = {
            path: (lake.storage.read(path) or b"").decode() for path in listed if path.endswith(".csv")
        }
    return found


def as_json(document: Any) -> str:
    """A report as people get it."""
    return msgspec.json.encode(document).decode()
