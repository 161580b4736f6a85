"""Whether a month must be exported again, told from listings and states alone, so that a quiet night reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jobs.billing import Period
from jobs.report import ExportReport
from lake import Lake, paths
from lake.events import fingerprint
from lake.planning import changes
from lake.state import ExportedMonth
from lake.storage import StoredFile
from lake.survey import MeterView

Files = Mapping[str, Sequence[StoredFile]]


def list_exports(lake: Lake) -> Files:
    """All files of exports by the folder of their meter and month."""
    found: dict[str, list[StoredFile]] = {}
    for file in lake.storage.list(paths.EXPORTS):
        found.setdefault("/".join(file.path.split("/")[:3]) + "/", []).append(file)
    return found


def exported_before(view: MeterView, period: Period, there: Files) -> ExportReport | None:
    """What an export of the month would report, if events and exports are those after which it was exported last."""
    folder = paths.exports(view.meter.name, str(period))
    known = view.state.exported.get(str(period))
    if known is None or known.fingerprint != _fingerprint(view, period, there.get(folder, ())):
        return None
    done = ExportReport(meter=view.meter.name, period=str(period), action=known.action, folder=folder)
    done.revision, done.closed = known.revision, known.closed
    return done


def remember_export(lake: Lake, view: MeterView, period: Period, done: ExportReport) -> None:
    """Note in the state what an export of the month has reported, and of what."""
    view.state.exported[str(period)] = ExportedMonth(
        fingerprint=_fingerprint(view, period, lake.storage.list(done.folder)),
        action="unchanged" if done.revision else done.action,
        revision=done.revision,
        closed=done.closed,
    )


def _fingerprint(view: MeterView, period: Period, files: Iterable[StoredFile]) -> str:
    """Of all that an export of the month depends on, what is out of date included."""
    start, end = period
    stale = changes(view.files, view.state, view.meter.version)
    said = {file.path: file.identity for file in files}
    said |= {date.isoformat(): change.why for date, change in stale.items() if start <= date < end}
    records = view.state.partitions.items()
    inputs = [f"{date} {record.fingerprint}" for date, record in sorted(records) if start <= date < end]
    return fingerprint(said, view.meter.version, *inputs)
