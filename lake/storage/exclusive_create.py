"""Check that a storage's exclusive create is exclusive: of two writers of the same new file, one is refused.

Every S3 server accepts the condition; some write all the same. A lease on such a server protects nothing, so it is
tried once for each lake and server, and the result is noted in the lake.
"""

from __future__ import annotations

import hashlib
import uuid

from lake import paths
from lake.storage.base import Storage
from schemas.errors import RefusedError


def check_exclusive_create(storage: Storage) -> None:
    """Raise RefusedError if the storage overwrites what it was asked only to create."""
    if storage.creates_exclusively:
        return
    # By server: a lake that was copied to another one is tried there again.
    server = hashlib.sha256(storage.server.encode()).hexdigest()[:16]
    note = paths.exclusive_create_note(server)
    if storage.exists(note):
        return
    tried = paths.exclusive_create_note(f"{server}-{uuid.uuid4().hex}")
    try:
        is_exclusive = storage.create(tried, b"first") and not storage.create(tried, b"second")
        is_exclusive = is_exclusive and storage.read(tried) == b"first"
    finally:
        storage.delete(tried)
    if not is_exclusive:
        raise RefusedError(
            "this storage overwrites existing files on exclusive create, so a lease protects nothing on it",
            where=storage.url,
            expected="HTTP 412 to a PUT with If-None-Match: * of an existing object",
            found="the object overwritten",
            hint="use a server that honours If-None-Match; or make sure yourself that one job runs at a time, and "
            "run it with --no-lease",
        )
    storage.publish(note, storage.server.encode())
