"""What there is, the reference explains: reasons, columns, aggregations, commands; and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from documents.pages import PAGES, ROOT, name_of
from jobs.cli.app import app
from schemas.columns import DIMENSION_TYPES, EVENT_TYPES, MEASURE_TYPES, QUARANTINE_TYPES
from schemas.event_rules import REASONS
from schemas.meter import AGGREGATIONS

REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)")


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


def test_every_command_and_option_is_explained() -> None:
    reference = (REFERENCE / "commands.md").read_text()
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined] # the program is a group
        subcommands = getattr(command, "commands", None)
        for called in [f"{name} {sub}" for sub in subcommands] if subcommands else [name]:
            assert f"`{called}" in reference, called
        for option in (option for parameter in command.params for option in parameter.opts):
            assert not option.startswith("--") or option in reference, f"{name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            assert anchor[1:] in {_anchor(heading) for heading in headings}, f"{target}{anchor}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
