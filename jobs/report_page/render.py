"""The page of a lake as one HTML document that needs nothing else. All that comes from the lake is escaped."""

from __future__ import annotations

import datetime as dt
import shlex
from decimal import Decimal
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobs.report_page.attention import attention_lines, quarantined_rows
from jobs.report_page.charts import HEIGHT, WIDTH, curves_chart, grouped, usage_chart
from jobs.report_page.figures import Page
from jobs.screen.console import plain
from jobs.screen.humanize import counted, duration
from lake.calendar import DAY
from lake.query.time_buckets import UTC, bucket_label, zone_of

# Should a text of the lake ever pass unescaped: nothing is loaded, run or sent. Bars have their width as a style.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MINUS = "\N{MINUS SIGN}"
# Lines of attention, and days whose numbers a table lists.
MAX_LINES, MAX_DAYS = 30, 92


def document(page: Page) -> str:
    """Return the whole page: the answers, each meter, then the lake: what needs attention, exports and runs."""
    lines = [*attention_lines(page.status)]
    template = _environment().get_template("page.html.j2")
    return template.render(
        page=page,
        answers=page.answers,
        activity=page.answers.activity,
        seats=page.answers.seats,
        name=page.lake.rstrip("/").rsplit("/", 1)[-1],
        last=page.until - DAY,
        newest=_newest(page),
        lines=lines,
        facts=_facts(page),
        policy=POLICY,
        MAX_LINES=MAX_LINES,
        MAX_DAYS=MAX_DAYS,
        WIDTH=WIDTH,
        HEIGHT=HEIGHT,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobs.report_page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "grouped": grouped,
        "count": lambda number: f"{number:,}",
        "counted": counted,
        "signed": signed,
        "percent": percent,
        "plural": plural,
        "month": lambda date: f"{date:%B} {date.year}",
        "week": lambda date: bucket_label("week", dt.datetime.combine(date, dt.time(), dt.UTC), zone_of(UTC)),
        "duration": duration,
    }
    environment.filters |= filters
    environment.globals |= {"query": query_command, "usage_chart": usage_chart, "curves_chart": curves_chart}
    return environment


def _printable(value: object) -> object:
    """Return text without characters that steer a reader's screen, and anything else as it is."""
    return plain(value) if type(value) is str else value


def signed(quantity: str) -> str:
    """Return a change with its sign, and commas between thousands; 0 has none."""
    text = grouped(quantity.removeprefix("-"))
    return text if text == "0" else f"{MINUS if quantity.startswith('-') else '+'}{text}"


def percent(ratio: str) -> str:
    """Return a ratio as percent with one place, rounded half-even: 0.8691 is 86.9 %."""
    return f"{grouped(str((Decimal(ratio) * 100).quantize(Decimal('0.1'))))} %"


def plural(unit: str) -> str:
    """Return a unit for many, where it is a word that takes an s: users, seats; GB stays GB."""
    is_word = unit.isascii() and unit.replace(" ", "").isalpha() and unit.islower() and len(unit) > 2
    return f"{unit}s" if is_word and not unit.endswith("s") else unit


def query_command(meter: str, since: dt.date, until: dt.date, options: str) -> str:
    """Return the command line that answers a question about some dates."""
    return f"meterlake query --meter {shlex.quote(meter)} --from {since} --to {until} {options}"


def _newest(page: Page) -> dt.date | None:
    """Return the newest date with activity."""
    activity = page.answers.activity
    newest = (each.newest for each in page.status.meters if activity and each.meter == activity.meter)
    return next(newest, None)


def _facts(page: Page) -> dict[str, int]:
    meters = page.status.meters
    return {
        "meters": len(meters),
        "events counted": sum(each.events for each in meters),
        "duplicates left out": sum(each.duplicates for each in meters),
        "rows in quarantine": quarantined_rows(page.status),
        "partitions out of date": sum(len(each.out_of_date) for each in meters),
    }
