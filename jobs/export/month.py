"""One month of one meter that is to be exported in one form, and what the run knows of it."""

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

    @classmethod
    def of_variant(cls, variant: Sequence[str]) -> Options | None:
        """Return the choices that add these folders to the path; None if no export adds them."""
        parts = dict(part.partition("=")[::2] for part in variant)
        by, columns = parts.get("by", ""), parts.get("columns", "default")
        options = cls(tuple(sorted({*by.split(",")})) if by else (), columns, "csv" in parts)
        return options if options.variant == list(variant) and columns in COLUMN_SETS else None


class MonthExport(NamedTuple):
    """One period of one meter, to be exported one way; `on_request` if a person asks for it, and no night.

    The levels of so many dates before it are carried into it: of none where it has not begun. `stale` are the meter's
    dates that are out of date, and why; `files` those of its folder, where a run has listed all exports, and
    `compared_with` the events that a night has last held a closed month to, if known.
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
        """The columns that name a row."""
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
        """Why each of its dates that is out of date is so; of them it tells what was aggregated last."""
        first, end = self.first_date, self.period.end
        return {date.isoformat(): why for date, why in self.stale.items() if first <= date < end}
