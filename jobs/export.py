"""Write billing revisions: what each subject used in a month, and what changed since it was last told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from jobs.billing import ADDITIVE, Period, about, adjusted, bill, changes, check_columns, in_columns, shares
from jobs.export_files import ADJUSTMENTS, USAGE, Drafts
from jobs.report import ExportReport, Report, now
from lake import Lake, paths
from lake.exports import (
    Close,
    Manifest,
    load_close,
    load_manifests,
    manifest_sha256,
    publish_revision,
    save_close,
    scan_revision,
)
from lake.freshness import out_of_date
from lake.readers import aggregate_rows
from lake.state import load_state, read_record
from lake.storage import Storage
from schemas.errors import BrokenLakeError, LeaseLostError, MeterlakeError, RefusedError
from schemas.meter import Meter

# Of many dates, how many an error names.
MAX_DATES = 3


class Options(NamedTuple):
    """What makes an export another one than the usual: dimensions, columns of the CSV, and harmless cells."""

    by: tuple[str, ...] = ()
    columns: str = "default"
    csv_safe: bool = False

    @property
    def variant(self) -> list[str]:
        """The folders that these choices add to the path; none for the usual export."""
        by = [f"by={','.join(self.by)}"] if self.by else []
        columns = [f"columns={self.columns}"] if self.columns != "default" else []
        return by + columns + (["csv=safe"] if self.csv_safe else [])


class _Export(NamedTuple):
    """One period of one meter, to be exported one way."""

    storage: Storage
    meter: Meter
    period: Period
    options: Options

    @property
    def folder(self) -> str:
        return paths.exports(self.meter.name, str(self.period), *self.options.variant)

    @property
    def keys(self) -> list[str]:
        return ["subject", *self.options.by]

    @property
    def table(self) -> str:
        return "usage" if self.options.by else "usage_by_subject"


def export(  # noqa: PLR0913 - what to export, and how
    lake: Lake,
    report: Report,
    period: Period,
    *,
    meter: str | None = None,
    options: Options | None = None,
    close: bool = False,
) -> None:
    """Write a new revision of a month for one meter or all, where anything changed since the one before.

    Exports what has been aggregated. With `close` the month is final then: whatever is found later is told by
    revisions that carry adjustments only. A meter that fails is reported and does not keep the others.
    """
    chosen = options or Options()
    # In one order, so that the order they were asked in makes no other export.
    chosen = chosen._replace(by=tuple(sorted(chosen.by)))
    for each in [lake.meter(meter)] if meter else lake.meters(report.problem):
        try:
            check_columns(each, chosen.by, chosen.columns)
            with report.stage("export"):
                report.exports.append(_export(_Export(lake.storage, each, period, chosen), close=close))
        except LeaseLostError:
            raise
        except MeterlakeError as error:
            report.problem(error)


def _export(export: _Export, *, close: bool) -> ExportReport:
    manifests = load_manifests(export.storage, export.folder)
    closed = load_close(export.storage, export.folder)
    inputs = _inputs(export)
    done = ExportReport(
        meter=export.meter.name, period=str(export.period), action="unchanged", folder=export.folder
    )
    done.revision = max(manifests, default=0)
    done.out_of_date = _out_of_date(export)
    if close and closed is None:
        _check_close(export, done.out_of_date)
    last = manifests.get(done.revision)
    # A month without usage makes no revision, until it is closed or was told otherwise before.
    if (last is None and (inputs or close)) or (last is not None and last.inputs != inputs):
        _revise(export, manifests, inputs, done, closed)
    if not done.revision:
        done.action = "nothing used"
    elif close and closed is None:
        sha256 = manifest_sha256(export.storage, export.folder, done.revision)
        save_close(export.storage, export.folder, Close(revision=done.revision, manifest_sha256=sha256))
    done.closed = bool(load_close(export.storage, export.folder))
    return done


def _revise(
    export: _Export,
    manifests: dict[int, Manifest],
    inputs: dict[str, str],
    done: ExportReport,
    closed: Close | None,
) -> None:
    """Make the next revision, unless its rows are those of the one before."""
    storage, last = export.storage, manifests.get(done.revision)
    made = Drafts(storage, additive=export.meter.aggregation in ADDITIVE)
    try:
        rows = _rows(export)
        usage = made.parquet(
            f"{USAGE}.parquet", [_bill(export, rows.filter(share)) for share in shares(rows)]
        )
        if last is not None:
            before = quantities(storage, export.folder, manifests, done.revision)
            # By the rows of both revisions, since whole subjects may have come and gone.
            parts = shares(pl.concat([before.select("subject"), usage.select("subject")]))
            told = [_adjustments(export, before.filter(share), usage.filter(share)) for share in parts]
            adjustments = made.parquet(f"{ADJUSTMENTS}.parquet", told)
            changed = adjustments.select(pl.len()).collect().item()
            if not changed and (closed or _same_rows(export, done.revision, usage, parts)):
                return
            done.adjustments = changed
            made.csv(f"{ADJUSTMENTS}.csv", adjustments, full=True, safe=export.options.csv_safe)
        if closed:
            made.drop(f"{USAGE}.parquet")
        else:
            chosen = export.options
            shown = in_columns(usage, chosen.by, chosen.columns)
            made.csv(f"{USAGE}.csv", shown, full=chosen.columns == "default", safe=chosen.csv_safe)
        manifest = _manifest(export, done.revision, inputs, made, closed)
        publish_revision(storage, export.folder, manifest, made.local)
    finally:
        made.clear()
    done.action, done.revision = "exported", manifest.revision
    done.rows = manifest.files[f"{USAGE}.csv"].rows if not closed else 0
    done.bytes_written = sum(file.size_bytes for file in manifest.files.values())


def quantities(storage: Storage, folder: str, manifests: dict[int, Manifest], revision: int) -> pl.LazyFrame:
    """The keys and quantities that a revision states: its own rows, or since the close those with all adjustments."""
    manifest = manifests[revision]
    if manifest.kind == USAGE:
        rows = scan_revision(storage, folder, revision, f"{USAGE}.parquet")
        return rows.select(*manifest.keys, "quantity")
    earlier = max(number for number in manifests if number < revision)
    before = quantities(storage, folder, manifests, earlier)
    return adjusted(before, scan_revision(storage, folder, revision, f"{ADJUSTMENTS}.parquet"), manifest.keys)


def _inputs(export: _Export) -> dict[str, str]:
    """The fingerprint of the inputs of each date with events, as the very files that are exported name it.

    Raises BrokenLakeError where they are not those of the last aggregation, which was interrupted then.
    """
    start, end = export.period
    state = load_state(export.storage, export.meter.name)
    records = {
        date: record for date, record in state.partitions.items() if start <= date < end and record.events
    }
    expected = {date.isoformat(): record.fingerprint for date, record in sorted(records.items())}
    found = {}
    listed = export.storage.list(paths.aggregates(export.table, export.meter.name))
    places = [(file, paths.split_partition(file.path)) for file in listed]
    # Their footers are read here, and then their rows.
    export.storage.prefetch([file for file, place in places if place and start <= place.date < end])
    for file, place in places:
        if place and start <= place.date < end:
            record = read_record(export.storage, file)
            # A sealed date without events has a file too, of no rows.
            if record is None or record.events:
                found[place.date.isoformat()] = record.fingerprint if record else ""
    if found != expected:
        wrong = sorted(
            date for date in found.keys() | expected.keys() if found.get(date) != expected.get(date)
        )
        raise BrokenLakeError(
            "the aggregates are not those of one finished aggregation",
            where=f"meter {export.meter.name!r}",
            found=f"differences on {len(wrong)} dates: {', '.join(wrong[:MAX_DATES])}",
            hint="run: meterlake aggregate",
        )
    return expected


def _out_of_date(export: _Export) -> dict[str, str]:
    """The period's dates that are out of date, of which an export tells what was aggregated last, and why."""
    state = load_state(export.storage, export.meter.name)
    stale = out_of_date(export.storage, export.meter, state, export.period.start, export.period.end)
    return {date.isoformat(): why for date, why in stale.items()}


def _check_close(export: _Export, stale: dict[str, str]) -> None:
    """Raises RefusedError for a period that is not over, or that has usage which is not aggregated yet."""
    over = export.period.end <= now().date()
    if over and not stale:
        return
    first = [f"{date} ({why})" for date, why in stale.items()][:MAX_DATES]
    raise RefusedError(
        "the period can't be closed",
        where=export.folder,
        expected="aggregates up to date with the files that are there" if over else "a month that is over",
        found=f"{len(stale)} out of date: {', '.join(first)}" if over else str(export.period),
        hint="run: meterlake aggregate" if over else "",
    )


def _rows(export: _Export) -> pl.LazyFrame:
    dates = (export.period.start, export.period.end)
    return aggregate_rows(export.storage, export.meter, export.table, dates)


def _bill(export: _Export, rows: pl.LazyFrame) -> pl.LazyFrame:
    return bill(rows, export.meter, export.period, export.options.by)


def _adjustments(export: _Export, before: pl.LazyFrame, usage: pl.LazyFrame) -> pl.LazyFrame:
    constant = about(export.meter, export.period)
    return changes(before, usage, export.keys).select(*constant, pl.all())


def _same_rows(export: _Export, revision: int, usage: pl.LazyFrame, parts: Sequence[pl.Expr]) -> bool:
    """Whether these rows are those of a revision, whatever their inputs; looks at one part after the other."""
    before = scan_revision(export.storage, export.folder, revision, f"{USAGE}.parquet")
    columns = usage.collect_schema().names()
    if before.collect_schema() != usage.collect_schema():
        return False
    return not any(
        one.filter(share)
        .join(other.filter(share), on=columns, how="anti", nulls_equal=True)
        .select(pl.len())
        .collect(engine="streaming")
        .item()
        for share in parts
        for one, other in ((before, usage), (usage, before))
    )


def _manifest(
    export: _Export, last: int, inputs: dict[str, str], made: Drafts, closed: Close | None
) -> Manifest:
    meter, options = export.meter, export.options
    return Manifest(
        meter=meter.name,
        period=str(export.period),
        revision=last + 1,
        kind=ADJUSTMENTS if closed else USAGE,
        unit=meter.unit,
        aggregation=meter.aggregation,
        group_by=list(options.by),
        columns=options.columns,
        csv_safe=options.csv_safe,
        meter_version=meter.version,
        previous_sha256=manifest_sha256(export.storage, export.folder, last) if last else None,
        inputs=inputs,
        files=made.described(),
    )
