"""CloudEvents whose id has a slash: find those that an earlier version landed under another key.

Earlier versions used the key `source/id` for all of them, so two events could share a key. An event that is landed
again after the upgrade is recognised as the same only under the key that it has in the lake.
"""

from __future__ import annotations

import datetime as dt

import polars as pl

from jobs.land.earlier_attempt import definition_of
from jobs.land.parse.cloudevents import ESCAPED, earlier_key
from lake import paths
from lake.storage import Storage, StoredFile

_KEY, _EARLIER = "idempotency_key", "#earlier"
_SAME = ("subject", "quantity")


def keep_earlier_keys(
    storage: Storage, meter: str, events: pl.DataFrame, landed_at: dt.datetime
) -> pl.DataFrame:
    """Return the events, with the earlier key where an earlier version landed the same event under it.

    An event is the same if its earlier key, subject, quantity and timestamp are the same; the timestamp is not compared
    where the event had none of its own. Reads files only where a key is escaped: those of the dates of such events, or
    of all dates where one has no timestamp. Columns and order of rows stay.
    """
    escaped = events.filter(pl.col(_KEY).str.starts_with(ESCAPED))
    if escaped.is_empty():
        return events
    keys = {key: earlier_key(key) for key in escaped[_KEY].unique()}
    dates = None if _is_untimed(escaped, landed_at) else set(escaped["timestamp"].dt.date())
    landed = _landed_before(storage, meter, dates, {key for key in keys.values() if key})
    known = escaped.with_columns(pl.col(_KEY).replace_strict(keys).alias(_EARLIER)).join(
        landed, left_on=[_EARLIER, *_SAME], right_on=[_KEY, *_SAME], how="inner"
    )
    is_same = (pl.col("timestamp") == pl.col("timestamp_right")) | (pl.col("timestamp") == landed_at)
    same = dict(known.filter(is_same).select(_KEY, _EARLIER).unique().iter_rows())
    return events.with_columns(pl.col(_KEY).replace(same))


def _is_untimed(events: pl.DataFrame, landed_at: dt.datetime) -> bool:
    return bool((events["timestamp"] == landed_at).any())


def _landed_before(storage: Storage, meter: str, dates: set[dt.date] | None, keys: set[str]) -> pl.DataFrame:
    """Return key, subject, quantity and timestamp of the events with these keys that earlier versions landed."""
    folders = (
        [paths.events(meter)] if dates is None else [paths.events(meter, date) for date in sorted(dates)]
    )
    files = [file for folder in folders for file in storage.list(folder) if _is_landed_before(storage, file)]
    columns = [_KEY, *_SAME, "timestamp"]
    if not files:
        return pl.DataFrame(
            schema={
                _KEY: pl.String,
                "subject": pl.String,
                "quantity": pl.Decimal(38, 9),
                "timestamp": pl.Datetime("us", "UTC"),
            }
        )
    rows = storage.scan(files, extra_columns="ignore", missing_columns="insert").select(columns)
    return rows.filter(pl.col(_KEY).is_in(list(keys))).unique().collect(engine="streaming")


def _is_landed_before(storage: Storage, file: StoredFile) -> bool:
    """Return whether an earlier version wrote the file, by `land` or, perhaps, by merging such files."""
    name = file.path.rsplit("/", 1)[-1]
    is_landed = name.startswith((paths.LANDED_EVENTS, paths.COMPACTED)) and name.endswith(".parquet")
    return is_landed and not file.unreadable and definition_of(storage, file) is None
