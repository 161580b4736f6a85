"""Write billing revisions: what each subject used in a month, and what changed since it was last told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import polars as pl

from jobs.billing import (
    ADDITIVE,
    Period,
    about,
    adjusted,
    bill,
    changes,
    check_columns,
    in_columns,
    keys_frame,
    shares,
    with_left_out,
)
from jobs.export_files import ADJUSTMENTS, USAGE, Drafts
from jobs.report import ExportReport, Report, now
from lake import Lake, paths
from lake.checksums import rows_checksum
from lake.events import fingerprint
from lake.exports import Close, Manifest, Revisions, ToldRevision, save_close
from lake.freshness import out_of_date
from lake.parts import part_files
from lake.planning import changes as changed_partitions
from lake.readers import aggregate_rows
from lake.recent import RecentRows
from lake.state import PartitionState, load_state, read_record
from lake.storage import Storage, StoredFile
from lake.sums import SUMS, has_no_sum, sum_too_large
from lake.survey import MeterView
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


@dataclass
class Seen:
    """What a run has found of a meter and of one month's exports, so that exporting need not look for it again.

    `known` is what the last revision is known to say, if the run knows. An export brings `files` and `known` up to
    date; `billed` is the checksum of the keys and quantities that it has published from the recent rows.
    """

    view: MeterView
    files: Sequence[StoredFile]
    recent: RecentRows
    known: ToldRevision | None
    is_small: bool = False
    billed: str = ""


class _Export(NamedTuple):
    """One period of one meter, to be exported one way."""

    storage: Storage
    meter: Meter
    period: Period
    options: Options
    seen: Seen | None = None

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
    seen: Seen | None = None,
) -> None:
    """Write a new revision of a month for one meter or all, where anything changed since the one before.

    Exports what has been aggregated. `seen` is what a run that holds the lease has found, of its one meter. With `close` the month is final then: whatever is found later is told by
    revisions that carry adjustments only. A meter that fails is reported and does not keep the others.
    """
    lake.upgrade()
    chosen = options or Options()
    # In one order, so that the order they were asked in makes no other export.
    chosen = chosen._replace(by=tuple(sorted(chosen.by)))
    for each in _meters(lake, report, meter, seen):
        try:
            check_columns(each, chosen.by, chosen.columns)
            with report.stage("export"):
                done = _export(_Export(lake.storage, each, period, chosen, seen), close=close)
            report.exports.append(done)
            if done.left_out:
                report.problem(sum_too_large(f"meter {each.name!r}, {period}", done.left_out))
        except LeaseLostError:
            raise
        except MeterlakeError as error:
            report.problem(error)


def _meters(lake: Lake, report: Report, meter: str | None, seen: Seen | None) -> Sequence[Meter]:
    if seen:
        return [seen.view.meter]
    return [lake.meter(meter)] if meter else lake.meters(report.problem)


def _export(export: _Export, *, close: bool) -> ExportReport:
    seen = export.seen
    revisions = Revisions(
        export.storage, export.folder, seen.files if seen else None, seen.known if seen else None
    )
    closed = revisions.close()
    rows, inputs = _rows(export)
    done = ExportReport(
        meter=export.meter.name, period=str(export.period), action="unchanged", folder=export.folder
    )
    done.revision = revisions.last
    done.out_of_date = _out_of_date(export)
    if close and closed is None:
        _check_close(export, done.out_of_date)
    last = revisions.told(revisions.last) if revisions.last else None
    # A month without usage makes no revision, until it is closed or was told otherwise before.
    if (last is None and (inputs or close)) or (last is not None and last.inputs != fingerprint(inputs)):
        _revise(export, revisions, rows, inputs, done, closed)
    elif last is not None:
        done.left_out = revisions.left_out(revisions.last)
    if not done.revision:
        done.action = "nothing used"
    elif close and closed is None:
        if done.left_out:
            raise _lacks_rows(export, done)
        sha256 = revisions.told(done.revision).sha256
        save_close(export.storage, export.folder, Close(revision=done.revision, manifest_sha256=sha256))
    done.closed = closed is not None or (close and done.revision > 0)
    if seen:
        seen.known = revisions.told(done.revision) if done.revision else None
        if seen.known and done.action == "exported":
            seen.known = seen.known._replace(quantities=seen.billed)
        seen.files = [*revisions.files.values()]
        if not all(file.identity for file in seen.files):
            seen.files = export.storage.list(export.folder)
    return done


def _revise(  # noqa: PLR0913, PLR0917 - of one export, taken apart by what it found
    export: _Export,
    revisions: Revisions,
    rows: pl.LazyFrame,
    inputs: dict[str, str],
    done: ExportReport,
    closed: Close | None,
) -> None:
    """Make the next revision, unless its rows are those of the one before."""
    last = revisions.last
    made = Drafts(export.storage, additive=export.meter.aggregation in ADDITIVE)
    try:
        usage, done.left_out = _usage(export, rows, made)
        if last:
            before = _before(export, revisions)
            # What has no number now is as it was stated last, until it has one.
            unknown = keys_frame(before, done.left_out, export.keys)
            before = before.join(unknown, on=export.keys, how="anti", nulls_equal=True)
            # By the rows of both revisions, since whole subjects may have come and gone.
            parts = shares(pl.concat([before.select("subject"), usage.select("subject")]))
            told = [_adjustments(export, before.filter(share), usage.filter(share)) for share in parts]
            adjustments = made.parquet(f"{ADJUSTMENTS}.parquet", told)
            changed = adjustments.select(pl.len()).collect().item()
            same = done.left_out == revisions.left_out(last) and not changed
            if not changed and (closed or (same and _same_rows(revisions, last, usage, parts))):
                return
            done.adjustments = changed
            made.csv(f"{ADJUSTMENTS}.csv", adjustments, full=True, safe=export.options.csv_safe)
        if closed:
            made.drop(f"{USAGE}.parquet")
        else:
            chosen = export.options
            shown = in_columns(usage, chosen.by, chosen.columns)
            made.csv(f"{USAGE}.csv", shown, full=chosen.columns == "default", safe=chosen.csv_safe)
        manifest = _manifest(export, revisions, inputs, made, closed)
        if done.left_out:
            manifest = msgspec.structs.replace(manifest, left_out=done.left_out)
        if export.seen and export.seen.is_small and not closed and not done.left_out:
            export.seen.billed = rows_checksum(usage.select(*export.keys, "quantity").collect())
        publish_revision(revisions, manifest, made)
    finally:
        made.clear()
    done.action, done.revision = "exported", manifest.revision
    done.rows = manifest.files[f"{USAGE}.csv"].rows if not closed else 0
    done.bytes_written = sum(file.size_bytes for file in manifest.files.values())


def _usage(export: _Export, rows: pl.LazyFrame, made: Drafts) -> tuple[pl.LazyFrame, list[dict[str, Any]]]:
    """Write the rows that are billed; gives them, and the keys of those that have no number, since a sum is too large."""
    name = f"{USAGE}.parquet"
    usage = made.parquet(name, [_bill(export, rows.filter(share)) for share in shares(rows)])
    left_out = usage.filter(has_no_sum(SUMS)).select(export.keys).collect(engine="streaming")
    if left_out.height:
        whole = made.local[name]
        usage = made.parquet(name, [usage.filter(~has_no_sum(SUMS))])
        whole.unlink()
    return usage, left_out.to_dicts()


def publish_revision(revisions: Revisions, manifest: Manifest, made: Drafts) -> None:
    """Publish what was made; a step of its own, since it is the one that a full disk fails."""
    revisions.publish(manifest, made.local)


def _before(export: _Export, revisions: Revisions) -> pl.LazyFrame:
    """What the last revision states, from the rows that it was made of if they are at hand, else from its files."""
    seen = export.seen
    if seen and seen.is_small and seen.known and seen.known.quantities:
        rows = seen.recent.before(*export.period)
        told = _bill(export, rows).select(*export.keys, "quantity").collect()
        if rows_checksum(told) == seen.known.quantities:
            return told.lazy()
    return quantities(revisions, revisions.last, export.keys)


def quantities(revisions: Revisions, number: int, keys: Sequence[str]) -> pl.LazyFrame:
    """The keys and quantities that a revision states: its own rows, or since the close those with all adjustments.

    A row that it leaves out is as the revision before stated it.
    """
    earlier = max((each for each in revisions.numbers if each < number), default=0)
    if revisions.kind(number) == USAGE:
        usage = revisions.scan(number, f"{USAGE}.parquet").select(*keys, "quantity")
        left_out = revisions.left_out(number)
        if not (left_out and earlier):
            return usage
        return with_left_out(usage, left_out, quantities(revisions, earlier, keys), keys)
    before = quantities(revisions, earlier, keys)
    return adjusted(before, revisions.scan(number, f"{ADJUSTMENTS}.parquet"), keys)


def _rows(export: _Export) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The rows to be billed, and the fingerprint of the inputs of each date with events.

    Raises BrokenLakeError where the rows are not those of the last aggregation, which was interrupted then.
    """
    start, end = export.period
    seen = export.seen
    state = seen.view.state if seen else load_state(export.storage, export.meter.name)
    records = {
        date: record for date, record in state.partitions.items() if start <= date < end and record.events
    }
    expected = {date.isoformat(): record.fingerprint for date, record in sorted(records.items())}
    recent = seen.recent.of(records) if seen and not export.options.by else None
    if seen and recent is not None:
        seen.is_small = True
        return recent.lazy(), expected
    _check_files(export, records)
    return aggregate_rows(export.storage, export.meter, export.table, (start, end)), expected


def _check_files(export: _Export, records: Mapping[dt.date, PartitionState]) -> None:
    """Whether the very files that are exported name the inputs that their records tell of."""
    start, end = export.period
    expected = {date: record.fingerprint for date, record in records.items()}
    found = {}
    listed = part_files(export.storage, paths.aggregates(export.table, export.meter.name))
    files = {date: file for date, file in listed.items() if start <= date < end}
    # Their footers are read here, and then their rows.
    export.storage.prefetch(list(files.values()))
    for date, file in files.items():
        record = read_record(export.storage, file)
        # A sealed date without events has a file too, of no rows.
        if record is None or record.events:
            found[date] = record.fingerprint if record else ""
    if found != expected:
        wrong = sorted(
            date for date in found.keys() | expected.keys() if found.get(date) != expected.get(date)
        )
        raise BrokenLakeError(
            "the aggregates are not those of one finished aggregation",
            where=f"meter {export.meter.name!r}",
            found=f"differences on {len(wrong)} dates: {', '.join(map(str, wrong[:MAX_DATES]))}",
            hint=_how_to_mend(export, wrong, records),
        )


def _how_to_mend(export: _Export, wrong: Sequence[dt.date], records: Mapping[dt.date, PartitionState]) -> str:
    """Return what makes these dates' tables those of their records again."""
    if any(date in records and records[date].sealed_at for date in wrong):
        return (
            "restore the files of sealed dates from a backup; for others run: meterlake aggregate --rebuild"
        )
    known = {date.isoformat() for date in wrong} <= _out_of_date(export).keys()
    return "run: meterlake aggregate" if known else "run: meterlake aggregate --rebuild"


def _out_of_date(export: _Export) -> dict[str, str]:
    """The period's dates that are out of date, of which an export tells what was aggregated last, and why."""
    start, end = export.period
    if export.seen:
        view = export.seen.view
        found = changed_partitions(view.files, view.state, view.meter.version)
        return {date.isoformat(): change.why for date, change in found.items() if start <= date < end}
    state = load_state(export.storage, export.meter.name)
    stale = out_of_date(export.storage, export.meter, state, start, end)
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


def _lacks_rows(export: _Export, done: ExportReport) -> RefusedError:
    error = sum_too_large(export.folder, done.left_out)
    return RefusedError(
        "the period can't be closed without a row",
        where=export.folder,
        expected="a number for each subject",
        found=f"a sum that is too large, {error.found}",
        hint=error.hint,
    )


def _bill(export: _Export, rows: pl.LazyFrame) -> pl.LazyFrame:
    return bill(rows, export.meter, export.period, export.options.by)


def _adjustments(export: _Export, before: pl.LazyFrame, usage: pl.LazyFrame) -> pl.LazyFrame:
    constant = about(export.meter, export.period)
    return changes(before, usage, export.keys).select(*constant, pl.all())


def _same_rows(revisions: Revisions, number: int, usage: pl.LazyFrame, parts: Sequence[pl.Expr]) -> bool:
    """Whether these rows are those of a revision, whatever their inputs; looks at one part after the other."""
    before = revisions.scan(number, f"{USAGE}.parquet")
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
    export: _Export, revisions: Revisions, inputs: dict[str, str], made: Drafts, closed: Close | None
) -> Manifest:
    meter, options, last = export.meter, export.options, revisions.last
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
        previous_sha256=revisions.told(last).sha256 if last else None,
        inputs=inputs,
        files=made.described(),
    )
