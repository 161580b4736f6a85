"""A command line that is killed at a random moment of its work, on a machine of any speed.

Called with a local lake, a seed, and the arguments of `meterlake`. The command first runs on a copy of the lake, where its
operations are counted. On the lake itself the process ends at one of these, or a moment after it, where it may be in
code that is not Python; at the latest it ends with the command's last operation.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from jobs.cli import app

# As Python's audit events call them.
OPERATIONS = {"open", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir"}
FEWEST = 5
MAX_DELAY_SECONDS = 0.005


class Operations:
    """Counts the operations of this process on a folder; the one with the number `last` ends it."""

    def __init__(self) -> None:
        self.folder, self.done, self.last, self.delay_seconds = "", 0, 0, 0.0

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.folder and name in OPERATIONS and any(self._is_inside(each) for each in arguments):
            self.done += 1
            if self.done == self.last:
                end(self.delay_seconds)

    def run(self, folder: Path, arguments: list[str]) -> int:
        """Run a command on a lake; gives the number of its operations."""
        self.folder, self.done = str(folder), 0
        app.run(["--lake", self.folder, *arguments])
        return self.done

    def _is_inside(self, argument: object) -> bool:
        return isinstance(argument, str | Path) and str(argument).startswith(self.folder)


def end(delay_seconds: float) -> None:
    """End this process now or soon. Nothing here handles SIGALRM, so it ends a process as SIGKILL does."""
    if delay_seconds:
        signal.setitimer(signal.ITIMER_REAL, delay_seconds)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def main(lake: Path, seed: str, arguments: list[str]) -> None:
    chance, operations = random.Random(seed), Operations()
    sys.addaudithook(operations)
    with tempfile.TemporaryDirectory(dir=lake.parent) as beside:
        # The same files: jobs change none in its place.
        copy = shutil.copytree(lake, Path(beside) / "copy", copy_function=os.link)
        count = operations.run(copy, arguments)
    if count < FEWEST:
        sys.exit(f"{arguments} made only {count} operations")
    operations.last = chance.randint(1, count)
    operations.delay_seconds = chance.choice([0, chance.uniform(1e-6, MAX_DELAY_SECONDS)])
    operations.run(lake, arguments)
    end(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
