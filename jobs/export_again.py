"""Whether a month must be exported again, told from listings and states alone, so that a quiet night reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jobs.billing import Period
from jobs.export_month import Seen
from jobs.report import ExportReport
from lake import Lake, paths
from lake.events import fingerprint
from lake.exports import ToldRevision
from lake.planning import changes
from lake.recent import RecentRows
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


def seen_before(view: MeterView, period: Period, there: Files, recent: RecentRows) -> Seen:
    """What the listing of exports and the meter's state tell of a month."""
    files = there.get(paths.exports(view.meter.name, str(period)), ())
    known = view.state.exported.get(str(period))
    told = None
    if known and known.manifest_sha256 and known.files == _files_fingerprint(files):
        told = ToldRevision(known.manifest_sha256, known.manifest_inputs, known.quantities)
    return Seen(view, files, recent, told)


def exported_before(seen: Seen, period: Period) -> ExportReport | None:
    """What an export of the month would report, if events and exports are those after which it was exported last."""
    known = seen.view.state.exported.get(str(period))
    if known is None or known.fingerprint != _fingerprint(seen, period):
        return None
    name = seen.view.meter.name
    done = ExportReport(
        meter=name, period=str(period), action=known.action, folder=paths.exports(name, str(period))
    )
    done.revision, done.closed = known.revision, known.closed
    return done


def remember_export(seen: Seen, period: Period, done: ExportReport) -> None:
    """Note in the state what an export of the month has reported, and of what."""
    told = seen.known or ToldRevision("", "")
    seen.view.state.exported[str(period)] = ExportedMonth(
        fingerprint=_fingerprint(seen, period),
        action="unchanged" if done.revision else done.action,
        revision=done.revision,
        closed=done.closed,
        files=_files_fingerprint(seen.files),
        manifest_sha256=told.sha256,
        manifest_inputs=told.inputs,
        quantities=told.quantities,
    )


def _fingerprint(seen: Seen, period: Period) -> str:
    """Of all that an export of the month depends on, what is out of date included."""
    start, end = period
    view = seen.view
    stale = changes(view.files, view.state, view.meter.version)
    said = {file.path: file.identity for file in seen.files}
    said |= {date.isoformat(): change.why for date, change in stale.items() if start <= date < end}
    records = view.state.partitions.items()
    inputs = [f"{date} {record.fingerprint}" for date, record in sorted(records) if start <= date < end]
    return fingerprint(said, view.meter.version, *inputs)


def _files_fingerprint(files: Iterable[StoredFile]) -> str:
    return fingerprint({file.path: file.identity for file in files})
