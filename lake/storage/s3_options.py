"""The options of a lake on S3, as `--storage-option` and `Lake(url, storage_options=…)` take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from schemas.errors import StorageError


class S3Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the server. Missing options come from the usual AWS environment, profile or role."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    anonymous: bool = False
    addressing_style: Literal["auto", "path", "virtual"] | None = None
    # How often a request is sent at most, including the first time.
    max_attempts: int = 4
    connect_timeout_seconds: float = 10
    read_timeout_seconds: float = 60

    @classmethod
    def of(cls, options: Mapping[str, str]) -> S3Settings:
        """Return the settings of options by name, with or without `aws_` before it. Raises StorageError, never with a value."""
        by_name = {name.lower().removeprefix("aws_"): text for name, text in options.items()}
        unknown = by_name.keys() - set(cls.__struct_fields__)
        if unknown:
            raise StorageError(
                "unknown storage option",
                where=", ".join(sorted(unknown)),
                expected=f"some of {', '.join(cls.__struct_fields__)}",
            )
        try:
            return msgspec.convert(by_name, cls, strict=False)
        except msgspec.ValidationError as error:
            raise StorageError(f"a storage option can't be used: {error}", where="storage options") from None
