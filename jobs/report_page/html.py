"""The page of a lake as one HTML document that needs nothing else. All that comes from the lake is escaped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from jobs.export.due import NO_REVISION
from jobs.report_page.figures import NOT_COMPUTABLE, Bar, MeterFigures, Page, Ranking
from jobs.report_page.style import STYLE
from jobs.screen.humanize import counted, duration
from jobs.status import MeterStatus
from lake.aggregates.ambiguity import HINT, ambiguity_note

# Should a text of the lake ever pass unescaped: nothing is loaded, run or sent. Bars have their width as a style.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
CHART_WIDTH, CHART_HEIGHT, GAP = 1000, 100, 0.2
MAX_STALE_DATES = 3
MAX_MONTHS = 6


def document(page: Page) -> str:
    """The whole page: what needs attention, then each meter, the exports and the runs."""
    title = f"Meterlake: {page.lake.rstrip('/').rsplit('/', 1)[-1]}"
    last = page.until - dt.timedelta(days=1)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(page.lake)} · {page.since} to {last}, UTC</p>',
        _tiles(page),
        _attention([*_problems(page)]),
        *(_meter(each, page) for each in page.meters),
        _exports(page),
        _runs(page),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _tiles(page: Page) -> str:
    meters = [each.status for each in page.meters]
    facts = {
        "meters": len(meters),
        "events counted": sum(each.events for each in meters),
        "duplicates left out": sum(each.duplicates for each in meters),
        "rows in quarantine": _quarantined(page),
        "partitions out of date": sum(len(each.out_of_date) for each in meters),
    }
    tiles = "".join(
        f'<div class="tile"><b>{value:,}</b>{escape(name)}</div>' for name, value in facts.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def _quarantined(page: Page) -> int:
    of_meters = [each.quarantined for each in page.status.meters]
    reasons = of_meters + [each.quarantined for each in page.status.undefined]
    return sum(sum(rows.values()) for rows in reasons)


def _problems(page: Page) -> Iterator[str]:
    for said in page.status.all_problems:
        where = f"{said['where']}: " if said.get("where") else ""
        yield f"{where}{said.get('what', '')}. {said.get('hint', '')}".strip()
    for each in page.status.meters:
        stale = [*each.out_of_date]
        if stale:
            dates = ", ".join(map(str, stale[:MAX_STALE_DATES])) + (
                " …" if len(stale) > MAX_STALE_DATES else ""
            )
            yield f"{each.meter}: {counted(len(stale), 'partition')} out of date ({dates}). Run: meterlake aggregate"
        yield from _exports_due(each)
        if each.ambiguous_subjects:
            yield f"{ambiguity_note(each.meter, each.ambiguous_subjects)}: {HINT}"
        for reason, rows in each.quarantined.items():
            yield f"{each.meter}: {counted(rows, 'row')} in quarantine, {reason}"
    for other in page.status.undefined:
        name = (
            "rows that name no meter" if other.meter is None else f"{other.meter}, which is no defined meter"
        )
        if other.event_files:
            yield f"{name}: {counted(other.event_files, 'file')} of events not counted"
        for reason, rows in other.quarantined.items():
            yield f"{name}: {counted(rows, 'row')} in quarantine, {reason}"
    if page.status.runs and page.status.runs[0].outcome == "failed":
        yield f"the last run, {page.status.runs[0].job}, failed"


def _exports_due(each: MeterStatus) -> Iterator[str]:
    """A line for every reason why months are to be exported, with the newest of them."""
    by_reason: dict[str, list[str]] = {}
    for month in each.exports_due:
        reason = "with usage that no revision has" if month.why == NO_REVISION else "changed since exported"
        if month.pending_adjustments:
            reason = "closed before the definition or the program changed"
        form = "" if month.form == "usual" else f" {month.form}"
        by_reason.setdefault(reason, []).append(f"{month.period}{form}")
    for reason, months in by_reason.items():
        named = ("… " if len(months) > MAX_MONTHS else "") + ", ".join(months[-MAX_MONTHS:])
        job = "export --period" if reason.startswith("closed") else "nightly"
        yield f"{each.meter}: {counted(len(months), 'month')} {reason} ({named}). Run: meterlake {job}"


def _attention(problems: Sequence[str]) -> str:
    if not problems:
        return '<p class="fine">✓ Nothing needs attention.</p>'
    items = "".join(f"<li>{escape(said)}</li>" for said in problems)
    return f'<div class="attention" role="note"><b>Needs attention</b><ul>{items}</ul></div>'


def _meter(of: MeterFigures, page: Page) -> str:
    name = of.status.meter
    head = f'<section class="long"><h2>{escape(name)}</h2>'
    about = f"{of.aggregation} of {of.unit}" + (f" · {of.description}" if of.description else "")
    facts = [f"newest date {of.status.newest or '-'}", counted(of.status.duplicates, "duplicate")]
    facts += [f"{of.status.conflicts:,} of them in conflict", counted(of.status.sealed, "sealed partition")]
    if not of.events:
        return f'{head}<p class="soft">{escape(about)}</p><p>No usage in these dates.</p></section>'
    return (
        f'{head}<p class="soft">{escape(about)}</p>'
        f'<p class="big" data-quantity="{escape(of.quantity)}">{escape(grouped(of.quantity))}</p>'
        f'<p class="soft small">{of.aggregation} of {counted(of.events, "event")} of all subjects · {escape(" · ".join(facts))}</p>'
        f"{_days(of, page)}"
        f'<div class="columns">{"".join(map(_ranking, of.rankings))}{_late(of.late)}</div></section>'
    )


def grouped(quantity: str) -> str:
    """A number's text with commas between thousands; anything else as it is."""
    whole, point, rest = quantity.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.lstrip("-").isdigit() else quantity


def _days(of: MeterFigures, page: Page) -> str:
    """A bar for every date of the range, a gap where nothing was used."""
    days = (page.until - page.since).days
    width = CHART_WIDTH / days
    rects = "".join(
        _bar((dt.date.fromisoformat(bar.name or "") - page.since).days * width, width, bar) for bar in of.days
    )
    if not of.days:
        return f'<p class="soft">by day: {NOT_COMPUTABLE}</p>'
    most = max(of.days, key=lambda bar: bar.length)
    rows = "".join(
        f'<tr><td>{bar.name}</td><td class="number">{escape(grouped(bar.quantity))}</td>'
        f'<td class="number">{bar.events:,}</td></tr>'
        for bar in of.days
    )
    label = escape(f"{of.status.meter} by day; most on {most.name}: {most.quantity}")
    return (
        f'<div class="chart"><div class="ends"><span>by day</span><span>most: {escape(grouped(most.quantity))} '
        f"on {most.name}</span></div>"
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" preserveAspectRatio="none">'
        f'{rects}<line class="base" x1="0" x2="{CHART_WIDTH}" y1="{CHART_HEIGHT}" y2="{CHART_HEIGHT}"/></svg>'
        f'<div class="ends"><span>{page.since}</span><span>{page.until - dt.timedelta(days=1)}</span></div></div>'
        f"<details><summary>the numbers of {counted(len(of.days), 'day')}</summary><table><thead><tr><th>date</th>"
        f'<th class="number">quantity</th><th class="number">events</th></tr></thead><tbody>{rows}</tbody></table>'
        "</details>"
    )


def _bar(x: float, width: float, bar: Bar) -> str:
    # What was used at all is to be seen.
    height = max(bar.length * CHART_HEIGHT, 0.8)
    return (
        f'<rect x="{x + width * GAP / 2:.2f}" y="{CHART_HEIGHT - height:.2f}" width="{width * (1 - GAP):.2f}" '
        f'height="{height:.2f}"><title>{bar.name}: {escape(grouped(bar.quantity))}</title></rect>'
    )


def _ranking(of: Ranking) -> str:
    rows = "".join(
        f'<tr><td>{_name(bar.name)}<span class="meter"><i style="width:{bar.length * 100:.1f}%"></i></span></td>'
        f'<td class="number">{escape(grouped(bar.quantity))}</td></tr>'
        for bar in of.bars
    )
    shown = f"top {len(of.bars)} of {of.values:,}" if of.values > len(of.bars) else f"all {of.values:,}"
    return f"<div><h3>{escape(of.field)} <span class='soft small'>{shown}</span></h3><table><tbody>{rows}</tbody></table></div>"


def _name(name: str | None) -> str:
    return '<span class="soft">none</span>' if name is None else escape(name)


def _late(bands: dict[str, int]) -> str:
    total = sum(bands.values())
    if not total:
        return ""
    rows = "".join(
        f'<tr><td>{escape(name)}<span class="meter"><i style="width:{events / total * 100:.1f}%"></i></span></td>'
        f'<td class="number">{events:,}</td></tr>'
        for name, events in bands.items()
        if events
    )
    head = "<h3>how late events arrive <span class='soft small'>all dates</span></h3>"
    return f"<div>{head}<table><tbody>{rows}</tbody></table></div>"


def _exports(page: Page) -> str:
    rows = [
        [
            escape(each.meter),
            escape(each.period),
            escape(each.form),
            f"{each.revision}{', closed' if each.closed else ''}",
            f"{each.rows:,}",
            escape(grouped(each.total)),
        ]
        for each in page.exports
    ]
    return _section(
        "Exports", ["meter", "period", "form", "revision", "#rows", "#total"], rows, "no exports yet"
    )


def _runs(page: Page) -> str:
    rows = [
        [
            f"{run.started_at:%Y-%m-%d %H:%M}",
            escape(run.job),
            f'<span class="failed">{run.outcome}</span>' if run.outcome != "done" else "done",
            duration(run.seconds) if run.seconds is not None else "-",
            f"{run.partitions:,}",
            f"{run.quarantined:,}",
        ]
        for run in page.status.runs
    ]
    names = ["started, UTC", "job", "outcome", "#took", "#partitions", "#quarantined"]
    return _section("Last runs", names, rows, "no runs yet")


def _section(title: str, names: Sequence[str], rows: Iterable[Sequence[str]], none: str) -> str:
    """A table below a heading; columns whose name begins with # hold numbers."""
    numbers = [name.startswith("#") for name in names]
    body = "".join(f"<tr>{_cells('td', row, numbers)}</tr>" for row in rows)
    head = _cells("th", [name.removeprefix("#") for name in names], numbers)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<section><h2>{title}</h2>{table if body else f'<p class=soft>{none}</p>'}</section>"


def _cells(tag: str, texts: Sequence[str], numbers: Sequence[bool]) -> str:
    kinds = (' class="number"' if number else "" for number in numbers)
    return "".join(f"<{tag}{kind}>{text}</{tag}>" for kind, text in zip(kinds, texts, strict=True))
