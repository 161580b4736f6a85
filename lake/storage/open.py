"""From a lake's URL to its storage."""

from __future__ import annotations

from collections.abc import Mapping

from lake.storage.base import Storage
from lake.storage.local import LocalStorage
from schemas.errors import StorageError


def open_storage(url: str, options: Mapping[str, str] | None = None) -> Storage:
    """Return the storage of a lake's URL: a local path, `file://`, `s3://bucket/prefix`, `memory://`, or fsspec's others.

    `options` are those of the URL's storage, see `S3Settings`. Raises StorageError for an unknown option or scheme. Sends
    no request.
    """
    scheme, separator, rest = url.partition("://")
    options = options or {}
    if not separator or scheme == "file":
        if options:
            raise StorageError(
                "a local lake takes no storage options", where=url, found=", ".join(sorted(options))
            )
        return LocalStorage(rest if separator else url)
    if scheme == "s3":
        # Imported here: botocore alone takes as long to load as everything else.
        from lake.storage.s3 import S3Storage

        return S3Storage(url, options)
    from lake.storage.fsspec_storage import open_other

    return open_other(url, options)
