"""A place in memory for lakes whose every change is synced: a disk would take most of the test's time."""

import os
import shutil
from pathlib import Path

_SHARED = Path("/dev/shm")  # noqa: S108
_ENOUGH_BYTES = 4 * 2**30


def _has_room() -> bool:
    # A container's is often of 64 MiB.
    return os.access(_SHARED, os.W_OK) and shutil.disk_usage(_SHARED).free > _ENOUGH_BYTES


# For `tempfile`, which takes None for the usual folder.
FOLDER = str(_SHARED) if _has_room() else None
