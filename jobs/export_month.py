"""One month of one meter that is to be exported in one form, and what the run knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobs.billing import Period
from lake import paths
from lake.exports import ToldRevision
from lake.freshness import out_of_date as stale_dates
from lake.planning import changes
from lake.recent import RecentRows
from lake.state import load_state
from lake.storage import Storage, StoredFile
from lake.survey import MeterView
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


class MonthExport(NamedTuple):
    """One period of one meter, to be exported one way."""

    storage: Storage
    meter: Meter
    period: Period
    options: Options
    seen: Seen | None = None

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


def out_of_date(export: MonthExport) -> dict[str, str]:
    """The period's dates that are out of date, of which an export tells what was aggregated last, and why."""
    start, end = export.period
    if export.seen:
        view = export.seen.view
        found = changes(view.files, view.state, view.meter.version)
        return {date.isoformat(): change.why for date, change in found.items() if start <= date < end}
    state = load_state(export.storage, export.meter.name)
    stale = stale_dates(export.storage, export.meter, state, start, end)
    return {date.isoformat(): why for date, why in stale.items()}
