"""How soon the command line answers: medians of whole processes for `--help`, `--version` and an empty lake's `status`.

And what `import lake` takes beside `import polars`.

`python -m benchmarks.startup [RUNS]`; ends with 1 if the help takes longer than it may.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 15
HELP_SECONDS = 0.4
HELP = ("--help",)
IMPORTS = ("import polars", "import lake")
COMMANDS = (HELP, ("--version",), ("query", "--help"), ("status",))


def main() -> int:
    """Print a line for each command; return the exit code."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    print(f"{runs} runs on {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{'meterlake':<14}  median s   best s  worst s")
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "METERLAKE_LAKE": folder, "PYTHONPATH": str(ROOT)}
        _seconds(["-m", "jobs.cli", "init"], environment)
        for command in COMMANDS:
            took = [_seconds(["-m", "jobs.cli", *command], environment) for _ in range(runs)]
            medians[command] = statistics.median(took)
            _print(" ".join(command), took)
        for code in IMPORTS:
            _print(code, [_seconds(["-c", f"{code}; print()"], environment) for _ in range(runs)])
    return int(medians[HELP] > HELP_SECONDS)


def _print(what: str, took: list[float]) -> None:
    figures = (statistics.median(took), min(took), max(took))
    print(f"{what:<14}  " + " ".join(f"{seconds:8.3f}" for seconds in figures))


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    """From the start of a process to the first line of its answer."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline() if process.stdout else ""
        took = time.perf_counter() - start
        process.communicate()
    if process.returncode or not first:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return took


if __name__ == "__main__":
    sys.exit(main())
