"""What there is, the reference explains: reasons, columns, aggregations, commands; and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from docs.generate import PAGE, page
from documents.pages import PAGES, README, ROOT, name_of
from jobs.run_report import ExportReport, PartitionReport, RunReport
from jobs.status import MeterStatus, Status
from schemas.columns import DIMENSION_TYPES, EVENT_TYPES, MEASURE_TYPES, QUARANTINE_TYPES
from schemas.event_rules import REASONS
from schemas.meter import AGGREGATIONS

REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"(?:\]\(|src=\")(?!https?:)([^)#\s\"]*)(#[^)\s]+)?[)\"]")


def test_every_reason_is_explained() -> None:
    shown = (REFERENCE / "quarantine.md").read_text().split("<!-- reasons -->\n")[1]
    rows = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in REASONS.items())
    assert shown.split("<!-- /reasons -->")[0] == f"| reason | when |\n|---|---|\n{rows}"


@pytest.mark.parametrize(
    ("page", "columns"),
    [("tables", {*EVENT_TYPES, *MEASURE_TYPES, *DIMENSION_TYPES}), ("quarantine", {*QUARANTINE_TYPES})],
)
def test_every_column_is_explained(page: str, columns: set[str]) -> None:
    text = (REFERENCE / f"{page}.md").read_text()
    assert {column for column in columns if f"`{column}`" not in text} == set()


def test_every_aggregation_is_explained() -> None:
    text = (REFERENCE / "meters.md").read_text()
    assert [name for name in AGGREGATIONS if f"`{name}`" not in text] == []


def test_the_page_of_commands_is_their_help() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "run: make docs"


@pytest.mark.parametrize("struct", [RunReport, PartitionReport, ExportReport, Status, MeterStatus])
def test_every_member_of_a_json_document_is_explained(struct: type[msgspec.Struct]) -> None:
    text = (REFERENCE / "json.md").read_text()
    table = text.split(f"<!-- fields: {struct.__name__} -->\n")[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(field.encode_name for field in msgspec.structs.fields(struct))


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text()):
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            assert anchor[1:] in {_anchor(heading) for heading in headings}, f"{target}{anchor}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["guarantees", "architecture"])
def test_files_and_folders_that_a_page_names_are_there(name: str) -> None:
    named = re.findall(r"`((?:jobs|lake|schemas|tests)/[^`\s]*)`", (ROOT / "docs" / f"{name}.md").read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_is_short_and_begins_with_what_to_type() -> None:
    text = README.read_text()
    assert len(text.encode()) <= 9_000
    first_screen = text.splitlines()[:20]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)
