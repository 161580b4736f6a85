"""Whether the aggregates hold what has been landed: which dates are out of date, and why."""

from __future__ import annotations

import datetime as dt

from lake.events.listing import list_events
from lake.state.changes import changes
from lake.state.records import MeterState
from lake.storage import Storage
from schemas.meter import Meter


def out_of_date(
    storage: Storage, meter: Meter, state: MeterState, since: dt.date, until: dt.date
) -> dict[dt.date, str]:
    """Why each partition with since <= date < until is out of date, by date. Lists files, and reads none."""
    files = list_events(storage, meter.name, state).files
    found = changes(files, state, meter.version, meter.earlier_version)
    return {date: change.why for date, change in found.items() if since <= date < until}
