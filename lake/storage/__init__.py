"""Files of a lake: list, read, publish atomically, delete. The only place that knows where they are stored."""

from lake.storage.base import Storage, StoredFile
from lake.storage.bodies import Body, body_of, read_each
from lake.storage.local import LocalStorage
from lake.storage.open import open_storage
from lake.storage.path_checks import not_regular_error

__all__ = [
    "Body",
    "LocalStorage",
    "Storage",
    "StoredFile",
    "body_of",
    "not_regular_error",
    "open_storage",
    "read_each",
]
