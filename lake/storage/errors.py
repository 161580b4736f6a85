"""Turns failures of storages into errors that a person can act on, without any secret."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from schemas.errors import StorageError

MAX_FOUND_CHARS = 300
ACCESS = "check the credentials and the policy of the user or role; docs/s3.md lists what each job needs"
EXPIRED = "get new credentials, and run the job again; what it published is complete"
RUN_AGAIN = "run the job again; what it published is complete"
RETRIED = f"the storage was asked several times; {RUN_AGAIN}"
BUCKET = "check the bucket's name, the region and the endpoint; meterlake makes no buckets"
_HINTS = {
    "NoSuchBucket": BUCKET,
    "PermanentRedirect": BUCKET,
    "AuthorizationHeaderMalformed": BUCKET,
    "AccessDenied": ACCESS,
    "AllAccessDisabled": ACCESS,
    "InvalidAccessKeyId": ACCESS,
    "SignatureDoesNotMatch": ACCESS,
    "403": ACCESS,
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": EXPIRED,
    "RequestTimeTooSkewed": "set this machine's clock",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role",
}
# The parts of an error's text that show a signature or an account.
_SECRET = re.compile(
    r"(?is)<(AWSAccessKeyId|SignatureProvided|StringToSign|StringToSignBytes|CanonicalRequest|CanonicalRequestBytes)>"
    r".*?</\1>|X-Amz-(?:Signature|Credential|Security-Token)=[^&\s]*|(?<=://)[^/@\s]+@"
)
# Error numbers of a full or read-only disk, and how they appear in errors of Polars and pyarrow.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)
_NO_ROOM_TEXT = re.compile(rf"\b(?:os error|errno) ({'|'.join(map(str, _NO_ROOM))})\b", re.IGNORECASE)
FREE_SPACE = "free space, or raise the limit, and run the job again; what it published is complete"
# How errors of Polars' reader of object storage begin.
_NATIVE = re.compile(r"object[-_ ]store|Generic S3 error|Error performing (?:GET|HEAD)", re.IGNORECASE)
_NATIVE_RETRIED = re.compile(r"after [1-9]\d* retries")
_NATIVE_CODE = re.compile(r"<Code>(\w+)</Code>(?:.*?<Message>(.*?)</Message>)?", re.DOTALL)


def error_code(error: BaseException) -> str:
    """Return the error code of the server's answer, such as `NoSuchKey`; else the type of the error."""
    for each in chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code"):
            return str(response["Error"]["Code"])
    return type(list(chain(error))[-1]).__name__


def http_status(error: BaseException) -> int:
    """Return the HTTP status of the server's answer; 0 without an answer."""
    for each in chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def attempts_before(error: BaseException) -> int:
    """Return how many attempts came before the one that failed."""
    for each in chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))
    return 0


def storage_error(
    what: str,
    where: str,
    error: BaseException,
    secrets: tuple[str, ...] = (),
    *,
    retried: bool = False,
) -> StorageError:
    """Return the StorageError of a failed operation, with the storage's message but without secrets.

    `retried` says whether the operation was tried more than once.
    """
    code, status = error_code(error), http_status(error)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    known = f"{code} (HTTP {status}): {text}" if status else f"{code}: {text}"
    return StorageError(
        what,
        where=where,
        found=without_secrets(known, secrets),
        hint=_HINTS.get(code, RETRIED if retried else RUN_AGAIN),
    )


def without_secrets(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return the text on one line, shortened, with keys, signatures and these secrets redacted."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= MAX_FOUND_CHARS else f"{text[:MAX_FOUND_CHARS]}…"


@contextmanager
def storage_failures(where: str) -> Iterator[None]:
    """Raise Polars' errors of a storage or of a full disk as StorageError; other errors pass.

    They differ from errors of damaged files only by their messages, since Polars has no type for them.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if not is_storage_failure(error):
            raise
        # Without its cause: the message of a refusal has the key's name and the signed request.
        raise as_storage_error(error, where) from None


@contextmanager
def writing(local: Path) -> Iterator[None]:
    """Raise StorageError naming a local file if the disk is full, and remove what was written."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if not _no_room(error):
            raise
        local.unlink(missing_ok=True)
        raise as_storage_error(error, str(local)) from error


def as_storage_error(error: BaseException, where: str) -> StorageError:
    """Return Polars' error of a storage that it read, or of a disk that it wrote to, as StorageError."""
    if reason := _no_room(error):
        return StorageError("could not write a file", where=where, found=reason, hint=FREE_SPACE)
    match = _NATIVE_CODE.search(str(error))
    message = f"{match[1]}: {match[2]}" if match and match[2] else str(error)
    return StorageError(
        "could not read events or aggregates of the lake",
        where=where,
        found=without_secrets(message),
        hint=_HINTS.get(
            match[1] if match else "", RETRIED if _NATIVE_RETRIED.search(str(error)) else RUN_AGAIN
        ),
    )


def has_secrets(error: BaseException, secrets: tuple[str, ...]) -> bool:
    """Return whether an error or one of its causes contains a secret."""
    texts = [str(each) for each in chain(error)]
    return any(_SECRET.search(text) or any(secret in text for secret in secrets) for text in texts)


def is_storage_failure(error: BaseException) -> bool:
    """Return whether an error of Polars is of the storage or the disk, and not of a file's content."""
    return bool(_NATIVE.search(str(error)) or _no_room(error))


def _no_room(error: BaseException) -> str:
    """Return why a disk could not be written; empty for any other error."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return os.strerror(error.errno)
    match = _NO_ROOM_TEXT.search(str(error))
    return os.strerror(int(match[1])) if match else ""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then its causes."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
