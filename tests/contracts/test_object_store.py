"""What an object store adds to the contract of every store: a network, and servers that promise too much."""

import socket
import sys
import uuid
from collections.abc import Callable

import pytest

from core.errors import EventLogError
from core.events.catalogue import ChainStarted, to_event
from core.events.log import EventLog
from core.events.object_store import ObjectStore
from tests.object_server import serving

EVENT = to_event("plan", ChainStarted(dataset="a"))


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_written() -> None:
    from s3fs import S3FileSystem

    with serving("--ignore-conditions") as url:
        options = {"endpoint_url": url, "key": "key", "secret": "secret"}
        S3FileSystem(**options).mkdir("careless")
        log = EventLog(ObjectStore("s3://careless/events", **options))
        for _ in range(2):
            with pytest.raises(
                EventLogError, match=r"s3://careless/events ignores If-None-Match.*use a server"
            ):
                log.append([EVENT])
        assert S3FileSystem(**options).find("careless") == []


def test_the_probe_leaves_nothing_behind(new_bucket: Callable[..., ObjectStore]) -> None:
    EventLog(new_bucket()).append([EVENT])
    assert new_bucket().streams() == ["plan"]


@pytest.mark.parametrize("use", ["append", "read", "streams", "compact"])
def test_a_server_that_is_not_there_is_a_clear_error(
    new_bucket: Callable[..., ObjectStore], use: str
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{listening.getsockname()[1]}"
        log = EventLog(new_bucket(endpoint_url=nowhere))
        actions: dict[str, Callable[[], object]] = {
            "append": lambda: log.append([EVENT]),
            "read": lambda: log.read("plan"),
            "streams": log.streams,
            "compact": lambda: log.compact("plan"),
        }
        with pytest.raises(EventLogError, match=r"s3://.*Could not connect") as raised:
            actions[use]()
    assert isinstance(raised.value.__cause__, OSError)


def test_a_server_that_never_answers_is_an_error_after_a_while(
    new_bucket: Callable[..., ObjectStore],
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        silent = f"http://127.0.0.1:{listening.getsockname()[1]}"
        log = EventLog(new_bucket(endpoint_url=silent, config_kwargs={"read_timeout": 0.1}))
        with pytest.raises(EventLogError, match=r"s3://.*timeout"):
            log.read("plan")


def test_a_bucket_that_does_not_exist_is_no_empty_log(object_server: str) -> None:
    url = f"s3://{uuid.uuid4().hex}/events"
    log = EventLog(ObjectStore(url, endpoint_url=object_server, anon=True))
    for use in (lambda: log.read("plan"), log.streams, lambda: log.append([EVENT])):
        with pytest.raises(EventLogError, match=f"{url}.*bucket does not exist"):
            use()


@pytest.mark.parametrize("url", ["s3://", "outputs/events", "gs://bucket/events"])
def test_another_kind_of_place_is_refused(url: str) -> None:
    with pytest.raises(EventLogError, match="s3://bucket/prefix"):
        ObjectStore(url)


def test_without_s3fs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(EventLogError, match=r"needs s3fs.*can-ids-retrain\[s3\]"):
        ObjectStore("s3://bucket/events")
