"""Files of a lake: list, read, publish atomically, delete. The only place that knows where they are kept."""

from lake.storage.local import LocalStorage
from lake.storage.opening import open_storage
from lake.storage.protocol import Storage, StoredFile

__all__ = ["LocalStorage", "Storage", "StoredFile", "open_storage"]
