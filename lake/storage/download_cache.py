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
from lake.storage.disk.temporary import PREFIX, this_process

# A request takes as long as reading some megabytes, so a file up to this size is read once, as a whole.
SMALL_BYTES = 4 * 2**20
# Small files are cached up to this size in all; others are read from the storage each time.
MAX_CACHED_BYTES = 2**30
PARALLEL = 16


class DownloadCache:
    """Local copies of one storage's files, by path and identity, so that none has an older content."""

    def __init__(self) -> None:
        """No folder is made until it is needed."""
        self._folder: Path | None = None
        self._paths: dict[tuple[str, str], Path] = {}
        self._small_bytes = 0

    def get(self, files: Sequence[StoredFile]) -> list[Path] | None:
        """Return the copies of these files in their order, or None unless there is one of each."""
        copies = [self._paths.get((file.path, file.identity)) for file in files]
        return [path for path in copies if path] if all(copies) else None

    def add(self, files: Iterable[StoredFile], fetch: Callable[[str, Path], None], *, whole: bool) -> None:
        """Copy small files, or all with `whole`, in parallel; a file with a copy is not fetched again."""
        missing = []
        for file in files:
            small = file.size_bytes <= SMALL_BYTES and self._small_bytes + file.size_bytes <= MAX_CACHED_BYTES
            if (whole or small) and (file.path, file.identity) not in self._paths:
                self._small_bytes += 0 if whole else file.size_bytes
                missing.append(file)
        targets = {(file.path, file.identity): self.new_path(".parquet") for file in missing}
        with ThreadPoolExecutor(PARALLEL) as threads:
            list(threads.map(fetch, (path for path, _ in targets), targets.values()))
        # A file that was replaced since it was listed has another content, so it is no copy of the listed one.
        self._paths |= {
            (file.path, file.identity): targets[file.path, file.identity]
            for file in missing
            if targets[file.path, file.identity].stat().st_size == file.size_bytes
        }

    def adopt(self, path: str, local: Path) -> StoredFile:
        """Take a local file as the copy of what was published from it; return the file to ask for it by."""
        file = StoredFile(path, local.stat().st_size, f"published-{uuid.uuid4().hex}")
        self._paths[file.path, file.identity] = local
        return file

    def new_path(self, suffix: str) -> Path:
        """Return a new name in this process's temporary folder, which ends with the process."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{this_process()}-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"{uuid.uuid4().hex}{suffix}"
