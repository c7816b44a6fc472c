"""A log on an S3 object store, or on what speaks its protocol and refuses conditional writes as S3 does."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

from core.errors import EventLogError, StorageError
from core.events.files import too_large

_RETRIES = {"mode": "standard", "total_max_attempts": 2}
_ONE_PUT_BYTES = 5 * 2**30
"""Up to here an object is written by one request: that is what the probe has tried."""


class ObjectStore:
    """Segments as objects ``{url}/{stream}/{name}``, written with ``If-None-Match: *``.

    Some servers take that condition and ignore it. So the first put of each ``ObjectStore`` is preceded by a
    probe: an object that is put twice has to be refused the second time.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``; the bucket exists.
        **storage_options: Those of ``s3fs.S3FileSystem``, like ``endpoint_url``, ``key`` and ``secret``;
            without them credentials are looked for where AWS tools look.

    Raises:
        StorageError: The URL is another one, or s3fs is not installed.
    """

    def __init__(self, url: str, **storage_options: Any) -> None:
        if not url.startswith("s3://") or not url.removeprefix("s3://").strip("/"):
            raise StorageError(f"an object store is s3://bucket/prefix, not {url}")
        try:
            from aiohttp import ClientError
            from botocore.exceptions import BotoCoreError
            from botocore.parsers import ResponseParserError
            from s3fs import S3FileSystem
        except ImportError as error:
            raise StorageError(
                f"storage on {url} needs s3fs ({error}): pip install 'can-ids-retrain[s3]'"
            ) from error
        self.location = url.rstrip("/")
        self._root = self.location.removeprefix("s3://")
        self._errors = (BotoCoreError, ResponseParserError, ClientError, HTTPException)
        config = {"retries": _RETRIES} | storage_options.pop("config_kwargs", {})
        self._files = S3FileSystem(
            **storage_options,
            config_kwargs=config,
            max_concurrency=1,  # one request per read, no look at the size before
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._files.retries = 2  # of a broken download; refused and lost connections are botocore's
        self._probed = False

    def streams(self) -> list[str]:
        """See ``SegmentStore``."""
        return self._list(self._root)

    def names(self, stream: str) -> list[str]:
        """See ``SegmentStore``."""
        return self._list(f"{self._root}/{stream}")

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        """See ``SegmentStore``."""
        path = f"{self._root}/{stream}/{name}"
        try:
            with self._os_errors():
                content: bytes = self._files.cat_file(path, start=0, end=max_bytes + 1)
        except OSError as error:
            if _code(error) == "InvalidRange":  # of what is empty, there is no first byte
                return b""
            raise
        if len(content) > max_bytes:
            raise too_large(path, max_bytes)
        return content

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        """See ``SegmentStore``.

        Raises:
            EventLogError: The server ignores the condition, so writers would overwrite each other.
        """
        if not self._probed:
            self._probe()
            self._probed = True
        return self._put(f"{self._root}/{stream}/{name}", content)

    def delete(self, stream: str, name: str) -> None:
        """See ``SegmentStore``."""
        with self._os_errors():
            self._files.rm_file(f"{self._root}/{stream}/{name}")

    def _list(self, folder: str) -> list[str]:
        try:
            with self._os_errors():
                return [
                    path.rpartition("/")[2] for path in self._files.ls(folder, detail=False, refresh=True)
                ]
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise
            return []

    def _put(self, path: str, content: bytes) -> bool:
        try:
            with self._os_errors():
                self._files.pipe_file(path, content, mode="create", chunksize=_ONE_PUT_BYTES)
        except OSError as error:
            # The first is "it is there", the second "somebody else is writing it": look again and retry.
            if _code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
        return True

    def _probe(self) -> None:
        path = f"{self._root}/.probe-{uuid.uuid4().hex}"
        overwritten = self._put(path, b"first") and self._put(path, b"second")
        with self._os_errors():
            self._files.rm_file(path)
        if overwritten:
            raise EventLogError(
                f"the server of {self.location} ignores If-None-Match: two writers would overwrite each "
                "other's events, nothing was written; use a server with conditional writes (S3 has them)"
            )

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def _code(error: OSError) -> str:
    """The server's name for what s3fs made an ``OSError`` of."""
    code: str = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
    return code
