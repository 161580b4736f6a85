"""What went wrong with a storage, in words that a person can act on, and without any secret."""

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
# What a signature or an account can be seen by in the text of an error.
_SECRET = re.compile(
    r"(?is)<(AWSAccessKeyId|SignatureProvided|StringToSign|StringToSignBytes|CanonicalRequest|CanonicalRequestBytes)>"
    r".*?</\1>|X-Amz-(?:Signature|Credential|Security-Token)=[^&\s]*|(?<=://)[^/@\s]+@"
)
# Why a disk takes no more, and how Polars and pyarrow tell of it in the text of an error.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)
_NO_ROOM_TEXT = re.compile(rf"\b(?:os error|errno) ({'|'.join(map(str, _NO_ROOM))})\b", re.IGNORECASE)
FREE_SPACE = "free space, or raise the limit, and run the job again; what it published is complete"
# How Polars begins what its own reader of object storage has to say.
_NATIVE = re.compile(r"object[-_ ]store|Generic S3 error|Error performing (?:GET|HEAD)", re.IGNORECASE)
_NATIVE_RETRIED = re.compile(r"after [1-9]\d* retries")
_NATIVE_CODE = re.compile(r"<Code>(\w+)</Code>(?:.*?<Message>(.*?)</Message>)?", re.DOTALL)


def error_code(error: BaseException) -> str:
    """Return the code by which the server said no, such as `NoSuchKey`; else the kind of failure."""
    for each in chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code"):
            return str(response["Error"]["Code"])
    return type(list(chain(error))[-1]).__name__


def http_status(error: BaseException) -> int:
    """Return the HTTP status of the answer that the failure comes from; 0 if there was none."""
    for each in chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def attempts_before(error: BaseException) -> int:
    """Return how many attempts had gone before the one that the server refused."""
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
    """Return the StorageError that says what failed where and, of the storage's own words, what is no secret.

    `retried` if the storage was asked more than once.
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
    """Return the text on one line, shortened, with keys, signatures and these secrets struck out."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= MAX_FOUND_CHARS else f"{text[:MAX_FOUND_CHARS]}…"


@contextmanager
def storage_failures(where: str) -> Iterator[None]:
    """Raise what Polars says of a storage, or of a disk that takes no more, as StorageError; let everything else pass.

    Told from damaged files by the words of Polars, for which it has no type of its own.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if not is_storage_failure(error):
            raise
        # Without its cause: the words of a refusal hold the key's name and what was signed.
        raise as_storage_error(error, where) from None


@contextmanager
def writing(local: Path) -> Iterator[None]:
    """Raise StorageError naming a local file if the disk takes no more of it, and remove what there is of it."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if not _no_room(error):
            raise
        local.unlink(missing_ok=True)
        raise as_storage_error(error, str(local)) from error


def as_storage_error(error: BaseException, where: str) -> StorageError:
    """Return what Polars says of a storage that it read or of a disk that it wrote to, as StorageError."""
    if reason := _no_room(error):
        return StorageError("could not write a file", where=where, found=reason, hint=FREE_SPACE)
    match = _NATIVE_CODE.search(str(error))
    said = f"{match[1]}: {match[2]}" if match and match[2] else str(error)
    return StorageError(
        "could not read events or aggregates of the lake",
        where=where,
        found=without_secrets(said),
        hint=_HINTS.get(
            match[1] if match else "", RETRIED if _NATIVE_RETRIED.search(str(error)) else RUN_AGAIN
        ),
    )


def has_secrets(error: BaseException, secrets: tuple[str, ...]) -> bool:
    """Return whether an error or one of its causes says what nobody may see."""
    texts = [str(each) for each in chain(error)]
    return any(_SECRET.search(text) or any(secret in text for secret in secrets) for text in texts)


def is_storage_failure(error: BaseException) -> bool:
    """Return whether an error of Polars is of the storage or the disk, and not of a file's content."""
    return bool(_NATIVE.search(str(error)) or _no_room(error))


def _no_room(error: BaseException) -> str:
    """Return why a disk took no more; empty for any other error."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return os.strerror(error.errno)
    match = _NO_ROOM_TEXT.search(str(error))
    return os.strerror(int(match[1])) if match else ""


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what each one was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
