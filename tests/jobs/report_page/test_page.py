"""The lake's page: its numbers are those of the events, in a real browser, on a phone and on paper."""

from __future__ import annotations

import datetime as dt
import html
import json
import re
import shutil
import subprocess
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs.aggregate.job import aggregate
from jobs.cli import app
from jobs.report_page.charts import grouped
from jobs.report_page.figures import TOP, gather
from jobs.report_page.render import document
from jobs.report_page.usage import bands
from jobs.run_report import reported
from lake import Lake
from support import DAY, a_lake, define, event, put

CHROMIUM = shutil.which("chromium")
NEXT = DAY + dt.timedelta(days=1)
HOSTILE = '</script><img src="https://example.com/x.png" onerror="document.title=1">&amp;"\'é🙂'
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


def browse(tmp_path: Path, page: Path, *options: str, width: int = 1200) -> str:
    """What the browser prints; it is ended, and it may ask the network for nothing."""
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quiet]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},2000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    done = subprocess.run([*command, *options, page.as_uri()], capture_output=True, check=True, timeout=120)
    return done.stdout.decode()


def events() -> list[dict[str, Any]]:
    return [
        event(
            f"k{number}",
            f"org_{number % 12}",
            f"{number % 7 + 1}.25",
            DAY if number % 3 else NEXT,
            plan=f"p{number % 2}",
        )
        for number in range(200)
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake, meter = a_lake(tmp_path_factory.mktemp("page") / "lake", name=HOSTILE, description=HOSTILE)
    define(lake, name="unused")
    for day in (DAY, NEXT):
        put(
            lake, meter, "a.parquet", *(said for said in events() if said["timestamp"].date() == day), day=day
        )
    # A copy, and a row that breaks a rule.
    put(lake, meter, "b.parquet", event("k1", "org_1", "9"), event("bad", "no subject?"))
    with reported(lake, "aggregate") as report:
        aggregate(lake, report)
    return lake


@pytest.fixture(scope="module")
def page(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("out") / "report.html"
    assert (
        app.run(["--lake", lake.url, "report", "--out", str(target), "--as-of", str(NEXT), "--days", "30"])
        == 0
    )
    return target


def sums(field: str) -> dict[str, Decimal]:
    found: Counter[str] = Counter()
    for said in events():
        key = str(said["timestamp"].date()) if field == "day" else said[field]
        found[key] += said["quantity"]
    return {key: Decimal(value) for key, value in found.items()}


def test_the_figures_are_those_of_the_events(lake: Lake) -> None:
    found = gather(lake, NEXT + dt.timedelta(days=1), 30).meters[0]
    assert (Decimal(found.quantity), found.events) == (sum(said["quantity"] for said in events()), 200)
    assert {bar.name: Decimal(bar.quantity) for bar in found.days} == sums("day")
    subjects, plans = found.rankings
    assert {bar.name: Decimal(bar.quantity) for bar in plans.bars} == sums("plan")
    expected = sorted(sums("subject").items(), key=lambda item: (-item[1], item[0]))
    assert [(bar.name, Decimal(bar.quantity)) for bar in subjects.bars] == expected[:TOP]
    assert subjects.values == len(expected)
    assert sum(found.late.values()) == 200


def test_a_range_leaves_out_other_dates(lake: Lake) -> None:
    found = gather(lake, NEXT, 1).meters[0]
    assert (found.events, [bar.name for bar in found.days]) == (133, [str(DAY)])
    assert gather(lake, DAY, 5).meters[0].days == []


def test_late_events_fall_into_bands_by_their_seconds() -> None:
    assert bands({-3: 1, 0: 2, 1: 4, 30: 8, 60: 16, 80: 32}) == {
        "early": 1,
        "under 1 s": 2,
        "1 s to 1 min": 4,
        "to 1 h": 8,
        "to 1 day": 16,
        "over 1 day": 32,
    }


@needs_browser
def test_a_text_that_passed_unescaped_would_run_and_load_nothing(tmp_path: Path, page: Path) -> None:
    script = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    assert "<title>run</title>" not in browse(tmp_path, spoilt, "--dump-dom")
    unguarded = tmp_path / "unguarded.html"
    unguarded.write_text(re.sub("<meta http-equiv[^>]*>", "", spoilt.read_text()))
    assert "<title>run</title>" in browse(tmp_path, unguarded, "--dump-dom")


@needs_browser
def test_a_browser_shows_the_numbers_and_loads_nothing_else(tmp_path: Path, page: Path) -> None:
    shown = browse(tmp_path, page, "--dump-dom")
    total = sum(said["quantity"] for said in events())
    assert f'data-quantity="{total.normalize()}"' in shown
    assert f">{grouped(str(total.normalize()))}</p>" in shown
    for name, quantity in sums("subject").items():
        if name in shown:
            assert re.search(rf">{name}<.*?</td><td class=\"number\">{quantity.normalize()}<", shown)
    # The name is text: no picture of it was made, nothing of it ran, and no address is asked.
    assert "<img" not in shown
    assert HOSTILE in map(html.unescape, re.findall(r"<h2>(.*?)</h2>", shown))
    # The one link is to a place of the page itself.
    assert not re.search(
        r"""(?:src|href)=(?!"#)|url\(|@import""",
        re.sub(r"&\w+;.*?&gt;", "", page.read_text()).replace(html.escape(HOSTILE), ""),
    )
    assert "1 row in quarantine, subject_invalid" in shown


# Of the pages in frames: how much each is wider than its frame, and the words of its text that are broken, which those
# of more letters than a line may be.
LOOK = """
const seen = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT), broken = [];
  while (walker.nextNode()) for (const word of walker.currentNode.data.matchAll(/\\S+/g)) {
    const range = page.createRange();
    range.setStart(walker.currentNode, word.index);
    range.setEnd(walker.currentNode, word.index + word[0].length);
    const lines = new Set([...range.getClientRects()].map(box => box.top));
    if (lines.size > 1 && word[0].length < 25) broken.push(word[0]);
  }
  seen.push([frame.width, page.documentElement.scrollWidth - page.documentElement.clientWidth, ...broken].join(" "));
}
document.title = seen.join(", ");
"""


@needs_browser
def test_nothing_is_wider_than_the_screen_and_no_word_is_broken(tmp_path: Path, page: Path) -> None:
    # Frames of these widths, since the window of a headless browser has a least width.
    widths = (360, 390, 800, 1200)
    text = html.escape(page.read_text())
    frames = (
        f'<iframe width="{width}" height="844" style="border:0" srcdoc="{text}"></iframe>' for width in widths
    )
    screens = tmp_path / "screens.html"
    screens.write_text(f"<title></title>{''.join(frames)}<script>onload = () => {{{LOOK}}}</script>")
    shown = browse(tmp_path, screens, "--dump-dom", "--virtual-time-budget=2000")
    assert re.findall("<title>(.*?)</title>", shown)[0] == "360 0, 390 0, 800 0, 1200 0"


@needs_browser
def test_it_prints_and_draws(tmp_path: Path, page: Path) -> None:
    browse(tmp_path, page, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) in {1, 2, 3}
    browse(tmp_path, page, f"--screenshot={tmp_path / 'page.png'}", width=360)
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_an_empty_lake_has_a_page(tmp_path: Path) -> None:
    lake = Lake.init(str(tmp_path / "lake"))
    text = document(gather(lake, DAY, 30))
    assert "Nothing needs attention" in text
    assert "no exports yet" in text


def test_the_same_lake_gives_the_same_page(lake: Lake) -> None:
    assert document(gather(lake, NEXT, 30)) == document(gather(lake, NEXT, 30))


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, meter = a_lake(tmp_path / "lake")
    put(lake, meter, "a.parquet", event("k"))
    with reported(lake, "aggregate") as report:
        aggregate(lake, report)
    other = define(lake, name="broken")
    put(lake, other, "a.parquet", event("k"))
    (Path(lake.url) / "meters" / "broken.json").write_text("{")
    target = tmp_path / "report.html"
    assert app.run(["--lake", lake.url, "report", "--out", str(target), "--as-of", str(DAY)]) == 3
    assert "broken" in capsys.readouterr().err
    assert "active_users" in target.read_text()


def test_the_figures_as_json(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--lake", lake.url, "report", "--as-of", str(NEXT), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Decimal(found["meters"][0]["quantity"]) == sum(said["quantity"] for said in events())


def test_a_page_that_cannot_be_written_leaves_what_was_there(lake: Lake, tmp_path: Path) -> None:
    assert app.run(["--lake", lake.url, "report", "--out", str(tmp_path)]) == 3
    assert app.run(["--lake", lake.url, "report", "--out", str(tmp_path / "no" / "report.html")]) == 3
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").write_text("x")
    assert app.run(["--lake", lake.url, "report", "--out", str(tmp_path / "file" / "report.html")]) == 3
    assert app.run(["--lake", lake.url, "report"]) == 2
