"""One process at a time, timed from outside: wall clock, processor time and peak memory, as the kernel counts them."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec


class Timing(msgspec.Struct, frozen=True):
    """What a process took, or the median of several."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    # Whatever was asked of files, from the disk or not; 0 where the system does not tell.
    read_bytes: float = 0


def timed(command: Sequence[str]) -> Timing:
    """Run a command to its end. Exits with its output if it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        # Until the process is waited for, its figures can be read.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        read_bytes = _read_bytes(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode(errors='replace')}")
    # Linux counts in KiB, others in bytes.
    unit = 1024 if sys.platform == "linux" else 1024**2
    return Timing(wall_seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit, read_bytes)


def _read_bytes(process_id: int) -> int:
    counters = Path(f"/proc/{process_id}/io")
    return int(counters.read_text().split()[1]) if counters.exists() else 0


def way(name: str, lake: Path, out: Path) -> Timing:
    """Run one of `benchmarks.ways` on a lake."""
    return timed([sys.executable, "-m", f"benchmarks.ways.{name}", str(lake), str(out)])


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Call a function in a new process: the peak memory of this one would count as that of its children."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(work, *arguments).result()


def forget(lake: Path) -> None:
    """Leave a lake its events and meters alone, so that no run finds what the one before has made."""
    for made in ("aggregates", "index", "state", "lease", "runs"):
        shutil.rmtree(lake / made, ignore_errors=True)


def median(timings: Sequence[Timing]) -> Timing:
    """The median of each figure by itself."""
    columns = zip(*(msgspec.structs.astuple(each) for each in timings), strict=True)
    return Timing(*(statistics.median(column) for column in columns))
