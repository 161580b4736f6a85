"""Bring notebooks into the form that is committed: no outputs, no counts, ids that depend on a cell's place alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def tidied(text: str) -> str:
    """The same notebook as everybody's Jupyter would write it, less what differs from run to run."""
    notebook = json.loads(text)
    cells = [_cell(number, cell) for number, cell in enumerate(notebook["cells"], 1)]
    tidy = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(tidy, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _cell(number: int, cell: dict[str, Any]) -> dict[str, Any]:
    lines = "".join(cell["source"]).strip().splitlines(keepends=True)
    tidy = {"cell_type": cell["cell_type"], "id": f"cell-{number:02d}", "metadata": {}, "source": lines}
    return tidy | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})


def main() -> None:
    """Tidy every notebook beside this file."""
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        after = tidied(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"tidied {path.name}\n")


if __name__ == "__main__":
    main()
