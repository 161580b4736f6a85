"""Whether a month must be exported again, told from listings and states alone, so that a quiet night reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jobs.billing import Period
from jobs.export import export
from jobs.report import ExportReport, Report
from lake import Lake, paths
from lake.events import fingerprint
from lake.planning import changes
from lake.state import ExportedMonth
from lake.storage import StoredFile
from lake.survey import MeterView

Files = Mapping[str, Sequence[StoredFile]]


def list_exports(lake: Lake) -> Files:
    """All files of exports by the folder of their meter and month."""
    return _by_month(lake.storage.list(paths.EXPORTS))


def export_if_changed(lake: Lake, report: Report, view: MeterView, period: Period, there: Files) -> None:
    """Export a month of a meter, unless events and exports are those after which it was exported last."""
    folder = paths.exports(view.meter.name, str(period))
    known = view.state.exported.get(str(period))
    if known and known.fingerprint == _fingerprint(view, period, there.get(folder, ())):
        done = ExportReport(meter=view.meter.name, period=str(period), action=known.action, folder=folder)
        done.revision, done.closed = known.revision, known.closed
        report.exports.append(done)
        return
    problems = len(report.problems)
    export(lake, report, period, meter=view.meter.name)
    if len(report.problems) == problems:
        done = report.exports[-1]
        view.state.exported[str(period)] = ExportedMonth(
            fingerprint=_fingerprint(view, period, lake.storage.list(folder)),
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


def _by_month(files: Iterable[StoredFile]) -> Files:
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        found.setdefault("/".join(file.path.split("/")[:3]) + "/", []).append(file)
    return found
