"""Both notebooks run in a kernel on the demo's lake, are committed without results, and become pages."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from demo_lake import demo_folder
from notebooks.running import FOLDER, NAMES, execute, settings_of_kernel, tidied


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_without_results_and_with_ids_by_place(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text()
    assert tidied(text) == text, "run: make format"


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_imports_an_internal_module(name: str) -> None:
    cells = nbformat.read(FOLDER / f"{name}.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    ours = re.findall(r"^\s*(?:from|import) ((?:lake|jobs|schemas)\b.*)", code, re.MULTILINE)
    assert ours == ["lake import Lake"]
    assert "lake.storage" not in code


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_and_the_page_needs_no_network(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    notebook = execute(name, demo_folder(tmp_path_factory) / "demo-lake", tmp_path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    charts = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(charts) == sum("plt.show()" in cell.source for cell in cells)
    # A picture of some size that is not one colour all over.
    pictures = [base64.b64decode(chart) for chart in charts]
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5_000 for picture in pictures)
    assert tidied(nbformat.writes(notebook)) == (FOLDER / f"{name}.ipynb").read_text()
    if name != NAMES[0]:
        return  # The template is the same, and takes a while.
    exporter = HTMLExporter(template_file=str(FOLDER / "page.html.j2"))
    page, _ = exporter.from_notebook_node(notebook)
    assert page.count('src="data:image/png;base64,') == len(charts)
    assert not re.findall(r"""(?:src|href)=["']?https?:|@import|url\(["']?http|import\s.*["']http""", page)


def test_a_kernel_listens_on_this_machine_only_and_ends(tmp_path: Path) -> None:
    running = set(psutil.Process().children(recursive=True))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; print(os.getpid())")])
    client = NotebookClient(notebook)
    ips = []
    client.on_notebook_start = lambda **_: ips.append(client.km.ip)
    with settings_of_kernel(tmp_path):
        client.execute()
    assert ips == ["127.0.0.1"]
    (process,) = (int(output.text) for output in notebook.cells[0].outputs)
    assert not psutil.pid_exists(process)
    assert set(psutil.Process().children(recursive=True)) <= running
