"""A lake on S3 or an S3-compatible server: one request a file."""

from __future__ import annotations

import datetime as dt
import email.utils
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import polars as pl

from lake.storage.base import StoredFile
from lake.storage.errors import attempts_before, chain, error_code, http_status
from lake.storage.fsspec_storage import USER, FsspecStorage
from lake.storage.local import scan_local
from lake.storage.path_checks import check_folder, check_path
from lake.storage.s3_connection import credential_provider, s3_file_system
from lake.storage.s3_options import S3Settings
from schemas.errors import StorageError

NOT_FOUND = ("NoSuchKey", "404")
PRECONDITION_FAILED = 412
RANGE_NOT_SATISFIABLE = 416
NO_ANSWER = (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError)
MAX_DELETED_AT_ONCE = 1_000
# Up to this size a file is read into memory and written by one request, whose answer has its ETag.
MAX_SINGLE_PUT_BYTES = 32 * 2**20
DEFAULT_REGION = "us-east-1"


class S3Storage(FsspecStorage):
    """A lake below `s3://bucket/prefix`. An identity is ETag and size; a file is published by one PUT.

    Botocore retries what is transient, with backoff and jitter; s3fs asks again when an answer breaks off.
    Rows are read by Polars itself, which asks for the bytes of the needed columns only.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        """Take the URL, and options as `S3Settings` names them. Nothing is asked of the server yet."""
        where = urlsplit(url)
        if not where.netloc or "@" in where.netloc or ":" in where.netloc:
            raise StorageError("not the URL of a lake on S3", expected="s3://bucket or s3://bucket/prefix")
        self._bucket = where.netloc
        self._prefix = url.partition("://")[2].partition("/")[2].strip("/")
        self._settings = S3Settings.of(options)
        super().__init__(url, s3_file_system(self._settings), f"{self._bucket}/{self._prefix}")
        self._listed_at: dt.datetime | None = None

    @property
    def server(self) -> str:
        """The endpoint's URL."""
        with self._naming("", "reach"):
            self._fs.connect()
        return USER.sub("", str(self._fs.s3.meta.endpoint_url))

    def list(self, prefix: str) -> list[StoredFile]:
        """Return all files below a folder: one request a thousand."""
        start = "/".join(part for part in (self._prefix, check_folder(prefix)) if part)
        objects, more = [], {"Prefix": f"{start}/" if start else ""}
        with self._naming(prefix, "list"):
            while more:
                page = self._fs.call_s3("list_objects_v2", Bucket=self._bucket, **more)
                self._listed_at = _date(page) or self._listed_at
                objects += page.get("Contents", [])
                more = (
                    more | {"ContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else {}
                )
        # Keys that end with a slash are folders made by bucket browsers.
        return sorted(self._stored_object(each) for each in objects if not each["Key"].endswith("/"))

    def server_time(self) -> dt.datetime | None:
        """Return the date of the last listing, by the server's clock."""
        return self._listed_at

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        with self._naming(path, "read"):
            return self._get(path)

    def read_all(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """Return the content of several files, in parallel."""
        full = [self._full(path) for path in paths]
        if not full:
            return []
        contents = self._fs.cat(full, on_error="return", max_concurrency=1) if len(full) > 1 else {}
        # A failed one is read once more, which raises an error with its path.
        return [
            contents[name] if isinstance(contents.get(name), bytes) else self.read(path)
            for path, name in zip(paths, full, strict=True)
        ]

    def publish(self, path: str, content: bytes) -> None:
        """Send one PUT. Large files use a multipart upload and become visible when it completes."""
        with self._naming(path, "write"):
            self._fs.pipe_file(self._full(path), content)

    def create(self, path: str, content: bytes) -> StoredFile | None:
        """Create a file by a PUT on condition that there is none, which the server checks."""
        with self._naming(path, "create"):
            try:
                return self._put(path, content, mode="create")
            except OSError as error:
                if http_status(error) != PRECONDITION_FAILED and not isinstance(error, FileExistsError):
                    raise
                # The answer to a successful attempt may be lost: the existing file is then our own.
                ours = attempts_before(error) > 0 and self._get(path) == content
                return StoredFile(path, len(content), "") if ours else None

    def delete(self, path: str) -> None:
        """One DELETE."""
        with self._naming(path, "delete"):
            self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key(path))

    def delete_all(self, paths: Iterable[str]) -> None:
        """One request a thousand files; a single one as by `delete`."""
        every = list(paths)
        if len(every) == 1:
            return self.delete(every[0])
        for start in range(0, len(every), MAX_DELETED_AT_ONCE):
            batch = every[start : start + MAX_DELETED_AT_ONCE]
            request = {"Objects": [{"Key": self._key(path)} for path in batch], "Quiet": True}
            with self._naming(batch[0], "delete"):
                done = self._fs.call_s3("delete_objects", Bucket=self._bucket, Delete=request)
                for error in done.get("Errors", []):
                    raise OSError(f"{error.get('Code')}: {error.get('Message')}: {error.get('Key')}")
        return None

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        with self._naming(path, "look for"):
            try:
                self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._key(path))
            except FileNotFoundError as error:
                if error_code(error) not in NOT_FOUND:
                    raise
                return False
            return True

    def uri(self, path: str) -> str:
        """Return `s3://bucket/prefix/path`."""
        return f"s3://{self._bucket}/{self._key(path)}"

    def scan(self, files: Sequence[StoredFile], **options: Any) -> pl.LazyFrame:
        """Return the rows of Parquet files, from copies if there is one of each, else by Polars' own reader."""
        copies = self._cache.get(files)
        if copies is not None:
            return scan_local(copies, **options)
        with self._naming(files[0].path, "read"):
            access = self._polars_access()
        return pl.scan_parquet(
            [self.uri(file.path) for file in files], glob=False, hive_partitioning=False, **access, **options
        )

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{check_path(path)}" if self._prefix else check_path(path)

    def _full(self, path: str) -> str:
        return f"{self._bucket}/{self._key(path)}"

    def _stored_object(self, listed: Mapping[str, Any]) -> StoredFile:
        path = listed["Key"][len(self._prefix) + 1 :] if self._prefix else listed["Key"]
        return StoredFile(path, listed["Size"], _identity(listed["Size"], listed["ETag"].strip('"')))

    def _get(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._full(path), max_concurrency=1))
        except FileNotFoundError as error:
            if error_code(error) not in NOT_FOUND:
                raise
            return None

    def _fetch(self, path: str, local: Path) -> None:
        with self._naming(path, "read"):
            self._fs.get_file(self._full(path), str(local), max_concurrency=1)

    def _upload(self, path: str, local: Path) -> StoredFile:
        size_bytes = local.stat().st_size
        with self._naming(path, "write"):
            if size_bytes <= MAX_SINGLE_PUT_BYTES:
                return self._put(path, local.read_bytes())
            self._fs.put_file(str(local), self._full(path))
        return StoredFile(path, size_bytes, "")

    def _put(self, path: str, content: bytes, **how: str) -> StoredFile:
        """Put an object; the answer to a single PUT has the ETag that a listing will show."""
        answer = self._fs.pipe_file(self._full(path), content, **how)
        etag = answer.get("ETag", "").strip('"') if isinstance(answer, Mapping) else ""
        return StoredFile(path, len(content), _identity(len(content), etag) if etag else "")

    def _tail(self, path: str, size_bytes: int) -> bytes:
        try:
            return super()._tail(path, size_bytes)
        except OSError as error:
            if http_status(error) == RANGE_NOT_SATISFIABLE:
                return b""
            raise

    def _polars_access(self) -> dict[str, Any]:
        self._fs.connect()
        client = self._fs.s3.meta
        options = {
            "aws_endpoint_url": client.endpoint_url,
            "aws_region": client.region_name or DEFAULT_REGION,
            "aws_allow_http": str(client.endpoint_url.startswith("http://")).lower(),
            "max_retries": self._settings.max_attempts - 1,
            "timeout": f"{self._settings.read_timeout_seconds:g}s",
            "connect_timeout": f"{self._settings.connect_timeout_seconds:g}s",
        }
        if self._settings.anonymous:
            return {"storage_options": options | {"aws_skip_signature": "true"}, "credential_provider": None}
        return {"storage_options": options, "credential_provider": self._credentials}

    @cached_property
    def _credentials(self) -> Callable[[], tuple[dict[str, str], int | None]]:
        """One provider for all scans: a session of botocore takes ten milliseconds to make."""
        return credential_provider(self._settings)

    def _retried(self, error: BaseException) -> bool:
        """Return whether the request was retried; without an answer botocore has retried what may pass by itself."""
        silent = any(isinstance(each, NO_ANSWER) for each in chain(error))
        return attempts_before(error) > 0 or (silent and self._settings.max_attempts > 1)

    def _secrets(self) -> tuple[str, ...]:
        configured = (
            self._settings.access_key_id,
            self._settings.secret_access_key,
            self._settings.session_token,
        )
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return tuple(secret for secret in (*configured, *map(os.environ.get, names)) if secret)


def _date(answer: Mapping[str, Any]) -> dt.datetime | None:
    """Return the date of a server's answer; None if it has no valid one."""
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=dt.UTC)


def _identity(size_bytes: int, etag: str) -> str:
    return f"{size_bytes}-{etag}"
