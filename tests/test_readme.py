"""What the README says is so: its snippets run, and nothing there is goes unsaid (its command lines: test_shown_commands)."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import typer

from jobs.cli.app import app
from schemas.columns import DIMENSION_TYPES, EVENT_TYPES, MEASURE_TYPES, QUARANTINE_TYPES
from schemas.event_rules import REASONS
from schemas.meter import AGGREGATIONS
from support import a_lake, aggregated, event, put

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()


def between(name: str) -> str:
    return TEXT.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def last_value(snippet: str) -> pl.DataFrame:
    """Run a snippet as a reader of the README does; gives the frame that its last line shows."""
    *first, last = ast.parse(snippet).body
    names: dict[str, Any] = {}
    exec(compile(ast.Module(first, []), "README.md", "exec"), names)  # noqa: S102
    shown = eval(ast.unparse(last), names)  # noqa: S307
    assert isinstance(shown, pl.DataFrame)
    return shown


@pytest.fixture
def usage_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a lake as the README's snippets name it, beside a meter whose name looks like a number."""
    monkeypatch.chdir(tmp_path)
    lake, meter = a_lake(tmp_path / "usage-lake")
    put(
        lake,
        meter,
        "a.parquet",
        event("a", quantity="1.5"),
        event("b", quantity="2"),
        event("b", quantity="3"),
    )
    _, number = a_lake(tmp_path / "usage-lake", name="007")
    put(lake, number, "a.parquet", event("a"))
    aggregated(lake)


@pytest.mark.usefixtures("usage_lake")
@pytest.mark.parametrize("snippet", snippets("python"), ids=lambda snippet: snippet.split("\n")[0])
def test_python_snippets_give_rows(snippet: str) -> None:
    assert last_value(snippet).height == 1


@pytest.mark.usefixtures("usage_lake")
def test_the_sql_snippet_gives_the_polars_snippets_rows() -> None:
    (sql,) = snippets("sql")
    polars = next(snippet for snippet in snippets("python") if "scan_parquet" in snippet)
    assert duckdb.sql(sql).fetchall() == last_value(polars).rows() == [("org_1", pytest.approx(3.5))]


def test_every_reason_is_explained() -> None:
    rows = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in REASONS.items())
    assert between("reasons") == f"| reason | when |\n|---|---|\n{rows}"


def test_every_column_is_explained() -> None:
    for types in (EVENT_TYPES, MEASURE_TYPES, QUARANTINE_TYPES, DIMENSION_TYPES):
        for column in types:
            assert f"`{column}`" in TEXT, column
    assert all(f"`{aggregation}`" in TEXT for aggregation in AGGREGATIONS)


def test_every_command_and_option_is_explained() -> None:
    reference = TEXT.split("### Commands")[1].split("### Meter definitions")[0]
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined] # the program is a group
        subcommands = getattr(command, "commands", None)
        for called in [f"{name} {sub}" for sub in subcommands] if subcommands else [name]:
            assert f"`{called}" in reference, called
        for option in (option for parameter in command.params for option in parameter.opts):
            assert not option.startswith("--") or option in reference, f"{name} {option}"
