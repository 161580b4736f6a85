"""Make the next revision of an export: its files, adjustments and manifest, and publish them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from jobs.export.billing import (
    adjustments_as_decimals,
    adjustments_between,
    apply_adjustments,
    bill,
    constant_columns,
    in_columns,
    is_additive,
    keys_frame,
    subject_ranges,
    usage_as_decimals,
    with_omitted_rows,
)
from jobs.export.files import ADJUSTMENTS, USAGE, Drafts
from jobs.export.inputs import BilledEvents, event_fingerprints, has_same_events
from jobs.export.month import MonthExport
from jobs.run_report import ExportAction, ExportReport
from lake.aggregates.sums import lacks_quantity
from lake.revisions import Close, Manifest, Revisions
from schemas.columns import MEASURES
from schemas.validation import Frame, check_exported_adjustments, check_exported_usage


def revise(  # noqa: PLR0913 - of one export, taken apart by what it found
    export: MonthExport,
    revisions: Revisions,
    rows: pl.LazyFrame,
    done: ExportReport,
    closed: Close | None,
    *,
    may_be_empty: bool,
) -> None:
    """Make the next revision, unless it has the same rows as the one before, or is the first and has none.

    If a closed month differs although its events are the same, it gets a revision only on request.
    """
    made = Drafts(export.storage, additive=is_additive(export.meter))
    try:
        usage, done.omitted_rows = _usage(export, rows, made)
        if revisions.last:
            if not _adjust(export, revisions, usage, made, done):
                return
        elif not (may_be_empty or done.omitted_rows or usage.head(1).collect().height):
            # The month has only levels that are carried into it, all of them 0 or too old.
            return
        if closed:
            made.drop(f"{USAGE}.parquet")
        else:
            chosen = export.options
            shown = in_columns(usage, chosen.by, chosen.columns)
            made.csv(f"{USAGE}.csv", shown, full=chosen.columns == "default", safe=chosen.csv_safe)
        manifest = _manifest(export, revisions, made, closed)
        if done.omitted_rows:
            manifest = msgspec.structs.replace(manifest, left_out=done.omitted_rows)
        publish_revision(revisions, manifest, made)
    finally:
        made.clear()
    done.action, done.revision = ExportAction.EXPORTED, manifest.revision
    done.rows = manifest.files[f"{USAGE}.csv"].rows if not closed else 0
    done.bytes_written = sum(file.size_bytes for file in manifest.files.values())


def _adjust(
    export: MonthExport, revisions: Revisions, usage: pl.LazyFrame, made: Drafts, done: ExportReport
) -> bool:
    """Write the adjustments since the last revision; return False if there is nothing to publish."""
    before = quantities(revisions, revisions.last, export.keys)
    # Omitted rows are not adjusted: they keep their last quantity until they have a new one.
    omitted = keys_frame(before, done.omitted_rows, export.keys)
    before = before.join(omitted, on=export.keys, how="anti", nulls_equal=True)
    # By the rows of both revisions: whole subjects may be in one of them only.
    parts = subject_ranges(pl.concat([before.select("subject"), usage.select("subject")]))
    changed_rows = [_adjustments(export, before.filter(share), usage.filter(share)) for share in parts]
    name = f"{ADJUSTMENTS}.parquet"

    def check(rows: Frame) -> None:
        check_exported_adjustments(rows, export.meter, export.options.by, export.folder + name)

    adjustments = made.parquet(name, changed_rows, check)
    changed = adjustments.select(pl.len()).collect().item()
    same = done.omitted_rows == revisions.left_out(revisions.last) and not changed
    if not changed and (revisions.is_closed or (same and _same_rows(revisions, usage, parts))):
        return False
    if revisions.is_closed and not export.on_request and _same_events(export, revisions, usage, parts):
        done.pending_adjustments = changed
        return False
    done.adjustments = changed
    made.csv(f"{ADJUSTMENTS}.csv", adjustments, full=True, safe=export.options.csv_safe)
    return True


def publish_revision(revisions: Revisions, manifest: Manifest, made: Drafts) -> None:
    """Publish the files of a revision, the manifest last; a function of its own, so that tests can let it fail."""
    revisions.publish(manifest, made.local)


def quantities(revisions: Revisions, number: int, keys: Sequence[str]) -> pl.LazyFrame:
    """Return keys and quantities of a revision: its own rows or, after the close, those with all adjustments.

    Rows that it omits have the quantities of the revision before.
    """
    earlier = max((each for each in revisions.numbers if each < number), default=0)
    if revisions.kind(number) == USAGE:
        usage = usage_as_decimals(revisions.scan(number, f"{USAGE}.parquet")).select(*keys, "quantity")
        omitted = revisions.left_out(number)
        if not (omitted and earlier):
            return usage
        return with_omitted_rows(usage, omitted, quantities(revisions, earlier, keys), keys)
    before = quantities(revisions, earlier, keys)
    return apply_adjustments(
        before, adjustments_as_decimals(revisions.scan(number, f"{ADJUSTMENTS}.parquet")), keys
    )


def _usage(
    export: MonthExport, rows: pl.LazyFrame, made: Drafts
) -> tuple[pl.LazyFrame, list[dict[str, Any]]]:
    """Write the billed rows; return them, and the keys of the rows that are omitted, since a sum is too large."""
    name = f"{USAGE}.parquet"

    def check(rows: Frame) -> None:
        billed = rows.filter(~lacks_quantity())
        check_exported_usage(billed, export.meter, export.options.by, export.folder + name)

    usage = made.parquet(name, [_bill(export, rows.filter(share)) for share in subject_ranges(rows)], check)
    omitted = usage.filter(lacks_quantity()).select(export.keys).collect(engine="streaming")
    if omitted.height:
        all_rows = made.local[name]
        usage = made.parquet(name, [usage.filter(~lacks_quantity())])
        all_rows.unlink()
    return usage, omitted.to_dicts()


def _bill(export: MonthExport, rows: pl.LazyFrame) -> pl.LazyFrame:
    return bill(rows, export.meter, export.period, export.options.by)


def _adjustments(export: MonthExport, before: pl.LazyFrame, usage: pl.LazyFrame) -> pl.LazyFrame:
    constant = constant_columns(export.meter, export.period)
    return adjustments_between(before, usage, export.keys).select(*constant, pl.all())


def _same_rows(revisions: Revisions, usage: pl.LazyFrame, parts: Sequence[pl.Expr]) -> bool:
    """Return whether the last revision has the same rows, whatever its inputs."""
    before = usage_as_decimals(revisions.scan(revisions.last, f"{USAGE}.parquet"))
    return before.collect_schema() == usage.collect_schema() and _equal(before, usage, parts)


def _same_events(
    export: MonthExport, revisions: Revisions, usage: pl.LazyFrame, parts: Sequence[pl.Expr]
) -> bool:
    """Return whether the last revision was made of the same events: then only the definition or the program changed.

    If its events are not known, all measures but the quantity are compared.
    """
    last = revisions.last
    known = export.compared_with or _events_of(revisions.manifest(last))
    if known.rows or known.files:
        return has_same_events(known, export.state, export.period)
    if revisions.kind(last) != USAGE:
        return False
    before = revisions.scan(last, f"{USAGE}.parquet")
    columns = [*export.keys, *(name for name in MEASURES if name != "quantity")]
    old, new = (rows.filter(pl.col("events") > 0).select(columns) for rows in (before, usage))
    return _equal(old, new, parts)


def _events_of(manifest: Manifest) -> BilledEvents:
    return BilledEvents(manifest.carry_days or 0, manifest.event_rows or "", manifest.event_files or "")


def _equal(before: pl.LazyFrame, after: pl.LazyFrame, parts: Sequence[pl.Expr]) -> bool:
    """Return whether two frames with the same columns have the same rows; compares one part after the other."""
    columns = after.collect_schema().names()
    return not any(
        one.filter(share)
        .join(other.filter(share), on=columns, how="anti", nulls_equal=True)
        .select(pl.len())
        .collect(engine="streaming")
        .item()
        for share in parts
        for one, other in ((before, after), (after, before))
    )


def _manifest(export: MonthExport, revisions: Revisions, made: Drafts, closed: Close | None) -> Manifest:
    meter, options, last = export.meter, export.options, revisions.last
    events = event_fingerprints(export.records)
    series = msgspec.UNSET if meter.series is None else sorted(meter.series)
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
        series=series,
        meter_version=meter.version,
        previous_sha256=revisions.sha256(last) if last else None,
        inputs=export.inputs,
        files=made.described(),
        event_rows=events.rows,
        event_files=events.files,
        carry_days=export.carry_days or msgspec.UNSET,
    )
