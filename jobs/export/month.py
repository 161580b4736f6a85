"""The export of one month of one meter in one form: its options, dates, inputs and folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.export.billing import COLUMN_SETS, Period
from jobs.export.inputs import BilledEvents, inputs_by_date, month_records
from lake import paths
from lake.calendar import days_before
from lake.state.records import MeterState, PartitionState
from lake.storage import Storage, StoredFile
from schemas.meter import Meter

# An error names at most this many dates.
MAX_DATES = 3


class Options(NamedTuple):
    """The options of an export: dimensions beside the subject, columns of the CSV, and escaped formulas."""

    by: tuple[str, ...] = ()
    columns: str = "default"
    csv_safe: bool = False

    @property
    def variant(self) -> list[str]:
        """The folders that these options add to the path; none for the usual form."""
        by = [f"by={','.join(self.by)}"] if self.by else []
        columns = [f"columns={self.columns}"] if self.columns != "default" else []
        return by + columns + (["csv=safe"] if self.csv_safe else [])

    @classmethod
    def of_variant(cls, variant: Sequence[str]) -> Options | None:
        """Return the options that add these folders to the path; None if no export has them."""
        parts = dict(part.partition("=")[::2] for part in variant)
        by, columns = parts.get("by", ""), parts.get("columns", "default")
        options = cls(tuple(sorted({*by.split(",")})) if by else (), columns, "csv" in parts)
        return options if options.variant == list(variant) and columns in COLUMN_SETS else None


class MonthExport(NamedTuple):
    """The export of one period of one meter in one form; `on_request` if a person asked for it, not a night.

    Levels of `carry_days` before the period are carried into it, of 0 if it has not begun. `stale` has the meter's dates
    that are out of date, with the reason; `files` are those of its folder, if the run has listed all exports, and
    `compared_with` the events with which a night last compared a closed month, if known.
    """

    storage: Storage
    meter: Meter
    state: MeterState
    period: Period
    options: Options
    carry_days: int
    stale: Mapping[dt.date, str]
    files: Sequence[StoredFile] | None = None
    compared_with: BilledEvents | None = None
    on_request: bool = True

    @property
    def folder(self) -> str:
        """The folder of its revisions."""
        return paths.exports(self.meter.name, str(self.period), *self.options.variant)

    @property
    def keys(self) -> list[str]:
        """The columns that identify a row."""
        return ["subject", *self.options.by]

    @property
    def table(self) -> str:
        """The aggregate table that has these keys."""
        return "usage" if self.options.by or self.meter.needs_usage else "usage_by_subject"

    @property
    def first_date(self) -> dt.date:
        """The first date that it is made of."""
        return days_before(self.period.start, self.carry_days)

    @property
    def records(self) -> dict[dt.date, PartitionState]:
        """The records of the dates that it is made of, in order."""
        return month_records(self.state, self.period, self.carry_days)

    @property
    def inputs(self) -> dict[str, str]:
        """The fingerprint of the inputs of each of these dates."""
        return inputs_by_date(self.records)

    @property
    def out_of_date(self) -> dict[str, str]:
        """Its dates that are out of date, with the reason; the export has their last aggregation."""
        first, end = self.first_date, self.period.end
        return {date.isoformat(): why for date, why in self.stale.items() if first <= date < end}
