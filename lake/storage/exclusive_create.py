"""Whether the lake's storage keeps its word: that of two who create the same file, one is refused.

Every server of S3 takes the condition; some carry the write out all the same. A lease on such a server protects
nothing, so it is tried once for a lake and a server, and noted in the lake.
"""

from __future__ import annotations

import hashlib
import uuid

from lake import paths
from lake.storage import Storage
from schemas.errors import RefusedError


def check_exclusive_create(storage: Storage) -> None:
    """Raise RefusedError if the storage overwrites what it was asked only to create."""
    if storage.creates_exclusively:
        return
    # By server: a lake that was copied to another one is tried there again.
    server = hashlib.sha256(storage.server.encode()).hexdigest()[:16]
    noted = paths.probed(server)
    if storage.exists(noted):
        return
    tried = paths.probed(f"{server}-{uuid.uuid4().hex}")
    try:
        kept = storage.create(tried, b"first") and not storage.create(tried, b"second")
        kept = kept and storage.read(tried) == b"first"
    finally:
        storage.delete(tried)
    if not kept:
        raise RefusedError(
            "this storage overwrites a file that it was asked only to create, so no lease can be held on it",
            where=storage.url,
            expected="HTTP 412 to a PUT with If-None-Match: * of an object that is there",
            found="the object overwritten",
            hint="use a server that honours If-None-Match; or make sure yourself that one job runs at a time, and "
            "run it with --no-lease",
        )
    storage.publish(noted, storage.server.encode())
