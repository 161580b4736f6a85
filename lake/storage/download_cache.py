"""Copies of remote files on the local disk, and names for temporary files, in a folder of this process."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lake.storage.base import StoredFile
from lake.storage.disk.temporary import PREFIX, own

# A request takes as long as some megabytes do, so a file of this size is better read once and whole.
SMALL_BYTES = 4 * 2**20
# No more than this is kept of small files; what is over is read from the storage each time.
MAX_KEPT_BYTES = 2**30
PARALLEL = 16


class Copies:
    """The local copies of one storage: each of a path and an identity, so never of an older content."""

    def __init__(self) -> None:
        """No folder is made until it is needed."""
        self._folder: Path | None = None
        self._kept: dict[tuple[str, str], Path] = {}
        self._kept_bytes = 0

    def of(self, files: Sequence[StoredFile]) -> list[Path] | None:
        """Return the copies of these files in their order, or None unless there is one of each."""
        found = [self._kept.get((file.path, file.identity)) for file in files]
        return [path for path in found if path] if all(found) else None

    def keep(self, files: Iterable[StoredFile], fetch: Callable[[str, Path], None], *, whole: bool) -> None:
        """Copy what is small, or everything with `whole`, in parallel; what is kept already is not asked for."""
        wanted = []
        for file in files:
            small = file.size_bytes <= SMALL_BYTES and self._kept_bytes + file.size_bytes <= MAX_KEPT_BYTES
            if (whole or small) and (file.path, file.identity) not in self._kept:
                self._kept_bytes += 0 if whole else file.size_bytes
                wanted.append(file)
        targets = {(file.path, file.identity): self.name(".parquet") for file in wanted}
        with ThreadPoolExecutor(PARALLEL) as threads:
            list(threads.map(fetch, (path for path, _ in targets), targets.values()))
        # What was replaced since it was listed is of another content, and no copy of what was listed.
        self._kept |= {
            (file.path, file.identity): targets[file.path, file.identity]
            for file in wanted
            if targets[file.path, file.identity].stat().st_size == file.size_bytes
        }

    def adopt(self, path: str, local: Path) -> StoredFile:
        """Take a local file as the copy of what was published from it; return the file to ask for it by."""
        file = StoredFile(path, local.stat().st_size, f"published-{uuid.uuid4().hex}")
        self._kept[file.path, file.identity] = local
        return file

    def name(self, suffix: str) -> Path:
        """Return a new name in this process's temporary folder, which ends with the process."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{own()}-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"{uuid.uuid4().hex}{suffix}"
