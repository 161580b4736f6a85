"""Notebooks are run here: by a kernel, as people run them, or in this process, which is faster."""

from __future__ import annotations

import ast
import contextlib
import io
import runpy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import nbformat
import polars as pl
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
tidied: Callable[[str], str] = runpy.run_path(str(FOLDER / "tidy.py"))["tidied"]


class Shown(NamedTuple):
    """What a notebook has shown: its text and its tables, and the values of its names."""

    text: str
    tables: list[pl.DataFrame]
    names: dict[str, Any]

    def table(self, *columns: str) -> list[tuple[Any, ...]]:
        """Return the rows of the one table that has these columns."""
        (found,) = (table for table in self.tables if table.columns == list(columns))
        return found.rows()


def run(name: str, lake: Path | str, *, draw: bool = False, **settings: str) -> Shown:
    """Run the code of a notebook here, with `METERLAKE_…` as settings; with `draw` the charts are drawn as well."""
    names: dict[str, Any] = {}
    tables: list[pl.DataFrame] = []
    text = io.StringIO()
    with _as_in_jupyter(lake, settings, draw=draw), contextlib.redirect_stdout(text):
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", 4).cells:
            if cell.cell_type == "code":
                last = _run_cell(cell, names)
                tables += [last] if isinstance(last, pl.DataFrame) else []
    return Shown(text.getvalue(), tables, names)


def execute(name: str, lake: Path, home: Path) -> Any:
    """Return a notebook as a kernel has executed it, which leaves nothing in anybody's home."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}})
    with settings_of_kernel(home, METERLAKE_LAKE=str(lake), PYTHONPATH=str(FOLDER.parent)):
        client.execute()
    return notebook


@contextlib.contextmanager
def settings_of_kernel(home: Path, **more: str) -> Iterator[None]:
    """Set the environment of a kernel whose files lie below `home`."""
    names = ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({name: str(home / name) for name in names} | more).items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def _as_in_jupyter(lake: Path | str, settings: dict[str, str], *, draw: bool) -> Iterator[None]:
    def show() -> None:
        if draw:
            plt.gcf().savefig(io.BytesIO())
        plt.close("all")

    mpl.use("agg")
    with (
        pytest.MonkeyPatch.context() as patch,
        mpl.rc_context(),
        pl.Config(),
        warnings.catch_warnings(),
    ):
        patch.chdir(FOLDER)
        patch.setattr(plt, "show", show)
        for name, value in {"LAKE": str(lake), **settings}.items():
            patch.setenv(f"METERLAKE_{name}", value)
        yield


def _run_cell(cell: Any, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last line, which Jupyter shows."""
    *first, last = ast.parse(cell.source).body
    is_value = isinstance(last, ast.Expr)
    exec(compile(ast.Module(first if is_value else [*first, last], []), cell.id, "exec"), names)  # noqa: S102
    return eval(compile(ast.Expression(last.value), cell.id, "eval"), names) if is_value else None  # type: ignore[attr-defined] # noqa: S307
