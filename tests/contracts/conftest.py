"""Every kind of store that a log is kept on."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from core.events.object_store import ObjectStore
from core.events.stores import LocalStore, MemoryStore, SegmentStore

OpenStore = Callable[[], SegmentStore]
"""Opens the one store of a test anew, as another process would."""


@pytest.fixture
def new_bucket(object_server: str) -> Callable[..., ObjectStore]:
    """Makes a bucket; opens it as often as it is called."""
    from s3fs import S3FileSystem

    options = {"endpoint_url": object_server, "key": "key", "secret": "secret"}
    bucket = f"log-{uuid.uuid4().hex}"
    S3FileSystem(**options).mkdir(bucket)
    return lambda **changes: ObjectStore(f"s3://{bucket}/events", **{**options, **changes})


@pytest.fixture(params=["memory", "disk", "objects"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    if request.param == "memory":
        memory = MemoryStore()
        return lambda: memory
    if request.param == "disk":
        return lambda: LocalStore(tmp_path / "events")
    opening: OpenStore = request.getfixturevalue("new_bucket")
    return opening
