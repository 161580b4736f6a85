"""Connecting to S3: clients for s3fs and credentials for Polars, from the same settings."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import botocore.exceptions
import botocore.session
import s3fs
from aiobotocore.session import AioSession

from lake.storage.s3_options import S3Settings

# Two writers of one object at the same time: neither may have succeeded, and botocore leaves the retry to us.
CONFLICTS = ("ConditionalRequestConflict", "OperationAborted")
MAX_PAUSE_SECONDS = 20.0


def s3_file_system(settings: S3Settings) -> Any:
    """Return the s3fs file system of these settings, which retries transient failures. Asks nothing of the server."""
    region = settings.region or os.environ.get("AWS_REGION")
    config: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": settings.max_attempts},
        "connect_timeout": settings.connect_timeout_seconds,
        "read_timeout": settings.read_timeout_seconds,
    }
    if settings.addressing_style:
        config["s3"] = {"addressing_style": settings.addressing_style}
    session = AioSession(profile=settings.profile)
    session.register("needs-retry.s3", partial(_pause_after_conflict, settings.max_attempts))
    # Never shared and never cached: another process may have changed the lake, or the environment.
    fs = s3fs.S3FileSystem(
        anon=settings.anonymous,
        key=settings.access_key_id,
        secret=settings.secret_access_key,
        token=settings.session_token,
        endpoint_url=settings.endpoint_url,
        client_kwargs={"region_name": region} if region else {},
        config_kwargs=config,
        session=session,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    fs.retries = settings.max_attempts
    return fs


def _pause_after_conflict(
    max_attempts: int, *, response: tuple[Any, Mapping[str, Any]] | None, attempts: int, **_: Any
) -> float | None:
    """Return after how many seconds to ask again, as botocore does for a 503; None where that is left to botocore."""
    code = response[1].get("Error", {}).get("Code") if response else None
    if code not in CONFLICTS or attempts >= max_attempts:
        return None
    return random.random() * min(2.0 ** (attempts - 1), MAX_PAUSE_SECONDS)  # noqa: S311 - no secret


def credential_provider(settings: S3Settings) -> Callable[[], tuple[dict[str, str], int | None]]:
    """Return the function that Polars asks for credentials: botocore's own chain, refreshed when they expire.

    It returns the credentials and when they expire, in seconds since 1970; None if they don't.
    """
    session = botocore.session.Session(profile=settings.profile)
    if settings.access_key_id and settings.secret_access_key:
        session.set_credentials(settings.access_key_id, settings.secret_access_key, settings.session_token)

    def provide() -> tuple[dict[str, str], int | None]:
        credentials = session.get_credentials()
        if credentials is None:
            raise botocore.exceptions.NoCredentialsError
        now = credentials.get_frozen_credentials()
        options = {"aws_access_key_id": now.access_key, "aws_secret_access_key": now.secret_key}
        if now.token:
            options["aws_session_token"] = now.token
        ends = getattr(credentials, "_expiry_time", None)
        return options, int(ends.timestamp()) if ends else None

    return provide
